"""What the Messages API says is wrong, as an error of inference.

An error is a body of its own or an event inside a stream that began with status
200; both hold ``{"type": "error", "error": {"type": ..., "message": ...}}``.

The class comes from the status where there is one, and from ``type``.  The text
decides among the causes of ``invalid_request_error``, which the API has no
codes for: a prompt that is too long, an empty account, a filter.

Pure.

Source: Anthropic API, "Errors".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs

from atomr_infer import errors
from atomr_infer.wire.openai.upstream_errors import (
    CONTEXT_PHRASES,
    ErrorBody,
    worded,
)

if TYPE_CHECKING:
    from atomr_infer.model.secret import Secret

_BY_TYPE: dict[str, type[errors.InferenceError]] = {
    "authentication_error": errors.UpstreamAuthError,
    "permission_error": errors.UpstreamAuthError,
    "billing_error": errors.UpstreamAuthError,
    "not_found_error": errors.ModelNotFoundError,
    "rate_limit_error": errors.RateLimitedError,
    "timeout_error": errors.UpstreamTimeoutError,
    "request_too_large": errors.InvalidRequestError,
}

_BY_STATUS: dict[int, type[errors.InferenceError]] = {
    401: errors.UpstreamAuthError,
    402: errors.UpstreamAuthError,
    403: errors.UpstreamAuthError,
    404: errors.ModelNotFoundError,
    408: errors.UpstreamTimeoutError,
    # "Conflict, try again"; says nothing about the endpoint's health.
    409: errors.OverloadedError,
    429: errors.RateLimitedError,
    504: errors.UpstreamTimeoutError,
}

_EMPTY_ACCOUNT = ("credit balance is too low", "usage limits")
_FILTERED = ("content filtering policy", "usage policy")

# What a client or an operator may look for; the API itself has types only.
_CODES = {"overloaded_error": "overloaded", "request_too_large": "request_too_large"}


def classify(
    body: ErrorBody,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
    secret: Secret | None = None,
) -> errors.InferenceError:
    """Return the error of inference for an upstream's error.

    "Overloaded" (529, or an event) is a failure of the endpoint and counts for
    its breaker, which a rate limit does not.

    Args:
        body: what the upstream said.
        status: the answer's HTTP status; None for an error inside a stream.
        retry_after_s: how long it asked us to wait.
        secret: our key, blotted out should the upstream repeat it.
    """
    if status is None:
        status = body.status
    coded = attrs.evolve(body, code=body.code or _CODES.get(body.type))
    return worded(
        _class_of(body, status),
        coded,
        status=status,
        retry_after_s=retry_after_s,
        secret=secret,
    )


def _class_of(body: ErrorBody, status: int | None) -> type[errors.InferenceError]:
    # A failing server's words say nothing about the request, so 5xx is first.
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _BY_STATUS.get(status, errors.UpstreamError)
    if body.type in _BY_TYPE:
        return _BY_TYPE[body.type]
    if status is not None and status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is None and body.type != "invalid_request_error":
        return errors.UpstreamError
    return _of_text(body.message.lower())


def _of_text(message: str) -> type[errors.InferenceError]:
    if any(phrase in message for phrase in CONTEXT_PHRASES):
        return errors.ContextLengthError
    if any(phrase in message for phrase in _EMPTY_ACCOUNT):
        # Waiting does not help, another account may: the key is refused, not the pace.
        return errors.UpstreamAuthError
    if any(phrase in message for phrase in _FILTERED):
        return errors.ContentFilterError
    return errors.InvalidRequestError
