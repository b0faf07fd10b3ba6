"""How long it takes a peer to say that it has what it was sent.

As TCP reckons how long to wait before it sends again: the mean of what was measured,
and four times how much that varies.  Each time that it was not long enough it is
doubled, until something arrives that was sent once only: of what was sent again
nobody knows which copy is meant.

Pure.

Source: RFC 6298; Karn and Partridge, "Improving Round-Trip Time Estimates in Reliable
Transport Protocols", 1987.
"""

from __future__ import annotations

from collections import deque

_RECENT = 8
_FACTOR = 4.0
"""Of what pushes take for the most part, which is next to nothing for a quick peer."""


class Timeout:
    """What is known of one peer.

    Attributes:
        wait_s: so long after it was sent, something is taken for lost.
    """

    __slots__ = ("_least_s", "_mean_s", "_most_s", "_recent_s", "_varies_s", "wait_s")

    def __init__(self, *, least_s: float, most_s: float) -> None:
        """Begin with the shortest: most peers are quick.

        Args:
            least_s: it never is shorter.
            most_s: nor longer.
        """
        self._least_s = least_s
        self._most_s = max(least_s, most_s)
        self._mean_s: float | None = None
        self._varies_s = 0.0
        self._recent_s: deque[float] = deque(maxlen=_RECENT)
        self.wait_s = least_s

    @property
    def push_s(self) -> float:
        """So long after it was pushed, something is taken for lost.

        A push that was lost comes by others, late, and that was measured, too: three
        of four of the last ones tell a peer that is slow from one that loses some.
        """
        recent_s = sorted(self._recent_s)
        most_s = recent_s[len(recent_s) * 3 // 4] if recent_s else 0.0
        return min(self.wait_s, max(_FACTOR * most_s, self._least_s))

    def took(self, seconds: float) -> None:
        """Note how long something took that was sent once."""
        self._recent_s.append(seconds)
        if self._mean_s is None:
            self._mean_s, self._varies_s = seconds, seconds / 2
        else:
            off_s = abs(self._mean_s - seconds)
            self._varies_s += (off_s - self._varies_s) / 4
            self._mean_s += (seconds - self._mean_s) / 8
        self.wait_s = self._within(self._mean_s + 4 * self._varies_s)

    def expired(self) -> None:
        """Note that something did not arrive in time."""
        self.wait_s = self._within(2 * self.wait_s)

    def _within(self, seconds: float) -> float:
        return min(max(seconds, self._least_s), self._most_s)
