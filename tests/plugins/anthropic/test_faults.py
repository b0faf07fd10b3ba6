"""What an answer other than 200 means."""

from __future__ import annotations

import json

import pytest

from atomr_infer import errors
from atomr_infer.model.secret import Secret
from atomr_infer.wire.wrong_place import Place
from atomr_infer_anthropic.faults import fault, wait_s

PLACE = Place(
    deployment="m", endpoint="https://h.example", runtime="anthropic", api="it"
)


def body(kind: str, message: str = "no") -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message}}
    ).encode()


@pytest.mark.parametrize(
    ("status", "kind", "message", "error", "code"),
    [
        (400, "invalid_request_error", "no", errors.InvalidRequestError, None),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            errors.ContextLengthError,
            None,
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 199000 + 8192",
            errors.ContextLengthError,
            None,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
            errors.UpstreamAuthError,
            None,
        ),
        (
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy",
            errors.ContentFilterError,
            None,
        ),
        (401, "authentication_error", "no", errors.UpstreamAuthError, None),
        (402, "billing_error", "no", errors.UpstreamAuthError, None),
        (403, "permission_error", "no", errors.UpstreamAuthError, None),
        (404, "not_found_error", "no", errors.ModelNotFoundError, None),
        (408, "x", "no", errors.UpstreamTimeoutError, None),
        (409, "x", "no", errors.OverloadedError, None),
        (
            413,
            "request_too_large",
            "no",
            errors.InvalidRequestError,
            "request_too_large",
        ),
        (429, "rate_limit_error", "no", errors.RateLimitedError, None),
        (500, "api_error", "no", errors.UpstreamError, None),
        (503, "overloaded_error", "no", errors.UpstreamError, "overloaded"),
        (504, "timeout_error", "no", errors.UpstreamTimeoutError, None),
        (529, "overloaded_error", "no", errors.UpstreamError, "overloaded"),
    ],
)
def test_each_status_and_type_has_its_error(
    status: int,
    kind: str,
    message: str,
    error: type[errors.InferenceError],
    code: str | None,
) -> None:
    made = fault(status, {}, body(kind, message), now_epoch_s=0.0, place=PLACE)
    assert type(made) is error
    assert (made.message, made.code, made.status) == (message, code, status)


@pytest.mark.parametrize(
    ("status", "feeds"),
    [(529, True), (503, True), (500, True), (504, True), (429, False), (400, False)],
)
def test_breaker_is_fed_by_failures_and_not_by_limits(status: int, feeds: bool) -> None:
    assert fault(status, {}, b"", now_epoch_s=0.0, place=PLACE).breaker_failure is feeds


@pytest.mark.parametrize(
    ("status", "said"), [(301, body("x")), (404, b"<html>"), (200 + 4, b"")]
)
def test_who_does_not_answer_as_the_api_is_not_it(status: int, said: bytes) -> None:
    made = fault(status, {}, said, now_epoch_s=0.0, place=PLACE)
    assert type(made) is errors.UpstreamProtocolError
    assert (made.code, made.status) == ("not_an_api", status)


def test_key_that_comes_back_is_blotted_out() -> None:
    said = body("authentication_error", "bad key sk-ant-12345678")
    made = fault(
        401, {}, said, now_epoch_s=0.0, place=PLACE, secret=Secret("sk-ant-12345678")
    )
    assert "12345678" not in made.message


SPENT = {
    "anthropic-ratelimit-requests-remaining": "0",
    "anthropic-ratelimit-requests-reset": "1970-01-01T00:01:00Z",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "1970-01-01T00:02:00+00:00",
    "anthropic-ratelimit-output-tokens-remaining": "5",
    "anthropic-ratelimit-output-tokens-reset": "1970-01-01T09:00:00Z",
}


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        (429, {"retry-after": "9"}, 9.0),
        (503, {"retry-after": "Thu, 01 Jan 1970 00:00:40 GMT"}, 30.0),
        (429, SPENT, 110.0),
        (429, {**SPENT, "retry-after": "1"}, 1.0),
        (500, SPENT, None),
        (429, {}, None),
        (
            429,
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "soon",
            },
            None,
        ),
        (
            429,
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "1970-01-01T00:00:01",
            },
            0.0,
        ),
        (
            429,
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "9999-01-01T00:00:00Z",
            },
            86400.0,
        ),
    ],
)
def test_wait_is_told_by_headers_or_by_the_limits_that_are_spent(
    status: int, headers: dict[str, str], expected: float | None
) -> None:
    assert wait_s(status, headers, now_epoch_s=10.0) == expected
