"""Errors in OpenAI's envelope: all four keys, the right status, no surprises."""

import json
import math

import pytest

from atomr_infer import errors
from atomr_infer.wire.openai import error_body


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.InvalidRequestError("m"), 400, "invalid_request_error", None),
        (
            errors.ContextLengthError("m"),
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        (
            errors.ModelNotFoundError("m"),
            404,
            "invalid_request_error",
            "model_not_found",
        ),
        (errors.RateLimitedError("m"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.OverloadedError("m"), 503, "server_error", "overloaded"),
        (errors.NotReadyError("m"), 503, "server_error", "not_ready"),
        (errors.UpstreamAuthError("m"), 502, "server_error", "upstream_auth"),
        (errors.UpstreamError("m"), 502, "server_error", "upstream_error"),
        (errors.StreamCutError("m"), 502, "server_error", "upstream_error"),
        (errors.UpstreamTimeoutError("m"), 504, "server_error", "timeout"),
        (errors.DeadlineError("m"), 504, "server_error", "timeout"),
        (errors.EngineCrashedError("m"), 503, "server_error", "engine_error"),
        (errors.InternalError("m"), 500, "server_error", "internal_error"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_every_kind_has_its_status(
    error: errors.InferenceError, status: int, kind: str, code: str | None
) -> None:
    answer = error_body.answer(error)
    assert answer.status == status
    assert json.loads(answer.body) == {
        "error": {"message": "m", "type": kind, "param": None, "code": code}
    }


def test_no_error_class_is_left_without_a_meaning() -> None:
    pending: list[type[errors.InferenceError]] = [errors.InferenceError]
    while pending:
        error_class = pending.pop()
        pending.extend(error_class.__subclasses__())
        assert 400 <= error_body.answer(error_class("m")).status <= 504


def test_the_errors_own_code_and_param_win() -> None:
    error = errors.InvalidRequestError("m", code="c", param="messages[0]")
    assert json.loads(error_body.envelope(error))["error"] == {
        "message": "m",
        "type": "invalid_request_error",
        "param": "messages[0]",
        "code": "c",
    }


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    slow = error_body.answer(errors.RateLimitedError("m", retry_after_s=2.2))
    assert dict(slow.headers) == {b"retry-after": b"3", b"retry-after-ms": b"2200"}
    unsaid = error_body.answer(errors.OverloadedError("m"))
    assert dict(unsaid.headers) == {b"retry-after": b"1", b"retry-after-ms": b"1000"}
    assert error_body.answer(errors.UpstreamError("m")).headers == ()


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [
        (math.nan, b"1", b"1000"),
        (math.inf, b"86400", b"86400000"),
        (-math.inf, b"1", b"1"),
        (-3.0, b"1", b"1"),
        (1e308, b"86400", b"86400000"),
    ],
)
def test_any_float_makes_a_header(
    wait_s: float, seconds: bytes, milliseconds: bytes
) -> None:
    answer = error_body.answer(errors.RateLimitedError("m", retry_after_s=wait_s))
    assert dict(answer.headers) == {
        b"retry-after": seconds,
        b"retry-after-ms": milliseconds,
    }
