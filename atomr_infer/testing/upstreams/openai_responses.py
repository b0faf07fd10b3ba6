"""The Responses API, as OpenAI writes it, whole and in events.

Pure.

Source: OpenAI's API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.testing.upstream_script import Finish, ToolCall
from atomr_infer.testing.upstreams.answer import (
    Answer,
    CallPiece,
    CallStart,
    Declined,
    Text,
    Thought,
    Unit,
    units,
)
from atomr_infer.testing.upstreams.dialect import Frame
from atomr_infer.testing.upstreams.openai_chat import CREATED_S, call_id, logprobs
from atomr_infer.wire.sse import encode_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.model.usage import Usage
    from atomr_infer.testing.upstreams.call import Call

RESPONSE_ID = "resp_fake"
"""Of every response; what ``previous_response_id`` may name."""

Json = dict[str, Any]


def response(call: Call, answer: Answer) -> Json:
    """Return a whole response."""
    items = [_item(call, answer, kind) for kind in _kinds(call, answer)]
    return _response(call, answer, _status(answer), items)


def events(call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
    """Yield a streamed response; ``done`` False leaves out its last event."""
    for number, event in enumerate(_events(call, answer, done=done)):
        members: Json = {**event.members, "sequence_number": number}
        data = encode_event(msgspec.json.encode(members), members["type"])
        yield Frame(data, event.position, event.closing)


def error_event(message: str, code: str | None, param: str | None) -> bytes:
    """Return the event of an error inside a stream."""
    members = {
        "type": "error",
        "code": code or "server_error",
        "message": message,
        "param": param,
        "sequence_number": 0,
    }
    return encode_event(msgspec.json.encode(members), "error")


def usage_members(usage: Usage) -> Json:
    """Return what a response says of its tokens."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total_tokens,
    }


# --- the stream -------------------------------------------------------------


@attrs.frozen
class _Event:
    """An event, before it is numbered."""

    members: Json
    position: int | None = None
    closing: bool = False


def _events(call: Call, answer: Answer, *, done: bool) -> Iterator[_Event]:
    running = _response(call, answer, "in_progress", [])
    yield _Event({"type": "response.created", "response": running})
    yield _Event({"type": "response.in_progress", "response": running})
    kinds = _kinds(call, answer)
    for place, kind in enumerate(kinds):
        item = _item(call, answer, kind)
        opened = {**item, "status": "in_progress", **_EMPTY[kind.partition(" ")[0]]}
        yield _item_event("added", place, opened)
        yield from _inner(call, answer, kind, place)
        yield _item_event("done", place, item)
    if done:
        status = _status(answer)
        items = [_item(call, answer, kind) for kind in kinds]
        whole = _response(call, answer, status, items)
        event = {"type": f"response.{status}", "response": whole}
        yield _Event(event, closing=True)


_EMPTY: dict[str, Json] = {
    "reasoning": {"summary": []},
    "message": {"content": []},
    "call": {"arguments": ""},
}


def _inner(call: Call, answer: Answer, kind: str, place: int) -> Iterator[_Event]:
    """Yield what is between an item's start and its end."""
    item = _item(call, answer, kind)
    where: Json = {"item_id": item["id"], "output_index": place}
    own = [unit for unit in units(answer) if _kind(unit) == kind]
    if kind == "reasoning":
        yield from _reasoning(where, item, own)
    elif kind == "message":
        yield from _message(call, where, item, own)
    else:
        name = "response.function_call_arguments"
        for unit in own:
            if isinstance(unit, CallPiece):
                delta = {"type": f"{name}.delta", **where, "delta": unit.text}
                yield _Event(delta, unit.position)
        arguments = {"name": item["name"], "arguments": item["arguments"]}
        yield _Event({"type": f"{name}.done", **where, **arguments})


def _reasoning(where: Json, item: Json, own: list[Unit]) -> Iterator[_Event]:
    if not item["summary"]:
        return
    where = {**where, "summary_index": 0}
    (part,) = item["summary"]
    name = "response.reasoning_summary"
    empty = {**part, "text": ""}
    yield _Event({"type": f"{name}_part.added", **where, "part": empty})
    for unit in own:
        if isinstance(unit, Thought):
            delta = {"type": f"{name}_text.delta", **where, "delta": unit.text}
            yield _Event(delta, unit.position)
    yield _Event({"type": f"{name}_text.done", **where, "text": part["text"]})
    yield _Event({"type": f"{name}_part.done", **where, "part": part})


