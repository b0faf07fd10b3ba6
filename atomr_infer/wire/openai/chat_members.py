"""The members of a chat message and of its deltas, as OpenAI's clients read them.

What OpenAI's format has no place for stands where gateways and clients agreed
to look: thoughts in ``reasoning_content`` with ``reasoning_details`` beside it
(which hold the signatures that must come back), Gemini's signature of a call in
``extra_content.google``.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

# A chat's message has no place for it; see ``atomr_infer.wire.unshown``.
_NO_MEMBER = "media"

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.model.batch import ReasoningDelta, TokenChunk, ToolCallDelta
    from atomr_infer.model.collected import Choice
    from atomr_infer.model.parts import (
        RawJson,
        ReasoningPart,
        Signature,
        ToolCallPart,
    )

_json = msgspec.json.Encoder().encode


# --- deltas -------------------------------------------------------------------


def delta_members(chunk: TokenChunk) -> bytes:
    """Return the members of a ``delta``, without its braces."""
    # Most chunks are text and nothing else.
    members = [b'"content":' + _json(chunk.text)] if chunk.text else []
    if chunk.reasoning is not None:
        members.append(_reasoning_delta(chunk.reasoning))
    if chunk.tool_calls:
        calls = [_call_delta(call) for call in chunk.tool_calls]
        members.append(b'"tool_calls":' + _json(calls))
    if chunk.refusal:
        members.append(b'"refusal":' + _json(chunk.refusal))
    members += [
        _json(name) + b":" + raw
        for name, raw in chunk.extra.items()
        if name != _NO_MEMBER
    ]
    return b",".join(member for member in members if member)


def _reasoning_delta(delta: ReasoningDelta) -> bytes:
    """Return text and details: who merges details by index gets text and proof."""
    members: dict[str, object] = {}
    if delta.text:
        members["reasoning_content"] = delta.text
    members["reasoning_details"] = [_detail(delta, delta.block)]
    return _json(members)[1:-1]


def _call_delta(call: ToolCallDelta) -> dict[str, object]:
    members: dict[str, object] = {"index": call.index}
    function: dict[str, object] = {"arguments": call.arguments}
    if call.id is not None:
        members.update(id=call.id, type="function")
    if call.name is not None:
        function = {"name": call.name, **function}
    members["function"] = function
    return members | _google(call.signature)


def _google(signature: Signature | None) -> dict[str, object]:
    if signature is None:
        return {}
    return {"extra_content": {"google": {"thought_signature": signature.text}}}


def _detail(part: ReasoningDelta | ReasoningPart, index: int) -> dict[str, object]:
    proof = part.signature or part.data
    members: dict[str, object] = {"index": index, "type": "reasoning.text"}
    if part.data is not None:
        members.update(type="reasoning.encrypted", data=part.data.text)
    if part.text or part.data is None:
        members["text"] = part.text
    if part.signature is not None:
        members["signature"] = part.signature.text
    if proof is not None:
        members["origin"] = proof.origin.value
    if part.id is not None:
        members["id"] = part.id
    return members


# --- whole messages -----------------------------------------------------------


def message_members(choice: Choice) -> dict[str, object]:
    """Return the ``message`` of a whole choice."""
    calls = choice.tool_calls
    text = choice.text
    members: dict[str, object] = {
        "role": "assistant",
        # null, not "": how clients tell a pure tool call from an empty answer.
        "content": text if text or not (calls or choice.refusal) else None,
        "refusal": choice.refusal or None,
    }
    members.update(reasoning_members(choice.reasoning))
    if calls:
        members["tool_calls"] = [call_members(call) for call in calls]
    members.update(
        {
            name: msgspec.Raw(raw)
            for name, raw in choice.extra.items()
            if name != _NO_MEMBER
        },
    )
    return members


def reasoning_members(parts: Sequence[ReasoningPart]) -> dict[str, object]:
    """Return the members of a message that carry its thoughts."""
    members: dict[str, object] = {}
    text = "".join(part.text for part in parts)
    if text:
        members["reasoning_content"] = text
    if any(part.signature or part.data for part in parts):
        details = [_detail(part, index) for index, part in enumerate(parts)]
        members["reasoning_details"] = details
    return members


def call_members(call: ToolCallPart) -> dict[str, object]:
    """Return one of a message's ``tool_calls``."""
    function = {"name": call.name, "arguments": call.arguments}
    members: dict[str, object] = {
        "id": call.id,
        "type": "function",
        "function": function,
    }
    return members | _google(call.signature)


def merge_logprobs(pieces: Sequence[RawJson]) -> RawJson | None:
    """Return the probabilities of a whole choice from those of its chunks."""
    if not pieces:
        return None
    if len(pieces) == 1:
        return pieces[0]
    merged: dict[str, Any] = {}
    for piece in pieces:
        members = msgspec.json.decode(piece)
        for name, value in members.items() if isinstance(members, dict) else ():
            known = merged.get(name)
            if isinstance(known, list) and isinstance(value, list):
                known.extend(value)
            else:
                merged.setdefault(name, value)
    return _json(merged)
