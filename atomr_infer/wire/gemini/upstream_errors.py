"""What a Gemini upstream says is wrong, as an error of inference.

Google wraps an error in ``{"error": {code, message, status, details}}``, as a
body, as the one item of an array, or inside a stream that began well.  The
status word says more than the HTTP status, and a reason in ``details`` more
than both: AI Studio refuses a bad key with 400 and ``API_KEY_INVALID``.

Pure.

Source: google.rpc ``Status``, ``Code`` and ``error_details.proto``.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer import errors
from atomr_infer.wire.openai.upstream_errors import MAX_MESSAGE_CHARS, MAX_WORD_CHARS

if TYPE_CHECKING:
    from atomr_infer.model.secret import Secret

_MAX_WAIT_S = 86400.0


@attrs.frozen(kw_only=True)
class ErrorBody:
    """An upstream's own words.

    Attributes:
        message: text; "" when there was none.
        status: the word for its status, such as ``INVALID_ARGUMENT``; "".
        code: the HTTP status that it names; None: none.
        reason: the machine-readable reason in its details; "".
        field: the request member at fault, as the upstream names it.
        retry_after_s: how long it asks us to wait.
        per_day: True when a quota of the whole day is used up.
    """

    message: str = ""
    status: str = ""
    code: int | None = None
    reason: str = ""
    field: str | None = None
    retry_after_s: float | None = None
    per_day: bool = False


def parse_error(data: bytes) -> ErrorBody | None:
    """Return the error that a JSON body holds; None when it holds none.

    >>> parse_error(b'[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]').code
    429
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, str) and error:
        return ErrorBody(message=error)
    return _body(error) if isinstance(error, dict) else None


def _body(members: dict[str, object]) -> ErrorBody:
    details = members.get("details")
    code = members.get("code")
    body = ErrorBody(
        message=_text(members.get("message")),
        status=_text(members.get("status")),
        code=code if isinstance(code, int) and 400 <= code < 600 else None,
    )
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            body = _with_detail(body, detail)
    return body


def _with_detail(body: ErrorBody, detail: dict[str, object]) -> ErrorBody:
    match _text(detail.get("@type")).rpartition(".")[2]:
        case "ErrorInfo":
            return attrs.evolve(body, reason=_text(detail.get("reason")))
        case "RetryInfo":
            wait_s = duration_s(_text(detail.get("retryDelay")))
            return attrs.evolve(body, retry_after_s=wait_s)
        case "BadRequest":
            field = _first(detail.get("fieldViolations"), "field")
            return attrs.evolve(body, field=field or None)
        case "QuotaFailure":
            quota = _first(detail.get("violations"), "quotaId")
            return attrs.evolve(body, per_day="PerDay" in quota)
        case _:
            return body


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _first(items: object, name: str) -> str:
    """Return a member of a list's first object; "" when there is none."""
    if isinstance(items, list) and items and isinstance(items[0], dict):
        return _text(items[0].get(name))
    return ""


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")


def duration_s(text: str) -> float | None:
    """Return a duration of protocol buffers in seconds; None: it is none.

    >>> duration_s("37s"), duration_s("0.5s"), duration_s("soon")
    (37.0, 0.5, None)
    """
    match = _DURATION.fullmatch(text)
    return None if match is None else min(float(match[1]), _MAX_WAIT_S)


def classify(
    body: ErrorBody,
    *,
    http: int | None = None,
    retry_after_s: float | None = None,
    secret: Secret | None = None,
) -> errors.InferenceError:
    """Return the error of inference for an upstream's error.

    Args:
        body: what the upstream said.
        http: the answer's HTTP status; None for an error inside a stream.
        retry_after_s: how long its headers ask us to wait; the body's own wait
            is the finer one and wins.
        secret: our key, blotted out should the upstream repeat it.
    """
    status = http if http is not None else body.code
    error_class = _class_of(body, status)
    wait_s = body.retry_after_s if body.retry_after_s is not None else retry_after_s
    return error_class(
        _message(body, status, secret),
        code=_word(_code(body, error_class), secret),
        param=_word(body.field, secret),
        retry_after_s=wait_s if wait_s is None or math.isfinite(wait_s) else None,
        status=status,
    )


