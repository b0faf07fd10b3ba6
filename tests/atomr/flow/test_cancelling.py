"""Wherever a run is cancelled, it ends, and its source is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr import flow
from atomr.flow import KillSwitch, Retry, WhenFull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from atomr.flow import Flow


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels a scope behind a step of any task.

    Attributes:
        step: which.
        scope: what is cancelled.
        taken: how many steps there were.
    """

    step: int
    scope: trio.CancelScope
    taken: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.taken += 1
        if self.taken == self.step:
            self.scope.cancel()


OPEN: list[int] = []
"""Sources that are open."""


REFUSED: list[int] = []
"""Openings that were refused, and those that were not, by turns."""

TRIED: set[int] = set()
"""Odd numbers of the source that runs that were tried once."""


async def numbers() -> AsyncIterator[int]:
    OPEN.append(1)
    TRIED.clear()
    try:
        for number in range(12):
            await trio.lowlevel.checkpoint()
            yield number
    finally:
        OPEN.pop()


async def slow(number: int) -> int:
    await trio.sleep(0.01)
    return number


async def odd_at_first(number: int) -> int:
    await trio.lowlevel.checkpoint()
    if number % 2 and number not in TRIED:
        TRIED.add(number)
        raise OSError
    return number


def refused_at_first() -> AsyncIterator[int]:
    REFUSED.append(len(REFUSED))
    if len(REFUSED) % 2:
        raise OSError
    return numbers()


SOURCE = flow.from_async_iterable(numbers)
AGAIN = Retry(attempts=2, backoff_s=0.01, on=(OSError,))

SHAPES: dict[str, Flow[Any]] = {
    "map": SOURCE.map(lambda n: n + 1),
    "retried": SOURCE.map_async(odd_at_first, retry=AGAIN, on_error=flow.OnError.SKIP),
    "ordered": SOURCE.map_async(slow, concurrency=3),
    "unordered": SOURCE.map_async(slow, concurrency=3, ordered=False),
    "buffer": SOURCE.buffer(3),
    "three tasks": SOURCE.buffer(2).map_async(slow, concurrency=2).buffer(2),
    "dropping": SOURCE.buffer(1, when_full=WhenFull.DROP_OLD),
    "batch": SOURCE.batch(5),
    "batch within": SOURCE.batch(5, within_s=0.05),
    "throttle": SOURCE.throttle(1000.0),
    "merge": SOURCE.merge(SOURCE, ahead=2),
    "until": SOURCE.until(KillSwitch()),
    "restarted": SOURCE.map_async(slow, concurrency=2).restarted(),
    "opened halfway": SOURCE.buffer(2)
    .merge(flow.from_async_iterable(refused_at_first))
    .restarted(backoff_s=0.01),
    "partition": SOURCE.partition(
        lambda n: n % 2, lambda f: f.buffer(1), lambda f: f.take(2), ahead=2
    ),
    "nested": SOURCE.broadcast(
        lambda f: f.broadcast(lambda g: g, lambda g: g.buffer(1)),
        lambda f: f.map_async(slow, concurrency=2),
    )
    .batch(3, within_s=0.02)
    .take(5),
}


async def test_the_shape_with_retries_gives_what_failed_once(
    autojump_clock: MockClock,
) -> None:
    assert await SHAPES["retried"].collect() == list(range(12))
    assert sorted(TRIED) == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_a_run_that_is_cancelled_at_any_step_ends_and_closes_its_source(
    autojump_clock: MockClock, shape: Flow[Any]
) -> None:
    cancelled, over = 0, False
    for step in range(1, 500):
        with trio.CancelScope() as scope:
            at = CancelAt(step, scope)
            trio.lowlevel.add_instrument(at)
            try:
                async with shape.open(max_demand=2) as stream:
                    async for _ in stream:
                        await trio.lowlevel.checkpoint()
            finally:
                trio.lowlevel.remove_instrument(at)
        assert OPEN == []
        cancelled += scope.cancelled_caught
        over = at.taken < step
        if over:
            break
    assert over
    assert cancelled > 5
