"""The node's clock, which goes on while the machine sleeps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)

_JITTER_S = 0.01
"""Two clocks that are not read at the same instant differ by less; no sleep does."""


def slept_s() -> float:
    """Return how long the machine has slept since it was started, in seconds.

    Linux stops its monotonic clock for that time.  A lease goes on: a laptop that
    was shut with a lease must not wake up with it.  Where there is no such clock the
    answer is 0, as the monotonic clock goes on there.
    """
    if _BOOTTIME is None:
        return 0.0
    return time.clock_gettime(_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class SleeplessClock:
    """Seconds of a clock, and those that the machine slept through."""

    __slots__ = ("_now", "_slept", "_slept_s")

    def __init__(
        self, now: Callable[[], float], slept: Callable[[], float] = slept_s
    ) -> None:
        self._now = now
        self._slept = slept
        self._slept_s = slept()

    def __call__(self) -> float:
        """Return the seconds."""
        slept_s = self._slept()
        if slept_s > self._slept_s + _JITTER_S:
            self._slept_s = slept_s
        return self._now() + self._slept_s


def wall_us() -> int:
    """Return microseconds of the wall clock: larger than those of any term before.

    A number that JSON can hold.
    """
    return time.time_ns() // 1_000
