"""When a replicator is woken: for pushes at their time, for rounds at common ticks.

Rounds of all shards are due at ticks, so that one waking does for all of them; while
nothing is written and all agree, nothing is due for seconds.

A replicator that is woken late has a loop that others keep busy, or frames to read
that were there before: it shall not add to either by asking for more.

Pure.
"""

from __future__ import annotations

TICK_S = 0.05

NEVER = float("inf")

_IN_TIME_S = 0.01
"""A loop that does its work is late by no more than that."""
_LATE_FACTOR = 2.0
"""A node that cannot keep up asks once in three times as long as it takes to hear."""
_MOST_S = 5.0
"""Nor is it silent for longer: what was dropped comes again by rounds alone."""


class Pace:
    """The next wakings of one replicator.

    Attributes:
        push_at_s: when what was written is sent; infinity: nothing was.
    """

    __slots__ = ("_late_s", "_tick_at_s", "_woken_at_s", "push_at_s")

    def __init__(self, now_s: float) -> None:
        """Be due at once."""
        self._tick_at_s = now_s
        self.push_at_s = NEVER
        self._late_s = 0.0
        self._woken_at_s = now_s

    @property
    def due_at_s(self) -> float:
        """When to be woken at the latest."""
        return min(self._tick_at_s, self.push_at_s)

    def round_by(self, at_s: float) -> None:
        """Be woken at the first tick from then on, or before."""
        if at_s < self._tick_at_s - TICK_S:
            self._tick_at_s = _tick_from(at_s)

    def push_by(self, at_s: float) -> None:
        """Be woken then, or before."""
        self.push_at_s = min(self.push_at_s, at_s)

    def put_off_s(self, now_s: float) -> float:
        """Return how much later than else the next rounds are to be.

        To be called when it is woken, before it has done what is due.  Who was late
        once is not for good: half of the time that passes is taken off.
        """
        faded_s = self._late_s - (now_s - self._woken_at_s) / 2
        late_s = max(0.0, faded_s, now_s - self.due_at_s - _IN_TIME_S)
        # Who stood for an hour would else be slow for two.
        self._late_s = min(late_s, _MOST_S / _LATE_FACTOR)
        self._woken_at_s = now_s
        return _LATE_FACTOR * self._late_s

    def woken(self, now_s: float, *, round_at_s: float, push_at_s: float) -> None:
        """Be woken next when the next of these is due.

        Args:
            now_s: the time; what is due now was done.
            round_at_s: the next round of any shard.
            push_at_s: the next push.
        """
        self.push_at_s = push_at_s
        # Later than now, however it is rounded.
        self._tick_at_s = _tick_from(max(round_at_s, now_s + TICK_S / 4))


def _tick_from(at_s: float) -> float:
    """Return the first tick from then on: the middle of 50 ms.

    >>> round(_tick_from(1.0), 3), round(_tick_from(1.026), 3)
    (1.025, 1.075)
    """
    if at_s == NEVER:
        return NEVER
    return (at_s // TICK_S + (0.5 if at_s % TICK_S <= TICK_S / 2 else 1.5)) * TICK_S
