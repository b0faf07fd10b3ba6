from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from atomr_infer import errors
from atomr_infer.model.secret import Secret
from atomr_infer.remote.blot import without_secret
from atomr_infer.wire.wrong_place import Place
from atomr_infer_openai.faults import fault

PLACE = Place(deployment="m", endpoint="https://h.example", runtime="openai", api="it")


def _fault(
    status: int, headers: dict[str, str] | None = None, **error: Any
) -> errors.InferenceError:
    body = json.dumps({"error": error}).encode() if error else b""
    return fault(status, headers or {}, body, now_epoch_s=0.0, place=PLACE)


@pytest.mark.parametrize(
    ("status", "error", "error_class"),
    [
        (400, {"message": "m"}, errors.InvalidRequestError),
        (400, {"code": "context_length_exceeded"}, errors.ContextLengthError),
        (
            400,
            {"message": "This model's maximum context length is 4096 tokens."},
            errors.ContextLengthError,
        ),
        (400, {"code": "content_policy_violation"}, errors.ContentFilterError),
        (400, {"code": "content_filter"}, errors.ContentFilterError),
        (400, {"code": "invalid_api_key"}, errors.UpstreamAuthError),
        (401, {"code": "invalid_api_key"}, errors.UpstreamAuthError),
        (401, {}, errors.UpstreamAuthError),
        (402, {}, errors.UpstreamAuthError),
        (403, {"message": "country"}, errors.UpstreamAuthError),
        (404, {"code": "model_not_found"}, errors.ModelNotFoundError),
        (404, {"message": "no such model"}, errors.ModelNotFoundError),
        (404, {}, errors.UpstreamProtocolError),
        (405, {}, errors.UpstreamProtocolError),
        (408, {}, errors.UpstreamTimeoutError),
        (409, {}, errors.OverloadedError),
        (413, {}, errors.InvalidRequestError),
        (422, {"message": "m"}, errors.InvalidRequestError),
        (429, {"code": "rate_limit_exceeded"}, errors.RateLimitedError),
        (429, {}, errors.RateLimitedError),
        (429, {"code": "insufficient_quota"}, errors.UpstreamAuthError),
        (429, {"type": "insufficient_quota"}, errors.UpstreamAuthError),
        (500, {}, errors.UpstreamError),
        (500, {"code": "context_length_exceeded"}, errors.UpstreamError),
        (502, {}, errors.UpstreamError),
        (503, {}, errors.UpstreamError),
        (504, {}, errors.UpstreamTimeoutError),
        (529, {"type": "overloaded_error"}, errors.UpstreamError),
        (204, {}, errors.UpstreamProtocolError),
        (307, {}, errors.UpstreamProtocolError),
    ],
)
def test_status_and_code_give_the_class(
    status: int, error: Any, error_class: type[Exception]
) -> None:
    found = _fault(status, **error)
    assert type(found) is error_class
    assert found.status == status


def test_spent_quota_is_not_retried_but_may_fall_back() -> None:
    spent = _fault(429, code="insufficient_quota")
    assert (spent.retryable, spent.fallback, spent.breaker_failure) == (
        False,
        True,
        False,
    )


def test_text_code_and_member_are_passed_on() -> None:
    found = _fault(400, message="too hot", code="bad_value", param="temperature")
    assert (found.message, found.code, found.param) == (
        "too hot",
        "bad_value",
        "temperature",
    )


@pytest.mark.parametrize("status", [429, 503, 529])
def test_retry_after_is_passed_on(status: int) -> None:
    headers = {"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}
    assert _fault(status, headers).retry_after_s == 30.0


def test_web_page_is_not_passed_on() -> None:
    page = b"<html><h1>502 Bad Gateway</h1></html>"
    found = fault(502, {}, page, now_epoch_s=0.0, place=PLACE)
    assert found.message == "the upstream answered 502"


def test_key_is_blotted_out() -> None:
    body = b'{"error":{"message":"bad key sk-1"}}'
    found = fault(401, {}, body, now_epoch_s=0.0, place=PLACE, secret=Secret("sk-1"))
    assert found.message == "bad key ***"


def test_key_leaves_no_block_in_any_part_of_an_error() -> None:
    def fail() -> None:
        cause = ValueError("got sk-1")
        raise errors.UpstreamError("a sk-1", code="sk-1", param="p.sk-1") from cause

    with (
        pytest.raises(errors.UpstreamError) as caught,
        without_secret(Secret("sk-1")),
    ):
        fail()
    error = caught.value
    assert errors.encode(error) == errors.ErrorRecord(
        kind="upstream", message="a ***", code="***", param="p.***"
    )
    shown = "".join(traceback.format_exception_only(error))
    assert "sk-1" not in f"{error} {error!r} {shown}"
    assert (error.__cause__, error.__context__) == (None, None)


def test_long_code_and_param_are_cut() -> None:
    found = _fault(400, message="m", code="c" * 60_000, param="p" * 60_000)
    assert (found.code, found.param) == ("c" * 200, "p" * 200)
