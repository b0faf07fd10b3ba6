"""Restart intensity: how many restarts a supervisor tolerates before it exits.

One window is shared by all children of a supervisor, as in OTP.  A window per
child would let ten flapping children restart ten times as often as one.

Pure: no clock and no trio; the caller passes ``now``.

Source: OTP ``supervisor``, "Maximum Restart Intensity".
"""

from __future__ import annotations

import attrs

from atomr.core.checks import check_count, check_seconds


@attrs.frozen
class RestartIntensity:
    """Sliding window over a supervisor's recent restarts.

    Attributes:
        max_restarts: restarts allowed inside the window, at least 0.
        max_seconds: window length in seconds, more than 0.
        restarts: monotonic times in seconds, newest first.

    Raises:
        TypeError: a limit is of another type.
        ValueError: a limit is too small.
    """

    max_restarts: int = 3
    max_seconds: float = 5.0
    restarts: tuple[float, ...] = ()

    def __attrs_post_init__(self) -> None:
        check_count("max_restarts", self.max_restarts)
        check_seconds("max_seconds", self.max_seconds, zero=False)

    @property
    def exceeded(self) -> bool:
        """True when the supervisor must stop its children and exit."""
        return len(self.restarts) > self.max_restarts

    def record(self, now: float) -> RestartIntensity:
        """Return the window after one more restart.

        Args:
            now: monotonic time in seconds, not before ``restarts[0]``.

        >>> window = RestartIntensity(max_restarts=1, max_seconds=5.0)
        >>> window.record(0.0).record(6.0).restarts
        (6.0,)
        >>> window.record(0.0).record(4.0).exceeded
        True
        """
        recent = (then for then in self.restarts if now <= then + self.max_seconds)
        # By hand, as it is on the way of each restart: evolve asks for the fields.
        restarts = (now, *recent)
        return RestartIntensity(self.max_restarts, self.max_seconds, restarts)


def backoff_delay_s(attempt: int, *, backoff_s: float, max_backoff_s: float) -> float:
    """Return the seconds to wait before restart number ``attempt``, from 1.

    Doubles per attempt.  No jitter: children of one supervisor do not compete
    for a shared resource as clients of a server do, and a wait that a reader
    can predict is easier to reason about.

    >>> [backoff_delay_s(n, backoff_s=0.5, max_backoff_s=3.0) for n in (1, 2, 3, 4)]
    [0.5, 1.0, 2.0, 3.0]
    """
    # 2**1024 overflows a float; the bound is reached long before.
    return min(max_backoff_s, backoff_s * 2.0 ** min(attempt - 1, 60))


def check_backoff(backoff_s: object, max_backoff_s: object) -> None:
    """Check the waits before restarts.

    Raises:
        TypeError: one is no number.
        ValueError: one is negative, or not a number (nan).
    """
    check_seconds("backoff_s", backoff_s)
    check_seconds("max_backoff_s", max_backoff_s)
