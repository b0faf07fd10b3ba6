"""Several flows into one, one into several, and who waits for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr import flow
from atomr.errors import BranchOpenedAgainError, NoBranchError
from tests.atomr.flow.counted import Counted

if TYPE_CHECKING:
    from trio.testing import MockClock

settle = trio.testing.wait_all_tasks_blocked


async def test_a_merge_takes_from_each_flow_in_turn() -> None:
    low, high = Counted(), Counted()
    merged = flow.merge(low.flow(), high.flow().map(lambda n: n + 100), ahead=2)

    async with merged.open() as stream:
        await settle()
        taken = [list(await stream.pull(2)) for _ in range(2)]
        await settle()
        assert sorted(taken) == [[0, 1], [100, 101]]
        assert (low.given, high.given) == (4, 4)


async def test_a_merge_is_over_when_all_its_flows_are(
    autojump_clock: MockClock,
) -> None:
    slow = flow.tick(5.0).take(2).map(lambda n: n + 100)

    assert await flow.from_iterable([1, 2]).merge(slow).collect() == [1, 2, 100, 101]


async def test_a_flow_that_fails_fails_the_merge(autojump_clock: MockClock) -> None:
    broken = flow.tick(1.0).map(lambda n: 1 // (n - 2))
    seen: list[int] = []

    with pytest.raises(ZeroDivisionError):
        await broken.merge(flow.tick(0.7)).tap(seen.append).drain()
    assert len(seen) == 5


async def test_every_branch_gets_every_event() -> None:
    numbers = flow.from_iterable(range(50))

    both = numbers.broadcast(lambda f: f, lambda f: f.map(lambda n: -n), ahead=4)

    assert sorted(await both.collect()) == sorted([*range(50), *range(0, -50, -1)])


async def test_the_slowest_branch_sets_the_pace(autojump_clock: MockClock) -> None:
    source, quick, slow = Counted(), list[int](), list[int]()

    async def think(number: int) -> int:
        await trio.sleep(10.0)
        return number

    both = source.flow().broadcast(
        lambda f: f.tap(quick.append), lambda f: f.map_async(think).tap(slow.append),
        ahead=4,
    )  # fmt: skip
    with trio.move_on_after(25.0):
        await both.drain()

    assert slow == [0, 1]
    # One is thought about; four wait for the slow branch.
    assert (len(quick), source.given) == (7, 7)


async def test_a_branch_that_is_over_holds_nobody_back() -> None:
    both = flow.from_iterable(range(90)).broadcast(
        lambda f: f.take(2).map(lambda n: -n - 1), lambda f: f, ahead=3
    )

    assert sorted(await both.collect()) == [-2, -1, *range(90)]


async def test_a_source_is_closed_when_its_last_branch_is_over() -> None:
    source = Counted()
    both = source.flow().broadcast(lambda f: f.take(5), lambda f: f.take(1), ahead=3)

    assert sorted(await both.collect()) == [0, 0, 1, 2, 3, 4]
    assert source.given <= 8
    assert source.closed > 0


async def test_a_branch_that_begins_with_another_flow_holds_nobody_back() -> None:
    source = Counted(100)

    both = source.flow().broadcast(
        lambda f: f, lambda _: flow.from_iterable([-1]), ahead=4
    )
    with trio.fail_after(30):
        assert sorted(await both.collect()) == [-1, *range(100)]
    assert source.closed == 1


async def test_a_source_of_which_no_branch_begins_is_asked_for_nothing() -> None:
    source = Counted()

    none = source.flow().broadcast(lambda _: flow.from_iterable([-1]))
    assert await none.collect() == [-1]
    assert (source.asked, source.closed) == ([], 1)


async def test_a_partition_gives_each_event_to_one_branch() -> None:
    parts = flow.from_iterable(range(10)).partition(
        lambda n: n % 3,
        lambda f: f.map(lambda n: ("zero", n)),
        lambda f: f.map(lambda n: ("one", n)),
        lambda f: f.batch(2).map(lambda pair: ("two", sum(pair))),
    )

    assert sorted(await parts.collect()) == [
        *[("one", n) for n in (1, 4, 7)],
        *[("two", n) for n in (7, 8)],
        *[("zero", n) for n in (0, 3, 6, 9)],
    ]


async def test_a_partition_names_the_branch_that_there_is_not() -> None:
    parts = flow.from_iterable([0, -1]).partition(lambda n: n, lambda f: f)

    with pytest.raises(NoBranchError, match="no branch -1: they are numbered 0 to 0"):
        await parts.drain()


async def test_a_branch_that_fails_fails_the_whole() -> None:
    source = Counted()
    both = source.flow().broadcast(lambda f: f.map(lambda n: 1 // n), lambda f: f)

    with pytest.raises(ZeroDivisionError):
        await both.drain()
    assert source.closed > 0


async def test_the_input_of_a_branch_is_not_opened_twice() -> None:
    parts = flow.from_iterable([1, 0]).broadcast(
        lambda f: f.map(lambda n: 1 // n).restarted()
    )

    with pytest.raises(BranchOpenedAgainError):
        await parts.drain()
