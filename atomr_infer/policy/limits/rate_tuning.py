"""How a limit is tuned down when its provider refuses, and back up.

A 429 although the limit was kept says that there is less than we were told: others
use the same key, or the tier is another one.  So a share of the limit is withheld.  It
doubles with each further refusal, up to a half, and halves with each window without
one.

Ten requests that are refused at once are one refusal: what was on its way by then says
nothing of the new limit.

Pure: ``now_s`` is an argument, of a monotonic clock.

Source: additive increase, multiplicative decrease, as TCP's congestion control; here
both are multiplicative, as a limit is known but for a factor.
"""

from __future__ import annotations

_FIRST = 0.1
_MOST = 0.5
_LEAST = 0.05
"""A smaller share is none."""

_MIN_WAVE_S = 1.0
_WAVES = 8
"""Refusals within so small a part of a window are one."""


class Tuning:
    """What share of a limit is withheld.

    Attributes:
        share: of the limit, 0 to a half.
        refusals: waves of refusals so far.
    """

    def __init__(self, window_s: float) -> None:
        """Start with all of the limit.

        Args:
            window_s: the limit's.
        """
        self.share = 0.0
        self.refusals = 0
        self._window_s = window_s
        self._wave_until_s = float("-inf")
        self._next_s = float("inf")

    def refused(self, now_s: float) -> float:
        """Take a refusal; return the share that is to be withheld from now on, too.

        Returns:
            0 when it is part of a wave.
        """
        if now_s < self._wave_until_s:
            return 0.0
        before = self.share
        self.share = min(_MOST, max(_FIRST, 2.0 * before))
        self.refusals += 1
        self._wave_until_s = now_s + max(_MIN_WAVE_S, self._window_s / _WAVES)
        self._next_s = now_s + self._window_s
        return self.share - before if before else self.share

    def due(self, now_s: float) -> float:
        """Return the share that is to be withheld anew: a window has passed.

        Returns:
            0 while the last one still holds, and when all is well again.
        """
        if now_s < self._next_s:
            return 0.0
        self.share = self.share / 2.0 if self.share / 2.0 >= _LEAST else 0.0
        self._next_s = now_s + self._window_s if self.share else float("inf")
        return self.share
