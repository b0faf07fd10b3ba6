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
        ahead: how much to have free for the time until the home can send more.
    """

    __slots__ = ("_horizon_ticks", "_tick_s", "_ticked_s", "ahead", "count", "rate")

    def __init__(self, tick_s: float, now_s: float, *, fetches_ahead: bool) -> None:
        """Start without any.

        Args:
            tick_s: how often it is looked at.
            now_s: by the node's clock.
            fetches_ahead: whether anything is to be free before it is asked for.
        """
        self._horizon_ticks = _HORIZON_TICKS if fetches_ahead else 0.0
        self._tick_s = tick_s
        self._ticked_s = now_s
        self.count = self.ahead = 0
        self.rate = 0.0

    def tick(self, now_s: float) -> None:
        """Take what was asked for since the last tick into the average, once it is."""
        if now_s < self._ticked_s + self._tick_s:
            return
        passed_s = now_s - self._ticked_s
        weight = 1.0 - math.exp(-passed_s / (_FORGET_TICKS * self._tick_s))
        self.rate += (self.count / passed_s - self.rate) * weight
        self.count = 0
        self._ticked_s = now_s
        is_little = self.rate * _FORGET_TICKS * self._tick_s < _FEW
        ahead = self.rate * self._horizon_ticks * self._tick_s
        self.ahead = 0 if is_little else math.ceil(ahead)
