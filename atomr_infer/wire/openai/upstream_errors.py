"""What an OpenAI-like upstream says is wrong, as an error of inference.

Upstreams wrap errors in four ways, in a body of its own or inside a stream
that began with status 200::

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
    {"error": "text"}
    {"object": "error", "message": ..., "type": ..., "code": 400}     (vLLM)
    event: error  with any of these as data

The class comes from the status where there is one, and from ``code`` and
``type``.  The text decides in one case only: a prompt that is too long, for
which many servers have no code.

Pure.

Source: OpenAI API reference, "Error codes"; vLLM ``ErrorResponse``.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer import errors

if TYPE_CHECKING:
    from atomr_infer.model.secret import Secret

MAX_MESSAGE_CHARS = 1000
"""Longest text of an upstream that goes into an error, and so to a client."""


MAX_WORD_CHARS = 200
"""Longest ``code`` or ``param``; a path into a deep request fits."""


@attrs.frozen(kw_only=True)
class ErrorBody:
    """An upstream's own words.

    Attributes:
        message: text; "" when there was none.
        type: OpenAI's ``type``, such as ``invalid_request_error``.
        code: OpenAI's ``code``; a number is kept in ``status`` instead.
        param: the request member at fault.
        status: an HTTP status that the body itself names.
    """

    message: str = ""
    type: str = ""
    code: str | None = None
    param: str | None = None
    status: int | None = None


def parse_error(data: bytes) -> ErrorBody | None:
    """Return the error that a JSON body holds; None when it holds none.

    >>> parse_error(b'{"error":{"message":"no","code":"x"}}').code
    'x'
    """
    try:
        members = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return find_error(members)


def find_error(members: object) -> ErrorBody | None:
    """Return the error inside decoded JSON; None when there is none."""
    if not isinstance(members, dict):
        return None
    inner = members.get("error")
    if isinstance(inner, dict):
        return _error_body(inner)
    if isinstance(inner, str) and inner:
        return ErrorBody(message=inner)
    if members.get("object") == "error" or members.get("type") == "error":
        return _error_body(members)
    return None


def _error_body(members: dict[str, object]) -> ErrorBody:
    code = members.get("code")
    status = _status(code) or _status(members.get("status"))
    return ErrorBody(
        message=_text(members.get("message")),
        type=_text(members.get("type")),
        code=_text(code) or None if status is None else None,
        param=_text(members.get("param")) or None,
        status=status,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _status(value: object) -> int | None:
    """Read 400 and "400" alike: OpenAI-compatible servers send both."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    if isinstance(value, int) and HTTPStatus.BAD_REQUEST <= value < 600:
        return value
    return None


def classify(
    body: ErrorBody,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
    secret: Secret | None = None,
) -> errors.InferenceError:
    """Return the error of inference for an upstream's error.

    Args:
        body: what the upstream said.
        status: the answer's HTTP status; None for an error inside a stream.
        retry_after_s: how long it asked us to wait.
        secret: our key, blotted out should the upstream repeat it.
    """
    if status is None:
        status = body.status
    return worded(
        _class_of(body, status),
        body,
        status=status,
        retry_after_s=retry_after_s,
        secret=secret,
    )


def worded(
    error_class: type[errors.InferenceError],
    body: ErrorBody,
    *,
    status: int | None,
    retry_after_s: float | None,
    secret: Secret | None,
) -> errors.InferenceError:
    """Return an error in the upstream's words, without our key and not too long."""
    return error_class(
        _message(body, status, secret),
        code=_word(body.code, secret),
        param=_word(body.param, secret),
        retry_after_s=retry_after_s,
        status=status,
    )


# The upstream's own code or type, where it says more than the status.
_BY_WORD: dict[str, type[errors.InferenceError]] = {
    "context_length_exceeded": errors.ContextLengthError,
    "string_above_max_length": errors.ContextLengthError,
    "content_policy_violation": errors.ContentFilterError,
    "content_filter": errors.ContentFilterError,
    "content_policy": errors.ContentFilterError,
    # Out of money is no rate: waiting does not help, another account may.  So
    # it is the credentials that are refused, not the pace.
    "insufficient_quota": errors.UpstreamAuthError,
    "billing_hard_limit_reached": errors.UpstreamAuthError,
    "billing_not_active": errors.UpstreamAuthError,
    "invalid_api_key": errors.UpstreamAuthError,
    "authentication_error": errors.UpstreamAuthError,
    "permission_error": errors.UpstreamAuthError,
    "model_not_found": errors.ModelNotFoundError,
    "rate_limit_exceeded": errors.RateLimitedError,
    "rate_limit_error": errors.RateLimitedError,
}

_BY_STATUS: dict[int, type[errors.InferenceError]] = {
    401: errors.UpstreamAuthError,
    402: errors.UpstreamAuthError,
    403: errors.UpstreamAuthError,
    404: errors.ModelNotFoundError,
    # It took too long there: as silent as if we had stopped waiting.
    408: errors.UpstreamTimeoutError,
    # OpenAI's "locked, try again"; says nothing about the endpoint's health.
    409: errors.OverloadedError,
    429: errors.RateLimitedError,
    504: errors.UpstreamTimeoutError,
}

CONTEXT_PHRASES = (
    "maximum context length",
    "context window",
    "context length",
    "context limit",
    "prompt is too long",
)
"""What servers say, in lower case, when prompt and output do not fit."""


def _class_of(body: ErrorBody, status: int | None) -> type[errors.InferenceError]:
    # A failing server's words say nothing about the request, so 5xx is first.
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _BY_STATUS.get(status, errors.UpstreamError)
    for word in (body.code, body.type):
        if word is not None and word in _BY_WORD:
            return _BY_WORD[word]
    if status is not None and status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is None and body.type not in {"invalid_request_error", "BadRequestError"}:
        return errors.UpstreamError
    if any(phrase in body.message.lower() for phrase in CONTEXT_PHRASES):
        return errors.ContextLengthError
    return errors.InvalidRequestError


def _message(body: ErrorBody, status: int | None, secret: Secret | None) -> str:
    text = " ".join(body.message.split())
    if not text:
        return f"the upstream answered {status or 'an error without a text'}"
    # Blot first: a key that straddles the cut would survive in part.
    text = _redacted(text, secret) or ""
    if len(text) > MAX_MESSAGE_CHARS:
        return text[:MAX_MESSAGE_CHARS] + "..."
    return text


def _word(text: str | None, secret: Secret | None) -> str | None:
    blotted = _redacted(text, secret)
    return None if blotted is None else blotted[:MAX_WORD_CHARS]


def _redacted(text: str | None, secret: Secret | None) -> str | None:
    if text is None or secret is None:
        return text
    return secret.blot(text)
