"""The response object and the items of its output.

Pure.

Source: OpenAI API reference, "The response object".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.model.batch import FinishReason
from atomr_infer.wire.citations import (
    Citation,
    read_annotations,
    response_annotations,
)
from atomr_infer.wire.openai.responses_proof import write_proof
from atomr_infer.wire.openai.responses_tools import call_forms, free_text
from atomr_infer.wire.openai.usage_body import response_usage_members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.model.collected import Choice
    from atomr_infer.model.parts import RawJson, ReasoningPart, ToolCallPart
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.ingress import AnswerFacts, Asked
    from atomr_infer.wire.openai.responses_tools import CallForm

Members = dict[str, object]

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_json = msgspec.json.Encoder().encode

_DEFAULTS: dict[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, and what it says when that said nothing."""

_INCOMPLETE = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
}


def response_id(facts: AnswerFacts) -> str:
    """Return ``resp_...``."""
    return f"resp_{facts.request_id}"


def item_id(prefix: str, facts: AnswerFacts, number: int) -> str:
    """Return the id of an item of the output."""
    return f"{prefix}_{facts.request_id}_{number}"


def call_id(facts: AnswerFacts, number: int, *, form: CallForm | None) -> str:
    """Return the id of a call; OpenAI refuses one with another kind's prefix."""
    custom = form is not None and form.custom
    return item_id("ctc" if custom else "fc", facts, number)


class ResponseObject:
    """The parts of a response that stay the same while it grows.

    Attributes:
        forms: of the tools that are no plain functions, by the name that the
            model calls.
    """

    def __init__(self, asked: Asked, facts: AnswerFacts) -> None:
        said = {} if asked.echo is None else _decode(asked.echo)
        self._echo: Members = {
            name: said.get(name, default) for name, default in _DEFAULTS.items()
        }
        self._facts = facts
        self.forms: Mapping[str, CallForm] = call_forms(said.get("tools"))

    def members(
        self,
        status: str,
        output: Sequence[Members],
        *,
        usage: Usage | None = None,
        incomplete: str | None = None,
        error: Members | None = None,
    ) -> Members:
        """Return the object.

        Args:
            status: ``in_progress``, ``completed``, ``incomplete`` or ``failed``.
            output: its items so far.
            usage: the totals, when they are known.
            incomplete: why it is not complete.
            error: what made it fail.
        """
        details = None if incomplete is None else {"reason": incomplete}
        return {
            "id": response_id(self._facts),
            "object": "response",
            "created_at": self._facts.created_s,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": details,
            "model": self._facts.model,
            "output": output,
            **self._echo,
            "usage": None if usage is None else response_usage_members(usage),
        }


def ending(finish: FinishReason | None) -> tuple[str, str | None]:
    """Return the status of a response that ended so, and why it is incomplete.

    >>> ending(FinishReason.LENGTH)
    ('incomplete', 'max_output_tokens')
    """
    reason = None if finish is None else _INCOMPLETE.get(finish)
    return ("completed" if reason is None else "incomplete"), reason


# --- items --------------------------------------------------------------------


def text_part(
    text: str,
    logprobs: Sequence[object] = (),
    citations: Sequence[Citation] = (),
) -> Members:
    """Return a message's text."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": response_annotations(citations),
        "logprobs": list(logprobs),
    }


def refusal_part(text: str) -> Members:
    """Return a message's refusal."""
    return {"type": "refusal", "refusal": text}


def message_item(identity: str, content: Sequence[Members], status: str) -> Members:
    """Return what the assistant says."""
    return {
        "id": identity,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def call_item(
    identity: str, call: ToolCallPart, status: str, *, form: CallForm | None = None
) -> Members:
    """Return a call, in the form in which the client offered the tool."""
    custom = form is not None and form.custom
    members: Members = {
        "id": identity,
        "type": "custom_tool_call" if custom else "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name if form is None else form.name,
    }
    if form is not None and form.namespace is not None:
        members["namespace"] = form.namespace
    if custom:
        members["input"] = free_text(call.arguments) if call.arguments else ""
    else:
        members["arguments"] = call.arguments
    return members


def reasoning_item(identity: str, part: ReasoningPart) -> Members:
    """Return a thought, with what proves it."""
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    members: Members = {
        "id": part.id or identity,
        "type": "reasoning",
        "summary": summary,
    }
    proof = write_proof(part)
    if proof is not None:
        members["encrypted_content"] = proof
    return members


def output_items(
    choice: Choice,
    facts: AnswerFacts,
    status: str,
    *,
    forms: Mapping[str, CallForm],
) -> list[Members]:
    """Return the items of a whole answer: thoughts, text, calls."""
    items = [
        reasoning_item(item_id("rs", facts, number), part)
        for number, part in enumerate(choice.reasoning)
    ]
    content = []
    if choice.text:
        cited = read_annotations(choice.extra.get("annotations"))
        tokens = logprob_tokens(choice.logprobs)
        content.append(text_part(choice.text, tokens, cited))
    if choice.refusal:
        content.append(refusal_part(choice.refusal))
    if content or not choice.tool_calls:
        identity = item_id("msg", facts, len(items))
        items.append(message_item(identity, content or [text_part("")], status))
    for call in choice.tool_calls:
        form = forms.get(call.name)
        identity = call_id(facts, len(items), form=form)
        items.append(call_item(identity, call, status, form=form))
    return items


def logprob_tokens(pieces: Sequence[RawJson]) -> list[object]:
    """Return the tokens of chat ``logprobs``, one after the other."""
    found: list[object] = []
    for piece in pieces:
        members = msgspec.json.decode(piece)
        if isinstance(members, dict):
            found.extend(members.get("content") or ())
    return found
