"""Errors in Google's envelope, as section 7 of the protocols has them."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from atomr_infer import errors
from atomr_infer.wire.gemini.ingress import GEMINI

TYPE = "type.googleapis.com/google.rpc."


def _answer(error: errors.InferenceError) -> tuple[int, Any, dict[bytes, bytes]]:
    answer = GEMINI.refuse(error, "r-1")
    body = msgspec.json.decode(answer.body)
    assert list(body) == ["error"]
    assert body["error"]["code"] == answer.status
    return answer.status, body["error"], dict(answer.headers)


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (errors.InvalidRequestError("x"), 400, "INVALID_ARGUMENT"),
        (errors.UnsupportedFeatureError("x"), 400, "INVALID_ARGUMENT"),
        (errors.ContextLengthError("x"), 400, "INVALID_ARGUMENT"),
        (errors.ContentFilterError("x"), 400, "INVALID_ARGUMENT"),
        (errors.ModelNotFoundError("x"), 404, "NOT_FOUND"),
        (errors.RateLimitedError("x"), 429, "RESOURCE_EXHAUSTED"),
        (errors.OverloadedError("x"), 503, "UNAVAILABLE"),
        (errors.CircuitOpenError("x"), 503, "UNAVAILABLE"),
        (errors.NotReadyError("x"), 503, "UNAVAILABLE"),
        (errors.UpstreamAuthError("x", status=401), 502, "INTERNAL"),
        (errors.UpstreamError("x", status=529), 502, "INTERNAL"),
        (errors.StreamCutError("x"), 502, "INTERNAL"),
        (errors.UpstreamTimeoutError("x"), 504, "DEADLINE_EXCEEDED"),
        (errors.DeadlineError("x"), 504, "DEADLINE_EXCEEDED"),
        (errors.EngineCrashedError("x"), 503, "UNAVAILABLE"),
        (errors.InternalError("x"), 500, "INTERNAL"),
        (errors.InvalidRequestError("x", code="unsupported"), 501, "UNIMPLEMENTED"),
        (
            errors.RateLimitedError("x", code="insufficient_quota"),
            429,
            "RESOURCE_EXHAUSTED",
        ),
    ],
)
def test_section_7_status_of_each_error(
    error: errors.InferenceError, status: int, word: str
) -> None:
    code, body, _ = _answer(error)
    assert (code, body["status"], body["message"]) == (status, word, "x")


@pytest.mark.parametrize(
    ("http", "word"),
    [
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (405, "UNIMPLEMENTED"),
        (413, "INVALID_ARGUMENT"),
        (418, "INVALID_ARGUMENT"),
        (501, "UNIMPLEMENTED"),
        (505, "INTERNAL"),
    ],
)
def test_what_http_refuses_has_a_status_word(http: int, word: str) -> None:
    answer = GEMINI.plain(http, "no", "r-1", code="why")
    assert answer.status == http
    assert msgspec.json.decode(answer.body) == {
        "error": {
            "code": http,
            "message": "no",
            "status": word,
            "details": [
                {"@type": TYPE + "ErrorInfo", "reason": "WHY", "domain": "atomr-infer"}
            ],
        }
    }


def test_member_at_fault_is_a_field_violation() -> None:
    error = errors.InvalidRequestError("'a.b' is bad", param="a.b", code="bad")
    _, body, headers = _answer(error)
    assert body["details"] == [
        {"@type": TYPE + "ErrorInfo", "reason": "BAD", "domain": "atomr-infer"},
        {
            "@type": TYPE + "BadRequest",
            "fieldViolations": [{"field": "a.b", "description": "'a.b' is bad"}],
        },
    ]
    assert headers == {}


@pytest.mark.parametrize(
    ("wait_s", "delay", "whole", "ms"),
    [
        (37.0, "37s", b"37", b"37000"),
        (0.25, "0.25s", b"1", b"250"),
        (-1.0, "0s", b"1", b"1"),
        (1e300, "86400s", b"86400", b"86400000"),
        (math.nan, "1s", b"1", b"1000"),
    ],
)
def test_section_8_wait_is_told_in_details_and_headers(
    wait_s: float, delay: str, whole: bytes, ms: bytes
) -> None:
    _, body, headers = _answer(errors.RateLimitedError("x", retry_after_s=wait_s))
    assert body["details"] == [{"@type": TYPE + "RetryInfo", "retryDelay": delay}]
    assert headers == {b"retry-after": whole, b"retry-after-ms": ms}


def test_wait_is_told_only_where_waiting_helps() -> None:
    _, body, headers = _answer(errors.UpstreamTimeoutError("x", retry_after_s=5.0))
    assert (body["details"], headers) == ([], {})


def test_wait_that_is_not_known_is_only_a_header() -> None:
    _, body, headers = _answer(errors.OverloadedError("x"))
    assert body["details"] == []
    assert headers[b"retry-after"] == b"1"
