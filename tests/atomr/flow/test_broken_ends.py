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
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

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


def refused_at_first(times: int) -> Flow[int]:
    """A source of one event, which cannot be opened so many times."""
    opened = 0

    def source() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        if opened <= times:
            raise OSError("refused")
        return one_and_over()

    return flow.from_async_iterable(source)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("is_first", [False, True])
async def test_a_branch_that_could_not_be_opened_is_opened_later_and_misses_nothing(
    times: int, *, is_first: bool
) -> None:
    one = refused_at_first(times)

    def branch(b: Flow[int]) -> Flow[int]:
        # What is opened before the other one, and is closed again, or never was.
        return (b.merge(one) if is_first else one.merge(b)).restarted(3)

    parts = flow.from_iterable(range(100, 200)).broadcast(
        branch, lambda b: b.map(lambda n: -n), ahead=2
    )
    with trio.fail_after(30):
        found = await parts.collect()
    assert sorted(found) == [*range(-199, -99), 1, *range(100, 200)]


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize(
    "before",
    [
        lambda b, one: b.buffer(2).merge(one),
        lambda b, one: b.map_async(itself, concurrency=2).merge(one),
        lambda b, one: b.merge(flow.from_iterable([])).merge(one),
        lambda b, one: b.broadcast(lambda c: c.merge(one)),
        lambda b, one: b.broadcast(lambda c: c.buffer(2)).merge(one),
        lambda b, one: b.partition(lambda _: 0, lambda c: c).merge(one),
        # The part in it gives up at once, and the one around it does not.
        lambda b, one: b.merge(one).restarted(0),
        lambda b, one: b.buffer(2).merge(one).restarted(1),
        lambda b, one: b.merge(one).restarted(0).map(abs).restarted(1),
        lambda b, one: b.merge(one).restarted(0).buffer(2),
        lambda b, one: b.merge(one).restarted(0).merge(flow.from_iterable([])),
    ],
)
async def test_a_part_that_could_not_be_opened_takes_nothing_that_it_then_loses(
    before: Callable[[Flow[int], Flow[int]], Flow[int]], times: int
) -> None:
    """What stands before the refused stage has a task, which has begun."""
    one = refused_at_first(times)

    parts = flow.from_iterable(range(5)).broadcast(
        lambda b: before(b, one).restarted(4), lambda b: b.map(lambda n: -10 - n)
    )
    with trio.fail_after(30):
        found = await parts.collect()
    assert sorted(found) == sorted([*range(-14, -9), *range(5), 1])


async def test_a_part_that_has_taken_nothing_begins_anew_when_another_fails() -> None:
    times = 0

    def breaks(number: int) -> int:
        nonlocal times
        times += 1
        if times == 1:
            raise ValueError("broken")
        return number

    other = flow.from_iterable([7]).map(breaks)
    asked, given = trio.open_memory_channel[int](0)
    async with trio.open_nursery() as nursery:

        async def gives() -> None:
            async with asked:
                await trio.testing.wait_all_tasks_blocked()
                for number in range(3):
                    await asked.send(number)

        nursery.start_soon(gives)
        parts = flow.from_async_iterable(lambda: given).broadcast(
            lambda b: b.merge(other).restarted(1)
        )
        with trio.fail_after(30):
            assert sorted(await parts.collect()) == [0, 1, 2, 7]


async def test_a_branch_that_is_never_opened_holds_nobody_back_for_longer() -> None:
    never, seen = refused_at_first(1_000), list[int]()
    parts = flow.from_iterable(range(100)).broadcast(
        lambda b: never.merge(b).restarted(2), lambda b: b.tap(seen.append), ahead=2
    )
    with trio.fail_after(30), pytest.raises(FlowRestartsError) as raised:
        await parts.drain()
    assert str(raised.value.__cause__) == "refused"
    assert seen == [*range(len(seen))]


async def test_who_begins_later_with_something_else_holds_nobody_back() -> None:
    """The branch begins with another flow, once that can be opened."""
    parts = flow.from_iterable(range(100)).broadcast(
        lambda _: refused_at_first(2).restarted(3), lambda b: b, ahead=2
    )
    with trio.fail_after(30):
        assert sorted(await parts.collect()) == sorted([1, *range(100)])


async def test_a_branch_that_was_given_something_is_not_opened_again() -> None:
    parts = flow.from_iterable(range(10)).broadcast(
        lambda b: b.map(lambda n: 1 // (3 - n)).restarted(3)
    )

    with pytest.raises(BranchOpenedAgainError) as raised:
        await parts.drain()
    assert isinstance(raised.value.__context__, ZeroDivisionError)


@pytest.mark.parametrize(
    "shape",
    [
        lambda first, second: first.merge(second),
        lambda first, second: first.map(abs).take(3).merge(second),
        lambda first, second: first.buffer(2).merge(second),
        lambda first, second: flow.from_iterable([1]).merge(first, second),
        lambda first, second: flow.from_iterable([1]).broadcast(
            lambda _: first, lambda _: second
        ),
        lambda first, second: first.broadcast(lambda b: b, lambda _: second),
        lambda first, second: first.restarted().merge(second),
    ],
)
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_what_was_opened_before_a_stage_that_could_not_be_is_closed(
    shape: Callable[[Flow[int], Flow[int]], Flow[int]], *, is_restarted: bool
) -> None:
    states: list[str] = []

    def first() -> AsyncIterator[int]:
        states.append("opened")
        return Opened(states)

    whole = shape(flow.from_async_iterable(first), refused_at_first(1_000))
    with trio.fail_after(30), pytest.raises((OSError, FlowRestartsError)):
        await (whole.restarted(2) if is_restarted else whole).drain()
    assert states == ["opened", "closed"] * (3 if is_restarted else 1)


class Opened:
    """An iterator that holds something from the time when it is made."""

    def __init__(self, states: list[str]) -> None:
        self._states = states
        self._closed = False

    def __aiter__(self) -> Opened:
        return self

    async def __anext__(self) -> int:
        await trio.lowlevel.checkpoint()
        return 1

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._states.append("closed")


async def test_what_closing_raises_does_not_hide_why_opening_failed() -> None:
    class Fails(Opened):
        async def aclose(self) -> None:
            await super().aclose()
            raise KeyError("closing")

    states: list[str] = []
    source = flow.from_async_iterable(lambda: Fails(states))
    with pytest.raises(OSError, match="refused"):
        await source.merge(source, flow.from_async_iterable(cannot)).drain()
    assert states == ["closed", "closed"]


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
