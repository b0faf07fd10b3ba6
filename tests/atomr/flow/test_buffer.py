"""Work ahead of a consumer, and what becomes of events that find no room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr import flow
from atomr.errors import BufferFullError
from atomr.flow import WhenFull
from tests.atomr.flow.counted import Counted

if TYPE_CHECKING:
    from trio.testing import MockClock

settle = trio.testing.wait_all_tasks_blocked


async def test_a_buffer_works_ahead_up_to_its_size_and_no_further() -> None:
    source = Counted()

    async with source.flow().buffer(5).open() as stream:
        await settle()
        assert source.given == 5
        assert list(await stream.pull(2)) == [0, 1]
        await settle()
        assert source.given == 7


@pytest.mark.parametrize(
    ("when_full", "kept"),
    [
        (WhenFull.BACKPRESSURE, [0, 1, 2, 3, 4, 5, 6, 7]),
        (WhenFull.DROP_NEW, [0, 1, 2, 3]),
        (WhenFull.DROP_OLD, [4, 5, 6, 7]),
    ],
)
async def test_a_full_buffer_does_what_it_was_told(
    autojump_clock: MockClock, when_full: WhenFull, kept: list[int]
) -> None:
    buffered = flow.tick(1.0).take(8).buffer(4, when_full=when_full)

    async with buffered.open() as stream:
        await trio.sleep(20)
        first = list(await stream.pull(9))
        if when_full is WhenFull.BACKPRESSURE:
            # The ticks that nobody had room for were not asked for.
            assert first == [0, 1, 2, 3]
            assert list(await stream.pull(9)) == [20]
            return
        assert first == kept
        assert list(await stream.pull(9)) == []


async def test_a_buffer_that_fails_gives_what_it_holds_first(
    autojump_clock: MockClock,
) -> None:
    buffered = flow.tick(1.0).buffer(3, when_full=WhenFull.FAIL)

    async with buffered.open() as stream:
        await trio.sleep(20)
        assert list(await stream.pull(9)) == [0, 1, 2]
        with pytest.raises(BufferFullError, match="holds 3 and is full"):
            await stream.pull(9)


async def test_a_pull_that_is_cancelled_at_a_buffer_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    stage_of = flow.tick(1.0).take(5).buffer(9)

    async with trio.open_nursery() as nursery:
        stage, seen = stage_of.opened(nursery), list[int]()
        for _ in range(40):
            with trio.move_on_after(0.25):
                seen += await stage.pull(9)
        await stage.close()

    assert seen == [0, 1, 2, 3, 4]


async def test_a_failure_comes_behind_the_events_that_were_made_before() -> None:
    broken = flow.from_iterable([1, 2, 0]).map(lambda n: 2 // n).buffer(9)

    async with broken.open() as stream:
        await settle()
        assert list(await stream.pull(9)) == [2, 1]
        with pytest.raises(ZeroDivisionError):
            await stream.pull(9)
