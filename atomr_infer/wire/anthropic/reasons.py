"""Why an answer ended, in Anthropic's words and in the canonical ones.

Pure.

Source: Anthropic API reference, "Handling stop reasons".
"""

from __future__ import annotations

from atomr_infer.model.batch import FinishReason

_CANONICAL = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}

_NATIVE = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}


def finish_reason(native: str) -> FinishReason:
    """Return the canonical reason for a provider's own.

    A new word becomes STOP: the answer has ended, and no other class of reason
    can be claimed for it.

    >>> finish_reason("model_context_window_exceeded")
    <FinishReason.LENGTH: 'length'>
    """
    return _CANONICAL.get(native, FinishReason.STOP)


def stop_reason(
    finish: FinishReason | None,
    *,
    native: str | None = None,
    stop_sequence: str | None = None,
) -> str:
    """Return Anthropic's word for why an answer ended.

    Args:
        finish: the canonical reason; None when a runner named none.
        native: the provider's own word; kept when it is one of Anthropic's.
        stop_sequence: the string that ended the answer, when it is known.

    >>> stop_reason(FinishReason.STOP, stop_sequence="END")
    'stop_sequence'
    """
    if native in _CANONICAL and _CANONICAL[native] is (finish or FinishReason.STOP):
        return native
    if stop_sequence is not None and finish in {None, FinishReason.STOP}:
        return "stop_sequence"
    return _NATIVE[finish or FinishReason.STOP]
