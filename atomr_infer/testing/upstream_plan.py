"""A behaviour and a request, turned into the steps that a connection takes.

Pure: the server in ``atomr_infer.testing.upstream`` performs the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.testing import upstream_script as script
from atomr_infer.wire.sse import DONE, KEEPALIVE, encode_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.testing.upstream_call import ChatCall

_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"
_ID = "chatcmpl-fake"
_CREATED_S = 1_767_225_600  # any constant: two runs give the same bytes


@attrs.frozen
class Head:
    """Send the status line and headers.

    Attributes:
        status: HTTP status.
        headers: without framing.
        length: of the body in bytes; None: chunked.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    length: int | None = None


@attrs.frozen
class Body:
    """Send a piece of the body in one write.

    Attributes:
        data: the piece.
        last: True when the same write completes the answer.
    """

    data: bytes
    last: bool = False


@attrs.frozen
class Wait:
    """Wait, in seconds."""

    seconds: float


@attrs.frozen
class Raw:
    """Send bytes as they are, outside of HTTP's framing."""

    data: bytes


@attrs.frozen
class Hang:
    """Send nothing more, until the client leaves."""


@attrs.frozen
class End:
    """Complete the answer; implied where the steps end."""


@attrs.frozen
class Cut:
    """Drop the connection."""


@attrs.frozen
class ShutDown:
    """End the sending side, and keep listening until the client leaves."""


Step = Head | Body | Wait | Raw | End | Hang | Cut | ShutDown


def plan(behaviour: script.Behaviour, call: ChatCall) -> Iterator[Step]:
    """Yield the steps; the answer is complete when they end without a Cut."""
    match behaviour:
        case script.Happy():
            yield from _happy(behaviour, call)
        case script.ToolCall():
            yield from _tool_call(behaviour, call)
        case script.Refused():
            yield from refuse(behaviour)
        case script.RawAnswer():
            yield from _raw_answer(behaviour)
        case script.HangBeforeHeaders():
            yield Hang()
        case script.CloseBeforeHeaders():
            yield Cut()
        case script.SlowHeaders(delay_s):
            yield from _slow_head(delay_s)
        case script.HugeLine():
            yield _events_head()
            yield Body(b"data: " + b"x" * behaviour.size_bytes)
            yield Body(b"\n\n")
        case _:
            yield from _broken(behaviour, call)


def _raw_answer(answer: script.RawAnswer) -> Iterator[Step]:
    content_type = ("content-type", answer.content_type)
    length = len(answer.body) + answer.withheld_bytes
    yield Head(answer.status, (content_type,), length)
    yield from _split(answer.body, answer.split_bytes)
    if answer.withheld_bytes:
        yield Hang()


def refuse(refusal: script.Refused) -> Iterator[Step]:
    """Yield the steps of an HTTP error."""
    error = {
        "message": refusal.message,
        "type": refusal.type,
        "param": refusal.param,
        "code": refusal.code,
    }
    yield from answer_json(refusal.status, {"error": error}, refusal.headers)


def answer_json(
    status: int, members: object, headers: tuple[tuple[str, str], ...] = ()
) -> Iterator[Step]:
    """Yield the steps of an answer that is one JSON value."""
    body = msgspec.json.encode(members)
    yield Head(status, (("content-type", _JSON), *headers), len(body))
    yield Body(body, last=True)


# --- whole answers ----------------------------------------------------------


def _happy(happy: script.Happy, call: ChatCall) -> Iterator[Step]:
    tokens, finish = _cut(happy.tokens, call)
    usage = _usage(happy, call, len(tokens)) if happy.usage else None
    if call.stream:
        yield _events_head()
        events = _happy_events(happy, call, tokens, finish, usage)
        if happy.split_bytes is None:
            yield from events
        else:
            data = b"".join(step.data for step in events if isinstance(step, Body))
            yield from _split(data, happy.split_bytes)
    else:
        yield Wait(happy.delay_s * len(tokens))
        message = {"role": "assistant", "content": "".join(tokens), "refusal": None}
        yield from answer_json(200, _completion(call, message, finish, usage))
    if happy.then_close:
        yield End()
        yield Cut()


def _cut(tokens: tuple[str, ...], call: ChatCall) -> tuple[tuple[str, ...], str]:
    """Return the pieces that the request's bounds leave, and the finish reason."""
    kept: list[str] = []
    for token in tokens:
        if len(kept) == call.max_tokens:
            return tuple(kept), "length"
        kept.append(token)
        text = "".join(kept)
        ends = [text.index(stop) for stop in call.stop if stop in text]
        if ends:
            return (text[: min(ends)],), "stop"
    return tuple(kept), "stop"


