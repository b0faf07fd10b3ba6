"""What waits for a timer is found, and does not hang."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests import at_once as module
from tests.at_once import at_once, no_time, stand_still

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.fixture
def clock(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    monkeypatch.setattr(module, "_REALLY_S", 0.05)
    mock_clock.rate = 1.0
    return mock_clock


async def set_after(event: trio.Event, after_s: float) -> None:
    await trio.sleep(after_s)
    event.set()


@pytest.mark.parametrize("after_s", [0.001, 1000.0])
async def test_who_sleeps_is_found(clock: MockClock, after_s: float) -> None:
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        stand_still(clock)
        nursery.start_soon(set_after, event, after_s)
        with pytest.raises(AssertionError, match="it waits for a timer"):
            await at_once(event.is_set, clock)
        nursery.cancel_scope.cancel()


async def test_who_has_slept_meanwhile_is_found(clock: MockClock) -> None:
    event = trio.Event()
    stand_still(clock)
    await set_after(event, 0.001)
    with pytest.raises(AssertionError, match="it waits for a timer"):
        await at_once(event.is_set, clock)


async def test_a_block_in_which_somebody_sleeps_is_found(clock: MockClock) -> None:
    with pytest.raises(AssertionError, match="it waits for a timer"), no_time(clock):
        await trio.sleep(0.001)


async def test_the_clock_goes_on_where_the_block_raises(mock_clock: MockClock) -> None:
    mock_clock.rate = 2.0
    with pytest.raises(LookupError), no_time(mock_clock):
        raise LookupError
    assert mock_clock.rate == 2.0


async def test_who_only_takes_turns_is_there_at_once(mock_clock: MockClock) -> None:
    mock_clock.rate = 1.0
    turns = 0

    async def turn() -> None:
        nonlocal turns
        for _ in range(20):
            await trio.lowlevel.checkpoint()
            turns += 1

    before_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        with no_time(mock_clock):
            nursery.start_soon(turn)
            await at_once(lambda: turns == 20, mock_clock)
    assert trio.current_time() > before_s, "it goes on"
