"""A node's own clock: it began at some other time, and runs too fast or too slow.

``local = offset + rate * true``.  The offset is anything, as monotonic clocks of
two machines have nothing in common; the rate is 1 plus the drift.  The clock
never goes back, whatever rounding does.
"""

from __future__ import annotations


class Clock:
    """Monotonic time of one node.

    Attributes:
        rate: its seconds per true second.
        wall_error_s: what its wall clock is ahead of true time.
    """

    __slots__ = ("_last_s", "_offset_s", "_started_s", "rate", "wall_error_s")

    def __init__(
        self, *, offset_s: float = 0.0, rate: float = 1.0, wall_error_s: float = 0.0
    ) -> None:
        """Start at true time 0.

        Raises:
            ValueError: the rate is not above 0.
        """
        self._offset_s = self._started_s = offset_s
        self.rate = _checked(rate)
        self.wall_error_s = wall_error_s
        self._last_s = offset_s

    def read_s(self, true_s: float) -> float:
        """Return what the clock says; ``true_s`` is the simulation's time."""
        now_s = self._offset_s + self.rate * true_s
        if now_s < self._last_s:
            return self._last_s
        self._last_s = now_s
        return now_s

    def reach(self, local_s: float) -> None:
        """Say at least that from now on: a deadline has come, to within rounding."""
        self._last_s = max(self._last_s, local_s)

    def true_s(self, local_s: float) -> float:
        """Return at which true time the clock says that."""
        return (local_s - self._offset_s) / self.rate

    def wall_s(self, local_s: float) -> float:
        """Return the wall time, in seconds, that belongs to a monotonic time."""
        return _EPOCH_S + local_s - self._started_s + self.wall_error_s

    def drift(self, true_s: float, rate: float) -> None:
        """Run at another rate from now on.

        Raises:
            ValueError: the rate is not above 0.
        """
        now_s = self.read_s(true_s)
        self.rate = _checked(rate)
        self._offset_s = now_s - rate * true_s


def _checked(rate: float) -> float:
    if not rate > 0.0:
        raise ValueError(f"rate={rate!r}: expected above 0; 1.0 is a true clock")
    return rate


_EPOCH_S = 1_700_000_000.0
"""Wall time at the start of each run: some day that is not 1970."""