def _happy_events(
    happy: script.Happy,
    call: ChatCall,
    tokens: tuple[str, ...],
    finish: str,
    usage: dict[str, object] | None,
) -> Iterator[Step]:
    yield from _openings(call)
    for position, token in enumerate(tokens):
        if position == happy.malformed_after:
            yield Body(encode_event(b'{"choices": [{"del'))
        yield Wait(happy.delay_s)
        yield from _deltas(call, {"content": token})
    yield from _deltas(call, {}, finish)
    yield from _usage_event(call, usage)
    if happy.done:
        yield Body(encode_event(DONE), last=True)


def _tool_call(tool: script.ToolCall, call: ChatCall) -> Iterator[Step]:
    opened = {
        "id": "call_fake",
        "type": "function",
        "function": {"name": tool.name, "arguments": ""},
    }
    usage = _usage(script.Happy(), call, len(tool.arguments))
    if not call.stream:
        function = {"name": tool.name, "arguments": "".join(tool.arguments)}
        message = {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [{**opened, "function": function}],
        }
        yield from answer_json(200, _completion(call, message, "tool_calls", usage))
        return
    yield _events_head()
    yield from _openings(call)
    yield from _deltas(call, {"tool_calls": [{"index": 0, **opened}]})
    for piece in tool.arguments:
        part = {"index": 0, "function": {"arguments": piece}}
        yield from _deltas(call, {"tool_calls": [part]})
    yield from _deltas(call, {}, "tool_calls")
    yield from _usage_event(call, usage)
    yield Body(encode_event(DONE), last=True)


def _completion(
    call: ChatCall,
    message: dict[str, Any],
    finish: str,
    usage: dict[str, object] | None,
) -> dict[str, object]:
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
        for index in range(call.n)
    ]
    members: dict[str, object] = {
        "id": _ID,
        "object": "chat.completion",
        "created": _CREATED_S,
        "model": call.model,
        "choices": choices,
    }
    if usage is not None:
        members["usage"] = usage
    return members


# --- broken answers ---------------------------------------------------------


def _broken(behaviour: script.Behaviour, call: ChatCall) -> Iterator[Step]:
    """Yield some pieces and then what is wrong; whole or streamed alike."""
    after = getattr(behaviour, "after", 0)
    if call.stream:
        yield _events_head()
        yield from _openings(call)
        for token in script.DEFAULT_TOKENS[:after]:
            yield from _deltas(call, {"content": token})
    else:
        # The body is announced longer than what will come of it.
        yield Head(200, (("content-type", _JSON),), 4096)
        yield Body(b'{"id":"chatcmpl-fake","choices":[')
    match behaviour:
        case script.HangMidStream():
            yield Hang()
        case script.CommentsOnly() if call.stream:
            while True:
                yield Wait(behaviour.every_s)
                yield Body(KEEPALIVE)
        case script.HalfClose():
            yield ShutDown()
        case script.ErrorInStream() if call.stream:
            yield Body(encode_event(behaviour.data, behaviour.event))
        case script.EndWithoutFinish() if call.stream:
            return
        case _:
            yield Cut()


def _slow_head(delay_s: float) -> Iterator[Step]:
    for byte in b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n":
        yield Wait(delay_s)
        yield Raw(bytes([byte]))
    yield Cut()


# --- pieces -----------------------------------------------------------------


def _events_head() -> Head:
    return Head(200, (("content-type", _EVENTS), ("cache-control", "no-cache")))


def _openings(call: ChatCall) -> Iterator[Body]:
    yield from _deltas(call, {"role": "assistant", "content": "", "refusal": None})


def _deltas(
    call: ChatCall, delta: dict[str, Any], finish: str | None = None
) -> Iterator[Body]:
    for index in range(call.n):
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
        }
        yield Body(encode_event(msgspec.json.encode(_chunk(call, [choice], None))))


def _chunk(
    call: ChatCall, choices: list[dict[str, Any]], usage: dict[str, object] | None
) -> dict[str, object]:
    members: dict[str, object] = {
        "id": _ID,
        "object": "chat.completion.chunk",
        "created": _CREATED_S,
        "model": call.model,
        "choices": choices,
    }
    if call.include_usage:
        members["usage"] = usage
    return members


def _usage_event(call: ChatCall, usage: dict[str, object] | None) -> Iterator[Body]:
    if usage is not None and call.include_usage:
        yield Body(encode_event(msgspec.json.encode(_chunk(call, [], usage))))


def _usage(happy: script.Happy, call: ChatCall, tokens: int) -> dict[str, object]:
    output = tokens * call.n + happy.reasoning_tokens
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": output,
        "total_tokens": call.prompt_tokens + output,
        "prompt_tokens_details": {"cached_tokens": happy.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": happy.reasoning_tokens},
    }


def _split(data: bytes, size: int | None) -> Iterator[Body]:
    step = size or max(1, len(data))
    for start in range(0, len(data), step):
        yield Body(data[start : start + step])
