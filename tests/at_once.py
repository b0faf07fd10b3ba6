"""What needs no timer is waited for while the clock stands still.

"Within a tenth of a second" says how busy the machine is.  That no time has to pass is
true or false, so it is what tests of "at once" ask, on real sockets as well.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio.testing import MockClock

_REALLY_S = 60.0


@contextmanager
def no_time(clock: MockClock) -> Iterator[None]:
    """Let no time pass in the block."""
    rate, clock.rate = clock.rate, 0.0
    try:
        yield
    finally:
        clock.rate = rate


async def at_once(condition: Callable[[], object]) -> None:
    """Wait for a state, in a block without time.

    Raises:
        AssertionError: it needs time to pass, as it does not come to that.
    """
    last_s = time.monotonic() + _REALLY_S
    while not condition():
        assert time.monotonic() < last_s, "it waits for a timer"
        await trio.lowlevel.checkpoint()