def _message(call: Call, where: Json, item: Json, own: list[Unit]) -> Iterator[_Event]:
    where = {**where, "content_index": 0}
    (part,) = item["content"]
    member = "refusal" if part["type"] == "refusal" else "text"
    name = "response.refusal" if member == "refusal" else "response.output_text"
    empty = {**part, member: "", **({"logprobs": []} if member == "text" else {})}
    yield _Event({"type": "response.content_part.added", **where, "part": empty})
    for unit in own:
        if isinstance(unit, Text | Declined):
            event = {"type": f"{name}.delta", **where, "delta": unit.text}
            yield _Event({**event, **_probable(call, member, unit.text)}, unit.position)
    ended = {"type": f"{name}.done", **where, member: part[member]}
    yield _Event({**ended, **({"logprobs": []} if member == "text" else {})})
    yield _Event({"type": "response.content_part.done", **where, "part": part})


def _probable(call: Call, member: str, text: str) -> Json:
    if member != "text":
        return {}
    return {"logprobs": (logprobs(call, (text,)) or {"content": []})["content"]}


def _item_event(what: str, place: int, item: Json) -> _Event:
    kind = f"response.output_item.{what}"
    return _Event({"type": kind, "output_index": place, "item": item})


# --- items ------------------------------------------------------------------


def _kinds(call: Call, answer: Answer) -> list[str]:
    """Return the items of an answer, in order."""
    kinds = ["reasoning"] if answer.reasoning else []
    if answer.pieces or answer.refusal is not None or not answer.tool_calls:
        kinds.append("message")
    return [*kinds, *(f"call {index}" for index in range(len(answer.tool_calls)))]


def _kind(unit: Unit) -> str:
    match unit:
        case Thought():
            return "reasoning"
        case CallStart(index=index) | CallPiece(index=index):
            return f"call {index}"
        case _:
            return "message"


def _item(call: Call, answer: Answer, kind: str) -> Json:
    if kind == "reasoning":
        return _reasoning_item(call, answer)
    if kind == "message":
        status = "incomplete" if _status(answer) == "incomplete" else "completed"
        return {
            "id": "msg_fake",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [_part(call, answer)],
        }
    index = int(kind.removeprefix("call "))
    return _call_item(index, answer.tool_calls[index])


def _call_item(index: int, tool: ToolCall) -> Json:
    return {
        "id": f"fc_fake_{index}",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id(index, tool),
        "name": tool.name,
        "arguments": tool.arguments_json,
    }


def _reasoning_item(call: Call, answer: Answer) -> Json:
    text = "".join(answer.reasoning)
    wanted = (call.members.get("reasoning") or {}).get("summary")
    item: Json = {
        "id": "rs_fake",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if wanted else [],
    }
    if "reasoning.encrypted_content" in (call.members.get("include") or ()):
        item["encrypted_content"] = encrypted(text)
    return item


def encrypted(text: str) -> str:
    """Return what stands for encrypted reasoning of this text.

    >>> encrypted("ab")
    'gAAAA6162'
    """
    return f"gAAAA{text.encode().hex()}"


def _part(call: Call, answer: Answer) -> Json:
    if answer.refusal is not None:
        return {"type": "refusal", "refusal": answer.refusal}
    probable = logprobs(call, answer.pieces) or {"content": []}
    return {
        "type": "output_text",
        "text": answer.text,
        "annotations": [],
        "logprobs": probable["content"],
    }


# --- the response -----------------------------------------------------------


def _status(answer: Answer) -> str:
    cut = (Finish.LENGTH, Finish.CONTEXT_FULL)
    filtered = answer.finish is Finish.CONTENT_FILTER and answer.refusal is None
    return "incomplete" if answer.finish in cut or filtered else "completed"


def _response(call: Call, answer: Answer, status: str, items: list[Json]) -> Json:
    asked = call.members
    ended = status != "in_progress"
    reason = "max_output_tokens"
    if answer.finish is Finish.CONTENT_FILTER:
        reason = "content_filter"
    usage = answer.usage if ended else None
    return {
        "id": RESPONSE_ID,
        "object": "response",
        "created_at": CREATED_S,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if status == "incomplete" else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": answer.model,
        "output": items,
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": asked.get("previous_response_id"),
        "reasoning": asked.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": "default",
        "store": asked.get("store", True),
        "temperature": asked.get("temperature", 1.0),
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools") or [],
        "top_p": asked.get("top_p", 1.0),
        "truncation": asked.get("truncation", "disabled"),
        "usage": None if usage is None else usage_members(usage),
        "user": asked.get("user"),
        "metadata": asked.get("metadata") or {},
    }
