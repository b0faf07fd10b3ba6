"""Write errors in Google's envelope, with the HTTP status that belongs to each.

The status says whose fault it is: a client must never see the upstream's 401
as its own, or it would throw away its good key, so credentials that the
*upstream* refused are a 502.

What a client may act on stands in ``details``, in Google's own types: the wait
in ``RetryInfo``, the member at fault in ``BadRequest``, our code in
``ErrorInfo``.

Pure.

Source: google.rpc ``Status`` and ``error_details.proto``.
"""

from __future__ import annotations

import math

import attrs
import msgspec

from atomr_infer import errors
from atomr_infer.wire.ingress import ErrorAnswer

_TYPE = "type.googleapis.com/google.rpc."
_DOMAIN = "atomr-infer"
_DEFAULT_WAIT_S = 1.0
_MAX_WAIT_S = 86400.0


@attrs.frozen
class _Meaning:
    http: int
    status: str


_MEANINGS: dict[type[errors.InferenceError], _Meaning] = {
    errors.InvalidRequestError: _Meaning(400, "INVALID_ARGUMENT"),
    errors.UnknownReferenceError: _Meaning(404, "NOT_FOUND"),
    errors.ModelNotFoundError: _Meaning(404, "NOT_FOUND"),
    errors.ModelNotAllowedError: _Meaning(403, "PERMISSION_DENIED"),
    errors.BudgetExceededError: _Meaning(402, "RESOURCE_EXHAUSTED"),
    errors.RateLimitedError: _Meaning(429, "RESOURCE_EXHAUSTED"),
    errors.OverloadedError: _Meaning(503, "UNAVAILABLE"),
    errors.NotReadyError: _Meaning(503, "UNAVAILABLE"),
    errors.UpstreamAuthError: _Meaning(502, "INTERNAL"),
    errors.UpstreamTimeoutError: _Meaning(504, "DEADLINE_EXCEEDED"),
    errors.DeadlineError: _Meaning(504, "DEADLINE_EXCEEDED"),
    errors.UpstreamError: _Meaning(502, "INTERNAL"),
    errors.EngineError: _Meaning(503, "UNAVAILABLE"),
    errors.InferenceError: _Meaning(500, "INTERNAL"),
}

# What the table of statuses says for an error without a class of its own.
_BY_CODE = {
    "unsupported": _Meaning(501, "UNIMPLEMENTED"),
    "insufficient_quota": _Meaning(429, "RESOURCE_EXHAUSTED"),
}

_BY_HTTP = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def answer(error: errors.InferenceError) -> ErrorAnswer:
    """Return the HTTP answer for an error that precedes the first byte."""
    http = _meaning(error).http
    return ErrorAnswer(http, envelope(error), _retry_headers(error, http))


def plain(status: int, message: str, *, code: str | None = None) -> ErrorAnswer:
    """Return an answer for what HTTP itself refuses: 404, 405, 408, 413."""
    word = _BY_HTTP.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    details = [] if code is None else [_error_info(code)]
    return ErrorAnswer(status, _body(_Meaning(status, word), message, details))


def envelope(error: errors.InferenceError) -> bytes:
    """Return ``{"error": {...}}``; also what ends a broken stream."""
    meaning = _meaning(error)
    return _body(meaning, error.message, _details(error, meaning.http))


def _body(meaning: _Meaning, message: str, details: list[dict[str, object]]) -> bytes:
    members = {
        "code": meaning.http,
        "message": message,
        "status": meaning.status,
        "details": details,
    }
    return msgspec.json.encode({"error": members})


def _meaning(error: errors.InferenceError) -> _Meaning:
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    for ancestor in type(error).__mro__:
        found = _MEANINGS.get(ancestor)
        if found is not None:
            return found
    raise TypeError(f"{error!r} is not an InferenceError")


def _details(error: errors.InferenceError, http: int) -> list[dict[str, object]]:
    details: list[dict[str, object]] = []
    if error.code is not None:
        details.append(_error_info(error.code))
    if error.param is not None:
        violation = {"field": error.param, "description": error.message}
        details.append(_detail("BadRequest", fieldViolations=[violation]))
    if http in {429, 503} and error.retry_after_s is not None:
        delay = f"{_bounded(error.retry_after_s):.3f}".rstrip("0").rstrip(".")
        details.append(_detail("RetryInfo", retryDelay=f"{delay}s"))
    return details


def _error_info(code: str) -> dict[str, object]:
    return _detail("ErrorInfo", reason=code.upper(), domain=_DOMAIN)


def _detail(name: str, **members: object) -> dict[str, object]:
    return {"@type": _TYPE + name, **members}


def _bounded(wait_s: float | None) -> float:
    """Return a wait that an answer can carry, whatever float an engine gave."""
    if wait_s is None or math.isnan(wait_s):
        return _DEFAULT_WAIT_S
    return min(max(0.0, wait_s), _MAX_WAIT_S)


def _retry_headers(
    error: errors.InferenceError, http: int
) -> tuple[tuple[bytes, bytes], ...]:
    if http not in (429, 503):
        return ()
    wait_s = _bounded(error.retry_after_s)
    whole_s = max(1, math.ceil(wait_s))
    return (
        (b"retry-after", str(whole_s).encode()),
        (b"retry-after-ms", str(max(1, round(wait_s * 1000))).encode()),
    )
