"""mistral.rs's errors as ours.

The engine raises ``ValueError`` for everything and says what is wrong in its
text only, with a Rust backtrace behind it.  These are the texts of 0.9.5; what
is not known is the engine's fault, which is the safe reading: the request may
be tried elsewhere, and the engine's health is questioned.

Pure.
"""

from __future__ import annotations

import re

from atomr_infer.errors import (
    ContextLengthError,
    EngineCrashedError,
    EngineError,
    InferenceError,
    InvalidRequestError,
)

_LONGEST_TOLD = 300
"""The library of schemas may say a megabyte of why."""

_TOO_LONG = re.compile(r"Prompt sequence length is greater than (\d+)")
_SCHEMA = re.compile(r"Invalid grammar|Failed to parse JSON schema")
_PARAMETER = re.compile(
    r"(max_tokens|temperature|top_p|stop|presence_penalty|frequency_penalty)\b"
    r".*\bmust\b"
)


def to_inference_error(error: BaseException) -> InferenceError:
    """Return the error that a client or an operator is told.

    >>> to_inference_error(ValueError("max_tokens must be at least 1."))
    InvalidRequestError('max_tokens must be at least 1.')
    """
    if isinstance(error, InferenceError):
        return error
    # pyo3 raises a Rust panic as a BaseException; what it left locked or half
    # done is unknown, so the engine is not used again.
    if not isinstance(error, Exception):
        return EngineCrashedError(f"mistral.rs panicked: {first_line(error)}")
    # The bindings convert a request's values before the engine sees them.
    if isinstance(error, TypeError):
        return InvalidRequestError("the request holds text that is not Unicode")
    return _from_text(first_line(error))


def _from_text(text: str) -> InferenceError:
    if too_long := _TOO_LONG.search(text):
        return ContextLengthError(
            f"the prompt is longer than the model's context of {too_long[1]} tokens",
            code="context_length_exceeded",
            param="messages",
        )
    if parameter := _PARAMETER.match(text):
        return InvalidRequestError(text, param=parameter[1])
    if _SCHEMA.match(text):
        return InvalidRequestError(
            f"this schema cannot be kept to: {text[:_LONGEST_TOLD]}",
            param="response_format",
        )
    if "chat_template" in text:
        return InvalidRequestError(
            f"the model's chat template refuses the conversation: {text}",
            param="messages",
        )
    return EngineError(f"mistral.rs failed: {text}")


def first_line(error: BaseException) -> str:
    """Return an error's text without its backtrace."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__
