"""One wait at a time under one time limit, and the error it ends with.

What both versions of HTTP share: an HTTP/1.1 connection and a stream of HTTP/2
each carry one exchange, which waits for one thing after the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from atomr_infer.remote.http.phases import Phase, translate

if TYPE_CHECKING:
    from atomr_infer.errors import UpstreamError
    from atomr_infer.remote.http.exchange import Call
    from atomr_infer.remote.http.origin import Origin
    from atomr_infer.remote.http.watchdog import Watchdog


class Limited:
    """Sets the limits of an exchange's waits; whoever is one ends them.

    Attributes:
        due_at: the instant by which the current wait must have ended; ``inf``
            when nobody waits.
    """

    __slots__ = ("_by_total", "_call", "_origin", "_phase", "_watchdog", "due_at")

    _call: Call

    def __init__(self, *, origin: Origin, watchdog: Watchdog) -> None:
        self._origin = origin
        self._watchdog = watchdog
        self._phase = Phase.WRITE
        self._by_total = False
        self.due_at = math.inf

    def due_by(self, instant: float) -> None:
        """Let every wait from here on end at an instant, at the latest."""
        self._call.total_at = instant

    def _limit(self, phase: Phase, limit_s: float) -> None:
        """Let the wait that begins now end in ``limit_s`` at the latest."""
        self._phase = phase
        due_at = trio.current_time() + limit_s
        self._by_total = due_at > self._call.total_at
        if self._by_total:
            due_at = self._call.total_at
        self.due_at = due_at
        self._watchdog.notice(due_at)

    def fault(self, error: BaseException) -> UpstreamError:
        """Return the error of inference for what ended the exchange here.

        Args:
            error: one of ``TRANSPORT_ERRORS``.
        """
        late_in = Phase.TOTAL if self._by_total else self._phase
        return translate(
            error,
            phase=self._phase,
            late_in=late_in,
            origin=self._origin,
            seconds=self._call.timeouts.of(late_in),
        )
