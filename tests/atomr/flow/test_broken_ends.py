"""Stages that cannot be opened, or not be closed, and iterators that end in a stage."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr import flow
from atomr.errors import BranchOpenedAgainError, FlowRestartsError
from atomr.flow import KillSwitch
from tests.atomr.flow.counted import Counted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from atomr.flow import Flow


async def itself(number: int) -> int:
    return number


def refuses() -> flow.Flow[int]:
    raise OSError("refused")


def cannot() -> AsyncIterator[int]:
    raise OSError("refused")


async def one_and_broken(number: int) -> AsyncIterator[int]:
    yield number
    raise ValueError("broken")


async def at_its_end(number: int) -> int:
    async with aclosing(one_and_over()) as rest:
        for _ in range(number):
            await anext(rest)
    return number


async def one_and_over() -> AsyncGenerator[int, None]:
    yield 1


async def broken_at_its_close() -> AsyncIterator[int]:
    try:
        for number in range(100):
            yield number
    finally:
        raise KeyError("closing")


async def waits_at_its_second() -> AsyncIterator[int]:
    try:
        yield 0
        await trio.sleep_forever()
    finally:
        raise KeyError("closing")


async def abort_when_all_wait(switch: KillSwitch, error: Exception) -> None:
    await trio.testing.wait_all_tasks_blocked()
    switch.abort(error)


SOURCE = flow.from_async_iterable(broken_at_its_close)


@pytest.mark.parametrize(
    "shape",
    [
        SOURCE,
        SOURCE.buffer(2),
        SOURCE.map_async(itself, concurrency=2),
        SOURCE.map_async(itself, concurrency=2, ordered=False),
        SOURCE.merge(SOURCE, ahead=2),
        SOURCE.broadcast(lambda f: f, lambda f: f, ahead=2),
        SOURCE.batch(2, within_s=1.0),
        SOURCE.take(1),
        SOURCE.buffer(2).buffer(2),
        SOURCE.buffer(2).buffer(2).buffer(2),
        SOURCE.buffer(2).map_async(itself, concurrency=2),
        SOURCE.map_async(itself, concurrency=2).buffer(2),
        SOURCE.buffer(2).merge(SOURCE.buffer(2), ahead=2),
        SOURCE.buffer(2).broadcast(lambda f: f, lambda f: f, ahead=2),
        SOURCE.broadcast(lambda f: f, ahead=2).buffer(2),
        SOURCE.buffer(2).batch(2, within_s=1.0),
    ],
)
async def test_what_closing_raises_is_raised_as_it_is_when_a_run_is_left(
    shape: Flow[object],
) -> None:
    seen: list[object] = []

    with pytest.raises(KeyError, match="closing"):
        async with shape.open(max_demand=1) as stream:
            seen.append(await anext(stream))
            await trio.testing.wait_all_tasks_blocked()
    assert len(seen) == 1


@pytest.mark.parametrize(
    "shape", [SOURCE, SOURCE.buffer(2), SOURCE.buffer(2).buffer(2)]
)
async def test_what_closing_raises_comes_behind_the_last_event(
    shape: Flow[int],
) -> None:
    seen: list[int] = []

    with pytest.raises(KeyError, match="closing"):
        await shape.take(2).tap(seen.append).drain()
    assert seen == [0, 1]


@pytest.mark.parametrize("shape", [SOURCE, SOURCE.buffer(2)])
async def test_an_abort_is_told_though_closing_fails(shape: Flow[int]) -> None:
    switch, mine = KillSwitch(), OSError("mine")

    with pytest.raises(OSError, match="mine") as raised:
        async with shape.until(switch).open(max_demand=1) as stream:
            await anext(stream)
            switch.abort(mine)
            await anext(stream)
    assert raised.value is mine
    assert mine.__notes__ == ["ending the flow raised KeyError('closing')"]


async def test_an_abort_is_told_though_what_waits_fails_of_it() -> None:
    switch, mine = KillSwitch(), OSError("mine")
    waiting = flow.from_async_iterable(waits_at_its_second).until(switch)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_when_all_wait, switch, mine)
        with pytest.raises(OSError, match="mine") as raised:
            await waiting.until(switch).buffer(2).drain()
    assert raised.value is mine
    assert mine.__notes__ == ["ending the flow raised KeyError('closing')"]


async def test_a_shutdown_does_not_hide_that_closing_fails() -> None:
    switch = KillSwitch()

    with pytest.raises(KeyError, match="closing"):
        async with SOURCE.until(switch).open(max_demand=1) as stream:
            await anext(stream)
            switch.shutdown()
            await anext(stream)


@pytest.mark.parametrize(
    "shape",
    [
        flow.from_async_iterable(cannot),
        flow.from_async_iterable(cannot).buffer(2),
        flow.from_iterable([1]).merge(flow.from_async_iterable(cannot)),
        flow.from_iterable([1]).broadcast(lambda _: refuses()),
    ],
)
async def test_what_opening_raises_is_raised_as_it_is(shape: Flow[int]) -> None:
    with pytest.raises(OSError, match="refused"):
        await shape.drain()


async def test_a_part_that_cannot_be_opened_is_opened_again() -> None:
    opened = 0

    def source() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        if opened not in (3, 5):
            raise OSError("refused")
        return one_and_broken(opened)

    found = flow.from_async_iterable(source).restarted(4)

    seen: list[int] = []
    with pytest.raises(FlowRestartsError) as raised:
        await found.tap(seen.append).drain()
    assert (seen, opened) == ([3, 5], 5)
    assert isinstance(raised.value.__cause__, ValueError)


async def test_a_part_of_a_branch_that_could_not_be_opened_is_not_opened_later() -> (
    None
):
    opened = 0

    def source() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        if opened == 1:
            raise OSError("refused")
        return one_and_over()

    one = flow.from_async_iterable(source)
    parts = flow.from_iterable(range(10)).broadcast(lambda b: one.merge(b).restarted(3))

    with pytest.raises(BranchOpenedAgainError) as raised:
        await parts.drain()
    assert isinstance(raised.value.__context__, OSError)


async def test_what_a_failed_opening_had_opened_has_ended_before_the_next_one() -> None:
    kept, opened, open_before = Counted(), 0, list[int]()

    def source() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        open_before.append(kept.opened - kept.closed)
        if opened < 4:
            raise OSError("refused")
        return one_and_over()

    part = kept.flow().buffer(2).map_async(itself, concurrency=2)
    with_one = part.map(lambda n: -n).merge(flow.from_async_iterable(source))
    with trio.fail_after(30):
        async with with_one.restarted(5).open(max_demand=1) as stream:
            while await anext(stream) != 1:
                pass
            running = trio.lowlevel.current_task().child_nurseries[-1].child_tasks
            # Of the last opening: a buffer, the calls, and two that the merge has.
            assert len(running) <= 4
    assert open_before == [1, 1, 1, 1]


async def test_a_part_whose_closing_fails_is_opened_again() -> None:
    opened = 0

    def wrong(number: int) -> int:
        nonlocal opened
        opened += 1
        if opened == 1:
            raise ValueError("wrong")
        return number

    part = SOURCE.map(wrong).restarted(1)

    seen: list[int] = []
    with pytest.raises(KeyError, match="closing"):
        await part.take(2).tap(seen.append).drain()
    assert seen == [0, 1]


async def test_an_end_of_another_iterator_is_no_end_of_the_flow() -> None:
    empty = flow.from_iterable([1, 2]).map_async(at_its_end)
    seen: list[int] = []

    with pytest.raises(RuntimeError, match="a stage raised StopAsyncIteration"):
        async with empty.open(max_demand=1) as stream:
            async for number in stream:
                seen.append(number)
    assert seen == [1]
