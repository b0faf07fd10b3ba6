"""How many requests may be hedged: a share of all, and no burst.

Each request pays ``fraction`` of a token in, and a hedge takes a whole one out,
so that over any number of requests at most that share is hedged, plus the burst.
An upstream that slows down for everybody is thus not asked twice by everybody.

Pure.

Source: Dean and Barroso, "The Tail at Scale", 2013.
"""

from __future__ import annotations

_BURST = 5.0


class HedgeBudget:
    """Tokens that hedges are paid with."""

    def __init__(self, fraction: float) -> None:
        """Start with nothing.

        Args:
            fraction: of all requests, 0 to 1.
        """
        self._fraction = fraction
        self._tokens = 0.0

    def request(self) -> None:
        """Count a request."""
        self._tokens = min(_BURST, self._tokens + self._fraction)

    def take(self) -> bool:
        """Pay for a hedge; False: there is no token for it."""
        # 20 times 0.05 is a little less than 1.
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True
