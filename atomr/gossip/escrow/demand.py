"""How many permits a node is asked for, averaged over the last ticks.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

import math

_FORGET_TICKS = 8.0
"""Demand is averaged over about that long."""

_HORIZON_TICKS = 2.0
"""Permits are fetched ahead for that long."""

_FEW = 0.5
"""Permits, per averaging time: with less demand nothing is fetched ahead."""


class Demand:
    """What one node is asked for under one limit, granted or not.

    Attributes:
        count: permits since the last tick.
        rate: permits a second.
    """

    __slots__ = ("_tick_s", "_ticked_s", "count", "rate")

    def __init__(self, tick_s: float, now_s: float) -> None:
        """Start without any; ``tick_s``: how often it is looked at."""
        self._tick_s = tick_s
        self._ticked_s = now_s
        self.count = 0
        self.rate = 0.0

    def tick(self, now_s: float) -> None:
        """Take what was asked for since the last tick into the average, once it is."""
        passed_s = now_s - self._ticked_s
        if now_s < self._ticked_s + self._tick_s:
            return
        weight = 1.0 - math.exp(-passed_s / (_FORGET_TICKS * self._tick_s))
        self.rate += (self.count / passed_s - self.rate) * weight
        self.count = 0
        self._ticked_s = now_s

    @property
    def ahead(self) -> int:
        """How much to have free for the time until the home can send more."""
        if self.rate * _FORGET_TICKS * self._tick_s < _FEW:
            return 0
        return math.ceil(self.rate * _HORIZON_TICKS * self._tick_s)
