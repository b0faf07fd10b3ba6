"""Messages, as Anthropic writes them, whole and in events.

Pure.

Source: Anthropic, "Streaming messages".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.model.usage import Usage
from atomr_infer.testing.upstream_script import Finish, ToolCall
from atomr_infer.testing.upstreams.answer import (
    Answer,
    CallPiece,
    CallStart,
    Text,
    Thought,
    Unit,
    units,
)
from atomr_infer.testing.upstreams.anthropic_models import signature_of
from atomr_infer.testing.upstreams.dialect import Frame
from atomr_infer.wire.sse import encode_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr_infer.testing.upstreams.call import Call

STOP_REASONS: Mapping[Finish, str] = {
    Finish.STOP: "end_turn",
    Finish.STOP_SEQUENCE: "stop_sequence",
    Finish.LENGTH: "max_tokens",
    Finish.TOOL_CALLS: "tool_use",
    Finish.CONTENT_FILTER: "refusal",
    Finish.PAUSE: "pause_turn",
    Finish.CONTEXT_FULL: "model_context_window_exceeded",
}

Json = dict[str, Any]


def message(call: Call, answer: Answer) -> Json:
    """Return a whole message."""
    answer = _shown(call, answer)
    content: list[Json] = []
    if answer.reasoning:
        thinking = "" if _omits(call) else "".join(answer.reasoning)
        content.append(
            {**_thinking(), "thinking": thinking, "signature": _sign(answer)}
        )
    if answer.pieces:
        content.append({**_text(), "text": answer.text})
    for index, tool in enumerate(answer.tool_calls):
        arguments = msgspec.json.decode(tool.arguments_json)
        content.append({**_tool_use(index, tool), "input": arguments})
    return {
        **_opened(answer),
        "content": content,
        **_stopped(answer),
        "usage": usage_members(answer.usage),
    }


def events(call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
    """Yield a streamed message; ``done`` False leaves out ``message_stop``."""
    answer = _shown(call, answer)
    # What comes out is not known yet when this is said.
    started = {**usage_members(answer.usage), "output_tokens": 1}
    del started["output_tokens_details"]
    opened = {**_opened(answer), "content": [], **_nothing_stopped(), "usage": started}
    yield _event("message_start", {"message": opened})
    yield from _blocks(answer, omits=_omits(call))
    ended = {"delta": _stopped(answer), "usage": usage_members(answer.usage)}
    yield attrs.evolve(_event("message_delta", ended), closing=True)
    if done:
        yield attrs.evolve(_event("message_stop", {}), closing=True)


def usage_members(usage: Usage | None) -> Json:
    """Return what a message says of its tokens; zeros where it does not say."""
    counted = usage if usage is not None else Usage(input_uncached=0, output_text=0)
    written_5m = counted.cache_write_5m
    written_1h = counted.cache_write_1h
    written = written_5m + written_1h
    return {
        "input_tokens": counted.prompt_tokens - counted.cache_read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": counted.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written_5m,
            "ephemeral_1h_input_tokens": written_1h,
        },
        "output_tokens": counted.output_tokens,
        "output_tokens_details": {"thinking_tokens": counted.reasoning},
        "service_tier": "standard",
    }


PING = encode_event(b'{"type": "ping"}', "ping")


def tool_use_id(index: int, tool: ToolCall) -> str:
    """Return the id of an answer's call."""
    return tool.id or ("toolu_fake" if index == 0 else f"toolu_fake_{index}")


# --- blocks -----------------------------------------------------------------


@attrs.define
class _Blocks:
    """Which block is open while a message streams.

    Attributes:
        count: blocks that were opened so far.
        kind: of the one that is open; "": none is.
        pinged: whether the ping that follows the first start was sent.
    """

    count: int = 0
    kind: str = ""
    pinged: bool = False

    def open(self, kind: str, block: Json) -> Iterator[Frame]:
        """Open a block, behind the end of the one before."""
        self.kind = kind
        self.count += 1
        yield self._event("content_block_start", {"content_block": block})
        if not self.pinged:
            self.pinged = True
            yield Frame(PING)

    def delta(self, position: int | None, kind: str, **members: str) -> Frame:
        """Return a piece of the open block."""
        frame = self._event("content_block_delta", {"delta": {"type": kind, **members}})
        return attrs.evolve(frame, position=position)

    def close(self) -> Frame:
        """Return the end of the open block."""
        self.kind = ""
        return self._event("content_block_stop", {})

    def _event(self, kind: str, members: Json) -> Frame:
        return _event(kind, {"index": self.count - 1, **members})


def _blocks(answer: Answer, *, omits: bool) -> Iterator[Frame]:
    blocks = _Blocks()
    for unit in units(answer):
        kind = _kind(unit)
        if kind and kind != blocks.kind:
            yield from _end(blocks, answer)
            yield from blocks.open(kind, _started(unit))
        yield from _pieces(blocks, unit, omits=omits)
    yield from _end(blocks, answer)


def _end(blocks: _Blocks, answer: Answer) -> Iterator[Frame]:
    if blocks.kind == "thinking":
        yield blocks.delta(None, "signature_delta", signature=_sign(answer))
    if blocks.kind:
        yield blocks.close()


def _pieces(blocks: _Blocks, unit: Unit, *, omits: bool) -> Iterator[Frame]:
    at = unit.position
    match unit:
        case Thought(text=text) if not omits:
            yield blocks.delta(at, "thinking_delta", thinking=text)
        case Text(text=text):
            yield blocks.delta(at, "text_delta", text=text)
        case CallStart(call=tool) if tool.arguments:
            yield blocks.delta(at, "input_json_delta", partial_json="")
        case CallPiece(text=text):
            yield blocks.delta(at, "input_json_delta", partial_json=text)


def _kind(unit: Unit) -> str:
    match unit:
        case Thought():
            return "thinking"
        case Text():
            return "text"
        case CallStart(index=index) | CallPiece(index=index):
            return f"tool_use {index}"
        case _:
            return ""


def _started(unit: Unit) -> Json:
    match unit:
        case Thought():
            return {**_thinking(), "thinking": "", "signature": ""}
        case CallStart(index=index, call=tool):
            return {**_tool_use(index, tool), "input": {}}
        case _:
            return {**_text(), "text": ""}


# --- members ----------------------------------------------------------------


def _shown(call: Call, answer: Answer) -> Answer:
    """Return the answer as far as the request may see it."""
    return answer if call.reasoning else attrs.evolve(answer, reasoning=())


def _omits(call: Call) -> bool:
    return (call.members.get("thinking") or {}).get("display") == "omitted"


def _sign(answer: Answer) -> str:
    return signature_of("".join(answer.reasoning))


def _thinking() -> Json:
    return {"type": "thinking"}


def _text() -> Json:
    return {"type": "text", "citations": None}


def _tool_use(index: int, tool: ToolCall) -> Json:
    return {"type": "tool_use", "id": tool_use_id(index, tool), "name": tool.name}


def _opened(answer: Answer) -> Json:
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
    }


def _nothing_stopped() -> Json:
    return {"stop_reason": None, "stop_sequence": None, "stop_details": None}


def _stopped(answer: Answer) -> Json:
    reason = answer.native_finish or STOP_REASONS[answer.finish]
    details = {
        "type": "refusal",
        "category": "general_harms",
        "explanation": answer.refusal,
    }
    return {
        "stop_reason": reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": details if reason == "refusal" else None,
    }


def _event(kind: str, members: Json) -> Frame:
    return Frame(encode_event(msgspec.json.encode({"type": kind, **members}), kind))
