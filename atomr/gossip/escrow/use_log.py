"""The use log: what a floor may have been used for, known after a crash.

A line for each use would cost a sync for each.  So a line is written ahead: it
says how far the total may go from now on, and the next one is asked for when
half of that is left.  After a crash, uses up to the last line count as just
done, except those that an earlier line proves to be older than a window.

Of the uses that line ``k`` allowed, all but the last chunk had been made when
line ``k + 1`` was asked for, and none of them later than that.

Pure.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from atomr.gossip.escrow.outcomes import Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.gossip.escrow.limit import Limit


def chunk_of(limit: Limit) -> int:
    """Return how many uses a line allows beyond what has been used."""
    return max(1, limit.floor // 8)


def cooling_after(limit: Limit, marks: Sequence[Mark]) -> int:
    """Return how many permits of the floor earlier lives may have used of late.

    Args:
        limit: its terms.
        marks: the lines of the latest life, oldest first.
    """
    if not marks:
        return 0
    last = marks[-1]
    old = 0
    for before, mark in pairwise(marks):
        if mark.at_s <= last.at_s - limit.cooling_s:
            old = before.used - chunk_of(limit)
    return min(limit.floor, last.used - max(0, old))


class UseLog:
    """How far the floor may be used.

    Attributes:
        used: total uses in this life; those that it may have inherited included.
    """

    __slots__ = ("_asked", "_boot", "_chunk", "_limit", "_synced", "used")

    def __init__(self, limit: Limit, boot: int, *, used: int) -> None:
        """Start a life's log; nothing may be used before its first line is synced."""
        self._limit = limit.name
        self._boot = boot
        self._chunk = chunk_of(limit)
        self.used = used
        self._synced = used
        self._asked = -1

    @property
    def room(self) -> int:
        """How much may be used before the next line is synced."""
        return self._synced - self.used

    @property
    def is_short(self) -> bool:
        """Whether the next line is to be written."""
        return self._asked <= self.used + self._chunk // 2

    def next_mark(self, now_s: float) -> Mark | None:
        """Return the line to write now; None: what is written will do."""
        if not self.is_short:
            return None
        self._asked = self.used + self._chunk
        return Mark(self._limit, self._boot, self._asked, now_s)

    def persisted(self, mark: Mark) -> None:
        """A line is synced."""
        if mark.boot == self._boot:
            self._synced = max(self._synced, mark.used)
