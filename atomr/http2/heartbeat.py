"""Whether the other end is there: one heartbeat for the path, one for the process.

A PING is answered by whoever reads the peer's socket; a probe, a message on ``ctl``,
by the task that does the link's work in the peer's process.  Without the first the
path is cut, or nothing over there runs.  With it but without the second the process
reads and does nothing.

A node whose own loop stood still accuses nobody: the answers lie in its sockets.

Pure: the caller passes ``now_s``.
"""

from __future__ import annotations

import attrs

from atomr.http2.events import Reason


@attrs.frozen
class Beat:
    """A PING and a probe are to be sent.

    Attributes:
        number: of both.
    """

    number: int


class Heartbeat:
    """Keeps the time of both heartbeats of a link.

    Attributes:
        due_at: when :meth:`step` is to be called next.
        round_trip_s: of the last probe; None before the first.
    """

    def __init__(self, *, interval_s: float, timeout_s: float, now_s: float) -> None:
        """Begin with a peer that has just been heard.

        Args:
            interval_s: between two beats, more than 0.
            timeout_s: without an answer for so long the link is down.
            now_s: monotonic seconds.
        """
        self._interval_s = min(interval_s, timeout_s)
        self._timeout_s = timeout_s
        self._number = 0
        self._sent_at = now_s
        self._ponged_at = now_s
        self._probed_at = now_s
        self.due_at = now_s + self._interval_s
        self.round_trip_s: float | None = None

    def step(self, now_s: float) -> Beat | Reason | None:
        """Return what is to be done now.

        Returns:
            A beat to send; the reason why the link is down; None: nothing yet.
        """
        if now_s < self.due_at:
            return None
        stood_still_s = now_s - self.due_at
        if stood_still_s > self._interval_s:
            self._ponged_at += stood_still_s
            self._probed_at += stood_still_s
        if now_s - self._ponged_at >= self._timeout_s:
            return Reason.NO_PONG
        if now_s - self._probed_at >= self._timeout_s:
            return Reason.STALLED
        self._number += 1
        self._sent_at = now_s
        self.due_at = now_s + self._interval_s
        return Beat(self._number)

    def ponged(self, now_s: float) -> None:
        """Note that a PING came back."""
        self._ponged_at = now_s

    def probed(self, number: int, now_s: float) -> None:
        """Note that a probe was answered."""
        self._probed_at = now_s
        if number == self._number:
            self.round_trip_s = now_s - self._sent_at
