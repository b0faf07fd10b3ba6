"""A hybrid logical clock: stamps near the wall's time that never run backwards.

A stamp is one integer: 48 bits of milliseconds, then 16 bits that count events
within one.  A write gets a stamp above all that its node knows, so what follows
from something is stamped later, however the walls' clocks differ.  Monotonic
clocks will not do: they cannot be compared between machines.

A clock that runs an hour ahead would drag all others with it, and win every
concurrent write for that hour.  So a stamp from too far ahead of the own wall is
not adopted, and counted.

Pure: the wall's time is an argument.

Source: Kulkarni et al., "Logical Physical Clocks", 2014.
"""

from __future__ import annotations

COUNTER_BITS = 16
MAX_AHEAD_MS = 500
"""Far above what NTP leaves between machines, and below what a person notices."""


def milliseconds(stamp: int) -> int:
    """Return the wall's time in a stamp, in milliseconds since 1970."""
    return stamp >> COUNTER_BITS


class HybridClock:
    """The clock of one node.

    Attributes:
        stamp: the highest that was given out or adopted.
        refused: stamps from too far ahead, so far.

    >>> clock = HybridClock()
    >>> clock.tick(1_000) == 1_000 << 16, clock.tick(999) - clock.tick(999)
    (True, -1)
    """

    __slots__ = ("refused", "stamp")

    def __init__(self) -> None:
        self.stamp = 0
        self.refused = 0

    def tick(self, now_ms: int = 0) -> int:
        """Return a stamp above every one that is known.

        Args:
            now_ms: the wall's time since 1970; 0 where there is no such clock,
                and stamps then count events, as Lamport's do.
        """
        wall = now_ms << COUNTER_BITS
        self.stamp = stamp = wall if wall > self.stamp else self.stamp + 1
        return stamp

    def witness(self, stamp: int, now_ms: int = 0) -> bool:
        """Adopt another node's stamp; return False where it is refused.

        Args:
            stamp: of a write that is now known here.
            now_ms: the wall's time; 0: unknown, and nothing is too far ahead.
        """
        if stamp <= self.stamp:
            return True
        if now_ms and milliseconds(stamp) > now_ms + MAX_AHEAD_MS:
            self.refused += 1
            return False
        self.stamp = stamp
        return True
