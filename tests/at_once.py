"""What needs no timer is waited for while the clock stands still.

"Within a tenth of a second" says how busy the machine is.  That no time has to pass is
true or false, so it is what tests of "at once" ask, on real sockets as well.

The clock goes on after a minute of real time, so that what does wait for a timer ends,
and its test with it.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio.testing import MockClock

_REALLY_S = 60.0
_TIMER = "it waits for a timer"


def stand_still(clock: MockClock) -> None:
    """Let no time pass from now on."""
    clock.rate = 0.0
    trio.lowlevel.spawn_system_task(_go_on, clock)


async def _go_on(clock: MockClock) -> None:
    over = threading.Event()
    try:
        await trio.to_thread.run_sync(over.wait, _REALLY_S, abandon_on_cancel=True)
        clock.rate = 1.0
    finally:
        over.set()


@contextmanager
def no_time(clock: MockClock) -> Iterator[None]:
    """Let no time pass in the block.

    Raises:
        AssertionError: it waits for a timer.
    """
    before = clock.rate
    stand_still(clock)
    try:
        yield
        assert clock.rate == 0.0, _TIMER
    finally:
        clock.rate = before


async def at_once(condition: Callable[[], object], clock: MockClock) -> None:
    """Wait for a state on a clock that stands still.

    Raises:
        AssertionError: it waits for a timer.
    """
    last_s = time.monotonic() + _REALLY_S
    while not condition():
        assert time.monotonic() < last_s, _TIMER
        await trio.lowlevel.checkpoint()
    assert clock.rate == 0.0, _TIMER
