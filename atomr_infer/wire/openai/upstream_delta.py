"""Read what one choice of an OpenAI-like upstream says: a delta or a message.

Servers differ in where they put thoughts (``reasoning_content``, ``reasoning``,
``reasoning_details``, a list in ``content``); all of them become canonical
reasoning.  A member that is not known is kept as raw JSON.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from atomr_infer.model.batch import ReasoningDelta, ToolCallDelta
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import RawJson, Signature

NO_INDEX = -1
"""The index of a tool call that the upstream did not number."""

# What says nothing, in every member that a server fills in for completeness.
EMPTY = (b"null", b"[]")

_Members = dict[str, msgspec.Raw]

_text = msgspec.json.Decoder(str).decode


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Detail(msgspec.Struct):
    index: int | None = None
    text: str | None = None
    summary: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    origin: str | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: list[dict[str, Any]] | None = None


_calls = msgspec.json.Decoder(list[_Call]).decode
_details = msgspec.json.Decoder(list[_Detail]).decode
_parts = msgspec.json.Decoder(list[_Part]).decode


@attrs.frozen(kw_only=True)
class Delta:
    """What a choice says.

    Attributes:
        text: new text.
        reasoning: a piece of a thought.
        tool_calls: pieces of calls, numbered as the upstream did.
        refusal: new text of a refusal.
        extra: what is left, as raw JSON.
    """

    text: str = ""
    reasoning: ReasoningDelta | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    refusal: str = ""
    extra: Mapping[str, RawJson] = attrs.field(factory=dict)


def decode_delta(members: _Members) -> Delta:
    """Return what the members of a delta or a message say.

    Raises:
        msgspec.DecodeError: a known member has another type.
    """
    # Who speaks is always the assistant, and the gateway says so itself.
    members.pop("role", None)
    content = members.pop("content", None)
    text, thought = _content(content)
    if not members:
        return Delta(text=text, reasoning=_thought(thought))
    return Delta(
        text=text,
        reasoning=_reasoning(members, thought),
        tool_calls=decode_tool_calls(members.pop("tool_calls", None)),
        refusal=_string(members.pop("refusal", None)),
        extra=raw_members(members),
    )


def raw_members(members: _Members) -> dict[str, RawJson]:
    """Return the members that say something, as raw JSON."""
    raw = {name: bytes(value) for name, value in members.items()}
    return {name: value for name, value in raw.items() if value not in EMPTY}


def _string(raw: msgspec.Raw | None) -> str:
    if raw is None or bytes(raw) == b"null":
        return ""
    return _text(raw)


def _content(raw: msgspec.Raw | None) -> tuple[str, str]:
    """Return text and thought; a list of parts may hold both."""
    if raw is None or bytes(raw) == b"null":
        return "", ""
    if bytes(raw)[:1] == b'"':
        return _text(raw), ""
    parts = _parts(raw)
    text = "".join(part.text or "" for part in parts if part.type == "text")
    thoughts = [piece for part in parts for piece in part.thinking or ()]
    return text, "".join(str(piece.get("text", "")) for piece in thoughts)


def _thought(text: str) -> ReasoningDelta | None:
    return ReasoningDelta(text=text) if text else None


def _reasoning(members: _Members, thought: str) -> ReasoningDelta | None:
    texts = [thought]
    for name in ("reasoning_content", "reasoning"):
        raw = members.get(name)
        if raw is not None and bytes(raw)[:1] in (b'"', b"n"):
            del members[name]
            texts.append(_string(raw))
    # Some servers say the same under both names.
    text = next((text for text in texts if text), "")
    details = members.pop("reasoning_details", None)
    if details is not None and bytes(details) not in EMPTY:
        return _detail(_details(details), text)
    return _thought(text)


def _detail(details: list[_Detail], text: str) -> ReasoningDelta | None:
    """Return the first detail that proves something, or else the text."""
    for detail in details:
        if detail.signature or detail.data:
            origin = _origin(detail.origin)
            return ReasoningDelta(
                text=text or detail.text or detail.summary or "",
                signature=_signature(detail.signature, origin),
                data=_signature(detail.data, origin),
                block=detail.index or 0,
                id=detail.id,
            )
    first = details[0] if details else _Detail()
    text = text or "".join(d.text or d.summary or "" for d in details)
    return ReasoningDelta(text=text, block=first.index or 0) if text else None


def _origin(name: str | None) -> Dialect:
    known = {dialect.value: dialect for dialect in Dialect}
    return known.get(name or "", Dialect.OPENAI_CHAT)


def _signature(text: str | None, origin: Dialect) -> Signature | None:
    return Signature(text, origin) if text else None


def decode_tool_calls(raw: msgspec.Raw | None) -> tuple[ToolCallDelta, ...]:
    """Return the pieces of calls in ``tool_calls``, numbered as the upstream did.

    Raises:
        msgspec.DecodeError: they are no calls.
    """
    if raw is None or bytes(raw) in EMPTY:
        return ()
    return tuple(_tool_call(call) for call in _calls(raw))


def _tool_call(call: _Call) -> ToolCallDelta:
    function = call.function or _Function()
    arguments = function.arguments
    if isinstance(arguments, dict):  # Ollama's native form leaks through some
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCallDelta(
        index=NO_INDEX if call.index is None else call.index,
        id=call.id or None,
        name=function.name or None,
        arguments=arguments or "",
        signature=_google(call.extra_content),
    )


def _google(extra: dict[str, Any] | None) -> Signature | None:
    google = (extra or {}).get("google")
    text = google.get("thought_signature") if isinstance(google, dict) else None
    return _signature(text, Dialect.GEMINI) if isinstance(text, str) else None
