"""Virtual time: five seconds of timeout that take no time.

Under a :class:`trio.testing.MockClock` time stands still while tasks run.  It
is moved by the test, with :func:`advance`, or it jumps by itself to the next
deadline when all tasks are blocked (``autojump_threshold=0``, which pytest-trio
calls ``autojump_clock``).
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Final

import trio
import trio.testing
from trio.testing import MockClock

from atomr.errors import AtomrError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST_S: Final = 1e-9
"""Less than this is the rounding of a sum of seconds, not a time to wait for."""


class NoVirtualTimeError(AtomrError):
    """The clock of this run is the real one: nobody can move it."""


async def settle(cushion_s: float = 0.0) -> None:
    """Wait until every other task waits for a message, a deadline or I/O.

    Args:
        cushion_s: real seconds that this must last; more than 0 when sockets,
            threads or child processes are at work.

    Cancellation: a checkpoint.
    """
    await trio.testing.wait_all_tasks_blocked(cushion_s)


async def advance(seconds: float, *, cushion_s: float = 0.0) -> None:
    """Let that much virtual time pass, and all that it brings about.

    Stops at each deadline on the way, so that a timer armed by a timer fires
    when it is due and not at the end.

    Args:
        seconds: at least 0.
        cushion_s: see :func:`settle`.

    Raises:
        NoVirtualTimeError: the clock of this run is no MockClock.
        ValueError: ``seconds`` is negative, or has no end.

    Cancellation: time stays where it was then.
    """
    clock = _mock_clock(f"advance({seconds})")
    if not 0 <= seconds < inf:
        raise ValueError(f"advance({seconds}): expected seconds, at least 0")
    end = clock.current_time() + seconds
    await settle(cushion_s)
    while (left := end - clock.current_time()) > 0:
        following = trio.lowlevel.current_statistics().seconds_to_next_deadline
        # A deadline at the very end may lie past it, by a rounding; and where the
        # clock runs by itself too, one may have passed just now.
        step = left if following > left + _LEAST_S else max(following, _LEAST_S)
        clock.jump(step)
        await settle(cushion_s)


def _mock_clock(operation: str) -> MockClock:
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        raise NoVirtualTimeError(
            f"{operation}: this run has a {type(clock).__name__}; use"
            " atomr.testing.run(), trio.run(..., clock=MockClock()), or with pytest"
            " the fixture virtual_clock or autojump_clock"
        )
    return clock


def standing_clock() -> MockClock | None:
    """Return the clock if only the test moves it; under it no timeout fires."""
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, MockClock) and not clock.rate:
        return clock if clock.autojump_threshold == inf else None
    return None


@contextmanager
def running_clock() -> Iterator[None]:
    """Let a clock that only the test moves jump by itself, for the block."""
    clock = standing_clock()
    if clock is None:
        yield
        return
    clock.autojump_threshold = 0
    try:
        yield
    finally:
        clock.autojump_threshold = inf
