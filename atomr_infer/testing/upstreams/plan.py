"""A behaviour and a request, turned into the steps that a connection takes.

A broken answer is a whole one that stops: the same frames up to so many pieces,
and then what is wrong.  So a fault looks in each dialect as that dialect's
answers look.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstreams.answer import Answer, make_answer
from atomr_infer.testing.upstreams.steps import (
    EVENTS,
    JSON,
    Body,
    Cut,
    End,
    Hang,
    Head,
    Raw,
    ShutDown,
    Step,
    Wait,
    answer_json,
    split,
)
from atomr_infer.wire.sse import encode_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.testing.upstreams.call import Call
    from atomr_infer.testing.upstreams.dialect import Dialect, Frame

Broken = (
    script.HangMidStream
    | script.CommentsOnly
    | script.CutMidStream
    | script.HalfClose
    | script.EndWithoutFinish
    | script.ErrorInStream
)


def plan(
    behaviour: script.Behaviour, *, call: Call, dialect: Dialect
) -> Iterator[Step]:
    """Yield the steps; the answer is complete when they end without a Cut."""
    match behaviour:
        case script.Happy():
            yield from _happy(behaviour, call, dialect)
        case script.ToolCall():
            alone = script.tool_calls(behaviour)
            yield from _happy(alone, call, dialect)
        case script.Refused():
            yield from refuse(behaviour, dialect)
        case script.RefusedAs(meaning):
            yield from refuse(dialect.refusals[meaning], dialect)
        case script.PromptBlocked():
            yield from _blocked(call, dialect)
        case script.RawAnswer():
            yield from _raw_answer(behaviour)
        case script.HugeLine():
            yield from _huge_line(behaviour)
        case (
            script.HangBeforeHeaders()
            | script.CloseBeforeHeaders()
            | script.SlowHeaders()
        ):
            yield from _no_head(behaviour)
        case _:
            yield from _broken(behaviour, call, dialect)


def refuse(refusal: script.Refused, dialect: Dialect) -> Iterator[Step]:
    """Yield the steps of an HTTP error."""
    members, headers = dialect.error(refusal)
    yield from answer_json(refusal.status, members, headers)


# --- whole answers ----------------------------------------------------------


def _happy(happy: script.Happy, call: Call, dialect: Dialect) -> Iterator[Step]:
    answer = make_answer(happy, call)
    headers = (*dialect.headers(call), *happy.headers)
    if call.stream:
        yield _stream_head(call, dialect, happy.headers)
        yield from _stream(happy, answer, call, dialect)
    else:
        yield Wait(happy.delay_s * len(answer.pieces))
        yield from answer_json(200, dialect.whole(call, answer), headers)
    if happy.then_close:
        yield End()
        yield Cut()


def _stream(
    happy: script.Happy, answer: Answer, call: Call, dialect: Dialect
) -> Iterator[Step]:
    frames = list(dialect.frames(call, answer, done=happy.done))
    if happy.split_bytes is not None:
        yield from split(b"".join(f.data for f in frames), happy.split_bytes)
        return
    malformed_at = happy.malformed_after
    position = -1
    for number, frame in enumerate(frames, start=1):
        if malformed_at is not None and _is_behind(frame, malformed_at):
            malformed_at = None
            yield Body(dialect.malformed(call))
        if frame.position is not None and frame.position != position:
            position = frame.position
            yield Wait(happy.delay_s)
        yield Body(frame.data, last=number == len(frames))


def _is_behind(frame: Frame, pieces: int) -> bool:
    """Whether so many pieces are sent when the frame's turn comes."""
    return frame.closing or (frame.position is not None and frame.position >= pieces)


def _stream_head(
    call: Call, dialect: Dialect, further: tuple[tuple[str, str], ...] = ()
) -> Head:
    content = (
        ("content-type", dialect.media_type(call)),
        ("cache-control", "no-cache"),
    )
    return Head(200, (*content, *dialect.headers(call), *further))


def _blocked(call: Call, dialect: Dialect) -> Iterator[Step]:
    outcome = dialect.blocked(call)
    if isinstance(outcome, script.Refused):
        yield from refuse(outcome, dialect)
    elif call.stream:
        yield _stream_head(call, dialect)
        for frame in dialect.frames(call, outcome, done=True):
            yield Body(frame.data)
    else:
        members = dialect.whole(call, outcome)
        yield from answer_json(200, members, dialect.headers(call))


# --- broken answers ---------------------------------------------------------


def _broken(behaviour: Broken, call: Call, dialect: Dialect) -> Iterator[Step]:
    """Yield some pieces and then what is wrong; whole or streamed alike."""
    if not call.stream:
        # The body is announced longer than what will come of it.
        yield Head(200, (("content-type", JSON),), 4096)
        yield Body(b'{"id":"fake","choices":[')
        yield from _stop_inside(behaviour)
        return
    yield _stream_head(call, dialect)
    answer = make_answer(attrs.evolve(behaviour.answer, finish=None), call)
    first = True
    for frame in dialect.frames(call, answer, done=True):
        if _is_behind(frame, behaviour.after):
            break
        first = False
        yield Body(frame.data)
    match behaviour:
        case script.CommentsOnly():
            while True:
                yield Wait(behaviour.every_s)
                yield Body(dialect.keepalive(call))
        case script.ErrorInStream(data=None):
            yield Body(dialect.stream_error(call, behaviour.error, first=first))
        case script.ErrorInStream(data=bytes(data), event=name):
            yield Body(encode_event(data, name))
        case script.EndWithoutFinish():
            return
        case _:
            yield from _stop_inside(behaviour)


def _stop_inside(behaviour: Broken) -> Iterator[Step]:
    match behaviour:
        case script.HangMidStream():
            yield Hang()
        case script.HalfClose():
            yield ShutDown()
        case _:
            yield Cut()


def _no_head(
    behaviour: script.HangBeforeHeaders
    | script.CloseBeforeHeaders
    | script.SlowHeaders,
) -> Iterator[Step]:
    match behaviour:
        case script.HangBeforeHeaders():
            yield Hang()
        case script.CloseBeforeHeaders():
            yield Cut()
        case script.SlowHeaders(delay_s):
            for byte in b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n":
                yield Wait(delay_s)
                yield Raw(bytes([byte]))
            yield Cut()


def _huge_line(behaviour: script.HugeLine) -> Iterator[Step]:
    yield Head(200, (("content-type", EVENTS), ("cache-control", "no-cache")))
    yield Body(b"data: " + b"x" * behaviour.size_bytes)
    yield Body(b"\n\n")


def _raw_answer(answer: script.RawAnswer) -> Iterator[Step]:
    content_type = ("content-type", answer.content_type)
    length = len(answer.body) + answer.withheld_bytes
    yield Head(answer.status, (content_type, *answer.headers), length)
    yield from split(answer.body, answer.split_bytes)
    if answer.withheld_bytes:
        yield Hang()
