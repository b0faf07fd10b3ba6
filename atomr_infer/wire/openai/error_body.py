"""Write errors in OpenAI's envelope, with the HTTP status that belongs to each.

The status says whose fault it is: a client must never see the upstream's 401
as its own, or it would throw away its good key, so credentials that the
*upstream* refused are a 502.

Pure.

Source: OpenAI API reference, "Error codes".
"""

from __future__ import annotations

import math

import attrs
import msgspec

from atomr_infer import errors
from atomr_infer.wire.ingress import ErrorAnswer

_DEFAULT_WAIT_S = 1.0
_MAX_WAIT_S = 86400.0


@attrs.frozen
class _Meaning:
    status: int
    type: str
    code: str | None = None


_MEANINGS: dict[type[errors.InferenceError], _Meaning] = {
    errors.InvalidRequestError: _Meaning(400, "invalid_request_error"),
    errors.EndpointUnsupportedError: _Meaning(
        501, "invalid_request_error", "unsupported"
    ),
    errors.ContextLengthError: _Meaning(
        400, "invalid_request_error", "context_length_exceeded"
    ),
    errors.ContentFilterError: _Meaning(
        400, "invalid_request_error", "content_policy_violation"
    ),
    errors.UnknownReferenceError: _Meaning(404, "invalid_request_error", "not_found"),
    errors.ModelNotFoundError: _Meaning(
        404, "invalid_request_error", "model_not_found"
    ),
    errors.ModelNotAllowedError: _Meaning(
        403, "invalid_request_error", "model_not_found"
    ),
    errors.BudgetExceededError: _Meaning(402, "insufficient_quota", "budget_exceeded"),
    errors.RateLimitedError: _Meaning(429, "rate_limit_error", "rate_limit_exceeded"),
    errors.OverloadedError: _Meaning(503, "server_error", "overloaded"),
    errors.NotReadyError: _Meaning(503, "server_error", "not_ready"),
    errors.UpstreamAuthError: _Meaning(502, "server_error", "upstream_auth"),
    errors.UpstreamTimeoutError: _Meaning(504, "server_error", "timeout"),
    errors.DeadlineError: _Meaning(504, "server_error", "timeout"),
    errors.UpstreamError: _Meaning(502, "server_error", "upstream_error"),
    errors.EngineError: _Meaning(503, "server_error", "engine_error"),
    errors.InferenceError: _Meaning(500, "server_error", "internal_error"),
}


def answer(error: errors.InferenceError) -> ErrorAnswer:
    """Return the HTTP answer for an error that precedes the first byte."""
    meaning = _meaning(error)
    return ErrorAnswer(
        status=meaning.status,
        body=envelope(error),
        headers=_retry_headers(error, meaning.status),
    )


def plain(status: int, message: str, *, code: str | None = None) -> ErrorAnswer:
    """Return an answer for what HTTP itself refuses: 404, 405, 408, 413."""
    body = _body(message, "invalid_request_error", None, code)
    return ErrorAnswer(status=status, body=body)


def envelope(error: errors.InferenceError) -> bytes:
    """Return ``{"error": {...}}``; also what ends a broken stream."""
    meaning = _meaning(error)
    code = error.code or meaning.code
    return _body(error.message, meaning.type, error.param, code)


def _body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    members = {"message": message, "type": kind, "param": param, "code": code}
    return msgspec.json.encode({"error": members})


def _meaning(error: errors.InferenceError) -> _Meaning:
    for ancestor in type(error).__mro__:
        found = _MEANINGS.get(ancestor)
        if found is not None:
            return found
    raise TypeError(f"{error!r} is not an InferenceError")


def _bounded(wait_s: float | None) -> float:
    """Return a wait that a header can carry, whatever float an engine gave."""
    if wait_s is None or math.isnan(wait_s):
        return _DEFAULT_WAIT_S
    return min(max(0.0, wait_s), _MAX_WAIT_S)


def _retry_headers(
    error: errors.InferenceError, status: int
) -> tuple[tuple[bytes, bytes], ...]:
    if status not in (429, 503):
        return ()
    wait_s = _bounded(error.retry_after_s)
    whole_s = max(1, math.ceil(wait_s))
    return (
        (b"retry-after", str(whole_s).encode()),
        (b"retry-after-ms", str(max(1, round(wait_s * 1000))).encode()),
    )
