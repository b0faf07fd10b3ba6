"""Write errors in Anthropic's envelope, with the HTTP status that belongs to each.

The status says whose fault it is: a client must never see the upstream's 401
as its own, or it would throw away its good key, so credentials that the
*upstream* refused are a 502.  What has no room is a 529, which client libraries
take for "overloaded".

Pure.

Source: Anthropic API, "Errors".
"""

from __future__ import annotations

import math

import attrs
import msgspec

from atomr_infer import errors
from atomr_infer.wire.ingress import ErrorAnswer

_DEFAULT_WAIT_S = 1.0
_MAX_WAIT_S = 86400.0

OVERLOADED = 529
"""Anthropic's own status for "no room"."""


TOO_LARGE = "request_too_large"
"""The code of an error about a body's size, and its type here."""


@attrs.frozen
class _Meaning:
    status: int
    type: str


_MEANINGS: dict[type[errors.InferenceError], _Meaning] = {
    errors.InvalidRequestError: _Meaning(400, "invalid_request_error"),
    errors.EndpointUnsupportedError: _Meaning(501, "invalid_request_error"),
    errors.UnknownReferenceError: _Meaning(404, "not_found_error"),
    errors.ModelNotFoundError: _Meaning(404, "not_found_error"),
    errors.ModelNotAllowedError: _Meaning(403, "permission_error"),
    errors.BudgetExceededError: _Meaning(402, "billing_error"),
    errors.RateLimitedError: _Meaning(429, "rate_limit_error"),
    errors.OverloadedError: _Meaning(OVERLOADED, "overloaded_error"),
    errors.NotReadyError: _Meaning(OVERLOADED, "overloaded_error"),
    errors.UpstreamTimeoutError: _Meaning(504, "timeout_error"),
    errors.DeadlineError: _Meaning(504, "timeout_error"),
    errors.UpstreamError: _Meaning(502, "api_error"),
    errors.EngineError: _Meaning(503, "api_error"),
    errors.InferenceError: _Meaning(500, "api_error"),
}

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: TOO_LARGE,
    429: "rate_limit_error",
    501: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}

_RETRY_STATUSES = (429, 503, OVERLOADED)


def answer(error: errors.InferenceError, request_id: str) -> ErrorAnswer:
    """Return the HTTP answer for an error that precedes the first byte."""
    meaning = _meaning(error)
    return ErrorAnswer(
        status=meaning.status,
        body=_body(meaning.type, error.message, request_id),
        headers=_retry_headers(error, meaning.status),
    )


def plain(status: int, message: str, request_id: str) -> ErrorAnswer:
    """Return an answer for what HTTP itself refuses: 401, 404, 405, 408, 413."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    body = _body(kind, message, request_id)
    return ErrorAnswer(status=status, body=body)


def stream_error(error: errors.InferenceError) -> bytes:
    """Return the data of the event that ends a broken stream."""
    return _encode(_members(_meaning(error).type, error.message))


_encode = msgspec.json.Encoder().encode


def _members(kind: str, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _body(kind: str, message: str, request_id: str) -> bytes:
    return _encode({**_members(kind, message), "request_id": request_id})


def _meaning(error: errors.InferenceError) -> _Meaning:
    if error.code == TOO_LARGE:
        return _Meaning(413, TOO_LARGE)
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
    if status not in _RETRY_STATUSES:
        return ()
    wait_s = _bounded(error.retry_after_s)
    whole_s = max(1, math.ceil(wait_s))
    return (
        (b"retry-after", str(whole_s).encode()),
        (b"retry-after-ms", str(max(1, round(wait_s * 1000))).encode()),
    )
