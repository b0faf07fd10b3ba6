"""How many requests run at once where the upstream says when it is too many.

Additive increase, multiplicative decrease: a 429 cuts the limit to a share of
what runs, and each round of successes gives one permit back, up to the
configured maximum.

The requests that were on their way when the limit was cut may be refused as
well, and say nothing new; so each permit carries the generation in which it was
given, and only a refusal of the present generation cuts.

Pure.

Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
Congestion Avoidance in Computer Networks", 1989.
"""

from __future__ import annotations

import math

_DECREASE = 0.7


class AdaptiveLimit:
    """A limit between 1 and a maximum, tuned by outcomes."""

    def __init__(self, maximum: int) -> None:
        """Start at the maximum: most upstreams never refuse.

        Args:
            maximum: the configured limit, at least 1.
        """
        self._maximum = maximum
        self._limit = float(maximum)
        self._generation = 0

    @property
    def limit(self) -> int:
        """Permits that may be out at once, at least 1."""
        return math.floor(self._limit)

    @property
    def generation(self) -> int:
        """What a permit that is given now must carry."""
        return self._generation

    def resize(self, maximum: int) -> None:
        """Take another maximum; what the upstream has taught us stays.

        Args:
            maximum: the configured limit, at least 1.

        >>> limit = AdaptiveLimit(8)
        >>> limit.resize(16)
        >>> limit.limit
        16
        >>> _ = limit.refused(0, running=10)
        >>> limit.resize(32)
        >>> limit.limit
        7
        """
        free = self._limit >= self._maximum
        self._maximum = maximum
        self._limit = float(maximum) if free else min(self._limit, float(maximum))

    def succeeded(self) -> bool:
        """Take a success; return whether the limit has grown."""
        before = self.limit
        self._limit = min(float(self._maximum), self._limit + 1 / self._limit)
        return self.limit > before

    def refused(self, generation: int, running: int) -> bool:
        """Take a 429; return whether the limit was cut.

        Args:
            generation: the refused request's permit's.
            running: permits that are out, the refused one included.
        """
        if generation != self._generation:
            return False
        before = self.limit
        # Not more than what ran: a limit far above the load would take many
        # refusals to come down to where it matters.
        self._limit = max(1.0, min(self._limit, float(running)) * _DECREASE)
        self._generation += 1
        return self.limit < before
