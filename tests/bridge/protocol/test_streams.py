"""Credit keeps a stream's memory bounded; an end is an end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atomr_infer.bridge.protocol.frames import Credit, FrameError
from atomr_infer.bridge.protocol.streams import AT_ONCE, ChildStream, ParentStream
from atomr_infer.errors import EngineCrashedError, EngineError
from atomr_infer.model.batch import TokenChunk


def chunk(number: int) -> TokenChunk:
    return TokenChunk(text=str(number))


async def test_credit_comes_back_in_halves_of_the_window() -> None:
    sent: list[Credit] = []
    stream = ParentStream(7, 4, sent.append)
    for number in range(4):
        stream.push(chunk(number))
    assert [await anext(stream) for _ in range(3)] == [chunk(0), chunk(1), chunk(2)]
    assert sent == [Credit(7, 2)]
    await anext(stream)
    assert sent == [Credit(7, 2), Credit(7, 2)]


async def test_window_of_one_grants_after_each_chunk() -> None:
    sent: list[Credit] = []
    stream = ParentStream(1, 1, sent.append)
    for number in range(3):
        stream.push(chunk(number))
        assert await anext(stream) == chunk(number)
    assert sent == [Credit(1, 1)] * 3


async def test_more_chunks_than_granted_is_a_breach() -> None:
    stream = ParentStream(1, 2, lambda _: None)
    stream.push(chunk(0))
    stream.push(chunk(1))
    with pytest.raises(FrameError, match="more than 2 unread chunks"):
        stream.push(chunk(2))


async def test_end_comes_after_the_chunks_before_it() -> None:
    stream = ParentStream(1, 2, lambda _: None)
    stream.push(chunk(0))
    stream.end(EngineError("broke"))
    assert await anext(stream) == chunk(0)
    with pytest.raises(EngineError, match="broke"):
        await anext(stream)


async def test_cut_drops_what_nobody_has_read_and_wakes_the_reader() -> None:
    stream = ParentStream(1, 2, lambda _: None)
    stream.push(chunk(0))
    stream.cut(EngineCrashedError("died"))
    with pytest.raises(EngineCrashedError, match="died"):
        await anext(stream)
    waiting = ParentStream(2, 2, lambda _: None)

    async def read() -> None:
        with pytest.raises(EngineCrashedError):
            await anext(waiting)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        waiting.cut(EngineCrashedError("died"))


async def test_cut_does_not_change_a_stream_that_ended_well() -> None:
    stream = ParentStream(1, 2, lambda _: None)
    stream.push(chunk(0))
    stream.end(None)
    stream.cut(EngineCrashedError("died"))
    assert [one async for one in stream] == [chunk(0)]


async def test_child_waits_for_credit() -> None:
    stream = ChildStream(1)
    await stream.take_credit()
    taken = []

    async def take() -> None:
        await stream.take_credit()
        taken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        assert taken == []
        stream.add_credit(1)
    assert taken == [True]


async def test_chunks_that_are_here_give_the_others_a_turn_in_each_eight() -> None:
    stream = ParentStream(1, 64, lambda _: None)
    for number in range(64):
        stream.push(chunk(number))
    stream.end(None)
    turns = [0]

    async def other() -> None:
        while True:
            turns[0] += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert [one async for one in stream] == [chunk(n) for n in range(64)]
        nursery.cancel_scope.cancel()
    # Who of two that are ready goes first, trio draws.
    assert abs(turns[0] - 64 // AT_ONCE) <= 1


async def test_reader_that_always_finds_a_chunk_can_be_cancelled() -> None:
    stream = ParentStream(1, 1, lambda _: None)
    read = 0
    with trio.CancelScope() as scope:
        while read < 1000:
            stream.push(chunk(read))
            await anext(stream)
            read += 1
            scope.cancel()
    assert read < AT_ONCE
