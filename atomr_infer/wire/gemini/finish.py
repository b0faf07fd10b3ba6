"""Why an answer ended: Gemini's words and the canonical ones.

Pure.

Source: Gemini API reference, "FinishReason" and "BlockReason".
"""

from __future__ import annotations

import attrs

from atomr_infer.errors import InferenceError, InternalError, UpstreamProtocolError
from atomr_infer.model.batch import FinishReason

_FILTERED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
    }
)

# The model wrote nonsense; another try has a good chance.
_BROKEN = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
    }
)

# It ended, and no other class of reason has a word for it.
_OTHERS = frozenset({"OTHER", "IMAGE_OTHER", "NO_IMAGE"})

_UNSAID = frozenset({"", "FINISH_REASON_UNSPECIFIED"})

MISSING_SIGNATURE = "MISSING_THOUGHT_SIGNATURE"


def is_finish(native: str | None) -> bool:
    """Whether a candidate's reason says that it ended."""
    return native is not None and native not in _UNSAID


def canonical(native: str, *, has_calls: bool) -> FinishReason:
    """Return the canonical reason for Gemini's.

    Gemini says STOP when it asks for tools; a client that reads reasons only
    must hear of the calls all the same.

    Args:
        native: a word that :func:`broken` has no error for.
        has_calls: True when the answer asks for tools.

    >>> canonical("STOP", has_calls=True)
    <FinishReason.TOOL_CALLS: 'tool_calls'>
    >>> canonical("SPII", has_calls=False)
    <FinishReason.CONTENT_FILTER: 'content_filter'>
    """
    if native in _FILTERED:
        return FinishReason.CONTENT_FILTER
    if native == "MAX_TOKENS":
        return FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if has_calls else FinishReason.STOP


def broken(native: str, message: str = "") -> InferenceError | None:
    """Return the error that a reason stands for; None: it ends an answer.

    Args:
        native: Gemini's word.
        message: its ``finishMessage``.
    """
    told = f": {message}" if message else ""
    if native == MISSING_SIGNATURE:
        # What we sent lacks what the client could not carry: no retry helps.
        return InternalError(
            f"the request lacked a thought signature that the model asks for{told}",
            code="missing_thought_signature",
        )
    if native in _BROKEN:
        return UpstreamProtocolError(
            f"the model's answer broke off with {native}{told}", code=native.lower()
        )
    return None


_WORDS = {
    FinishReason.STOP: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.CONTENT_FILTER: "SAFETY",
}


@attrs.frozen
class Finish:
    """How a candidate ends.

    Attributes:
        word: Gemini's reason.
        message: what it adds to it.
    """

    word: str
    message: str | None = None


def to_wire(reason: FinishReason, native: str | None = None) -> Finish:
    """Return Gemini's word for a canonical reason; its own word is kept.

    >>> to_wire(FinishReason.CONTENT_FILTER, "RECITATION").word
    'RECITATION'
    >>> to_wire(FinishReason.TOOL_CALLS, "tool_use").word
    'STOP'
    """
    if native in _FILTERED and reason is FinishReason.CONTENT_FILTER:
        return Finish(native)
    if native in _OTHERS and reason is FinishReason.STOP:
        return Finish(native)
    return Finish(_WORDS[reason])
