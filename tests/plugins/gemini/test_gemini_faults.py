"""What a refusal of Google's means, by reason, word and status."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from atomr_infer import errors
from atomr_infer.model.secret import Secret
from atomr_infer.wire.wrong_place import Place
from atomr_infer_gemini.faults import fault

TYPE = "type.googleapis.com/google.rpc."

PLACE = Place(deployment="m", endpoint="https://h.example", runtime="gemini", api="it")


def _body(status: str = "", message: str = "no", **members: Any) -> bytes:
    error = {"code": 400, "message": message, "status": status, **members}
    return msgspec.json.encode({"error": error})


def _fault(status: int, body: bytes, **headers: str) -> errors.InferenceError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return fault(status, named, body, now_epoch_s=0.0, place=PLACE)


def _reason(reason: str) -> list[dict[str, Any]]:
    return [{"@type": TYPE + "ErrorInfo", "reason": reason, "domain": "googleapis.com"}]


@pytest.mark.parametrize(
    ("status", "word", "error_class"),
    [
        (400, "INVALID_ARGUMENT", errors.InvalidRequestError),
        (400, "FAILED_PRECONDITION", errors.InvalidRequestError),
        (400, "", errors.InvalidRequestError),
        (401, "UNAUTHENTICATED", errors.UpstreamAuthError),
        (402, "", errors.UpstreamAuthError),
        (403, "PERMISSION_DENIED", errors.UpstreamAuthError),
        (404, "NOT_FOUND", errors.ModelNotFoundError),
        (408, "", errors.UpstreamTimeoutError),
        (409, "ABORTED", errors.OverloadedError),
        (413, "", errors.InvalidRequestError),
        (422, "", errors.InvalidRequestError),
        (429, "RESOURCE_EXHAUSTED", errors.RateLimitedError),
        (499, "CANCELLED", errors.UpstreamError),
        (500, "INTERNAL", errors.UpstreamError),
        (500, "INVALID_ARGUMENT", errors.UpstreamError),
        (501, "UNIMPLEMENTED", errors.UnsupportedFeatureError),
        (503, "UNAVAILABLE", errors.UpstreamError),
        (504, "DEADLINE_EXCEEDED", errors.UpstreamTimeoutError),
        (529, "", errors.UpstreamError),
    ],
)
def test_section_7_class_of_each_status(
    status: int, word: str, error_class: type[errors.InferenceError]
) -> None:
    error = _fault(status, _body(word))
    assert (type(error), error.status, error.message) == (error_class, status, "no")


def test_section_7_bad_key_of_ai_studio_is_about_credentials_though_it_is_a_400() -> (
    None
):
    error = _fault(400, _body("INVALID_ARGUMENT", details=_reason("API_KEY_INVALID")))
    assert type(error) is errors.UpstreamAuthError
    assert (error.code, error.rebuild_session) == ("api_key_invalid", True)


def test_bad_key_is_known_by_its_text_too() -> None:
    body = _body("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")
    assert type(_fault(400, body)) is errors.UpstreamAuthError


def test_section_7_ai_studio_says_in_the_body_how_long_to_wait() -> None:
    details = [{"@type": TYPE + "RetryInfo", "retryDelay": "37s"}]
    error = _fault(429, _body("RESOURCE_EXHAUSTED", details=details), retry_after="1")
    assert (type(error), error.retry_after_s) == (errors.RateLimitedError, 37.0)


def test_section_7_vertex_does_not_say_and_its_header_counts() -> None:
    body = _body("RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.")
    assert _fault(429, body).retry_after_s is None
    assert _fault(429, body, retry_after="2.5").retry_after_s == 2.5


def test_spent_quota_of_the_day_is_told_apart() -> None:
    violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}
    details = [{"@type": TYPE + "QuotaFailure", "violations": [violation]}]
    error = _fault(429, _body("RESOURCE_EXHAUSTED", details=details))
    assert (type(error), error.code) == (errors.RateLimitedError, "quota_of_the_day")


@pytest.mark.parametrize(
    ("message", "error_class"),
    [
        (
            "The input token count (1200000) exceeds the maximum number of tokens"
            " allowed (1048575).",
            errors.ContextLengthError,
        ),
        (
            "The request was blocked by the safety settings.",
            errors.ContentFilterError,
        ),
        ("temperature must be in the range [0, 2].", errors.InvalidRequestError),
    ],
)
def test_text_decides_where_there_is_no_code(
    message: str, error_class: type[errors.InferenceError]
) -> None:
    assert type(_fault(400, _body("INVALID_ARGUMENT", message))) is error_class


@pytest.mark.parametrize(
    "message",
    [
        "API key expired. Please renew the API key.",
        "User location is not supported for the API use.",
        "Gemini API free tier is not available in your country. Please enable billing.",
    ],
)
def test_what_is_wrong_with_the_account_is_about_credentials(message: str) -> None:
    error = _fault(400, _body("FAILED_PRECONDITION", message))
    assert type(error) is errors.UpstreamAuthError


@pytest.mark.parametrize(
    ("status", "word", "message"),
    [
        (403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)"),
        (
            403,
            "PERMISSION_DENIED",
            "You do not have permission to access the File x or it may not exist.",
        ),
        (404, "NOT_FOUND", "CachedContent cachedContents/1 is not found."),
        (400, "FAILED_PRECONDITION", "The File x is not in an ACTIVE state."),
        (400, "INVALID_ARGUMENT", "Invalid value: 'API key not valid'"),
    ],
)
def test_what_only_the_client_can_name_costs_no_key(
    status: int, word: str, message: str
) -> None:
    assert type(_fault(status, _body(word, message))) is errors.InvalidRequestError


def test_field_at_fault_is_the_param() -> None:
    violations = [{"field": "contents[0].parts", "description": "x"}]
    details = [{"@type": TYPE + "BadRequest", "fieldViolations": violations}]
    error = _fault(400, _body("INVALID_ARGUMENT", details=details))
    assert error.param == "contents[0].parts"


def test_error_in_a_list_of_one_is_read() -> None:
    error = _fault(400, b"[" + _body("NOT_FOUND") + b"]")
    assert type(error) is errors.ModelNotFoundError


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"[3]",
        b'{"error":3}',
        b'{"error":{"details":[3,{"@type":4},{"@type":"x.RetryInfo"}],"code":"a"}}',
        b'{"error":{"details":{"a":1},"message":7,"status":[]}}',
    ],
)
def test_body_of_any_shape_is_no_reason_to_fail(body: bytes) -> None:
    error = _fault(400, body)
    assert (type(error), error.message) == (
        errors.InvalidRequestError,
        "the upstream answered 400",
    )


@pytest.mark.parametrize(("status", "body"), [(404, b"<html>"), (302, b""), (204, b"")])
def test_what_is_no_such_server_is_told_so(status: int, body: bytes) -> None:
    error = _fault(status, body)
    assert (type(error), error.code) == (errors.UpstreamProtocolError, "not_an_api")


def test_key_is_blotted_and_long_texts_are_cut() -> None:
    key = Secret("AIza-0123456789")
    body = _body("INVALID_ARGUMENT", "bad AIza-0123456789 " + "x" * 2000)
    error = fault(400, {}, body, now_epoch_s=0.0, place=PLACE, secret=key)
    assert error.message.startswith("bad *** xxx")
    assert len(error.message) == 1003