_KEY_REASONS = frozenset(
    {
        "API_KEY_INVALID",
        "API_KEY_EXPIRED",
        "API_KEY_SERVICE_BLOCKED",
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "ACCESS_TOKEN_EXPIRED",
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "CONSUMER_INVALID",
        "CONSUMER_SUSPENDED",
        "BILLING_DISABLED",
        "SERVICE_DISABLED",
        "ACCOUNT_STATE_INVALID",
        "CREDENTIALS_MISSING",
    }
)

_BY_WORD: dict[str, type[errors.InferenceError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequestError,
    "OUT_OF_RANGE": errors.InvalidRequestError,
    "FAILED_PRECONDITION": errors.InvalidRequestError,
    "UNAUTHENTICATED": errors.UpstreamAuthError,
    "PERMISSION_DENIED": errors.UpstreamAuthError,
    "NOT_FOUND": errors.ModelNotFoundError,
    "RESOURCE_EXHAUSTED": errors.RateLimitedError,
    "UNIMPLEMENTED": errors.UnsupportedFeatureError,
    "DEADLINE_EXCEEDED": errors.UpstreamTimeoutError,
    # Google gave it up; we did not.
    "CANCELLED": errors.UpstreamError,
    # Another request of the same account is in the way.
    "ABORTED": errors.OverloadedError,
}

_BY_HTTP: dict[int, type[errors.InferenceError]] = {
    401: errors.UpstreamAuthError,
    402: errors.UpstreamAuthError,
    403: errors.UpstreamAuthError,
    404: errors.ModelNotFoundError,
    408: errors.UpstreamTimeoutError,
    409: errors.OverloadedError,
    429: errors.RateLimitedError,
    501: errors.UnsupportedFeatureError,
    504: errors.UpstreamTimeoutError,
}

_CONTEXT_PHRASES = (
    "input token count",
    "maximum number of tokens allowed",
    "context window",
    "context length",
)

# How a 400 begins that is about our account: billing, its region, its key.  What
# stands further on may be the client's words, which must cost no key.
_ACCOUNT_BEGINNINGS = (
    "api key not valid",
    "api key expired",
    "user location is not supported",
    "gemini api free tier is not available",
    "please enable billing",
    "this api method requires billing",
)

# What a 403 or 404 is about that is no key and no model: the client's to name.
_CLIENTS_OWN = ("cachedcontent", "access the file")

_FILTER_PHRASES = ("prohibited use policy", "blocked by the safety", "usage guidelines")


def _class_of(body: ErrorBody, status: int | None) -> type[errors.InferenceError]:
    if body.reason in _KEY_REASONS:
        return errors.UpstreamAuthError
    # A failing server's words say nothing about the request, so 5xx is first.
    if status is not None and status >= 500:
        return _BY_HTTP.get(status, errors.UpstreamError)
    found = _BY_WORD.get(body.status)
    if found is None and status is not None:
        found = _BY_HTTP.get(status, errors.InvalidRequestError)
    text = body.message.lower()
    if found is errors.InvalidRequestError:
        return _invalid_class(text)
    named = found in {errors.UpstreamAuthError, errors.ModelNotFoundError}
    if named and any(phrase in text for phrase in _CLIENTS_OWN):
        return errors.InvalidRequestError
    return found or errors.UpstreamError


def _invalid_class(text: str) -> type[errors.InferenceError]:
    if "exceeds" in text and any(phrase in text for phrase in _CONTEXT_PHRASES):
        return errors.ContextLengthError
    if any(phrase in text for phrase in _FILTER_PHRASES):
        return errors.ContentFilterError
    if text.startswith(_ACCOUNT_BEGINNINGS):
        return errors.UpstreamAuthError
    return errors.InvalidRequestError


def _code(body: ErrorBody, error_class: type[errors.InferenceError]) -> str | None:
    if error_class is errors.RateLimitedError and body.per_day:
        return "quota_of_the_day"
    return body.reason.lower() or None


def _message(body: ErrorBody, status: int | None, secret: Secret | None) -> str:
    text = " ".join(body.message.split())
    if not text:
        return f"the upstream answered {status or 'an error without a text'}"
    # Blot first: a key that straddles the cut would survive in part.
    text = text if secret is None else secret.blot(text)
    if len(text) > MAX_MESSAGE_CHARS:
        return text[:MAX_MESSAGE_CHARS] + "..."
    return text


def _word(text: str | None, secret: Secret | None) -> str | None:
    if text is None:
        return None
    return (text if secret is None else secret.blot(text))[:MAX_WORD_CHARS]
