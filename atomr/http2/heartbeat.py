"""Whether the other end is there: one heartbeat for the path, one for the process.

A PING is answered by whoever reads the peer's socket; a probe, a message on ``ctl``,
by the task that does the link's work in the peer's process.  Without the first the
path is cut, or nothing over there runs.  With it but without the second the process
reads and does nothing.

Of two nodes one does the asking, for both::

    a ── PING, probe 7, saw the answer to 6 ──▶ b    b: a is there, and hears me
    a ◀── PONG, probed 7 ── b                        a: so is b

A probe says which answer its sender has had last.  Where that is the last one that was
given, both ways and both processes are shown to be well, as by an answer; then the
asked side need not ask.  It does as soon as such a probe is late.

Beats are due at whole multiples of the interval, so a node is woken once for all of
its links.  A node whose own loop stood still accuses nobody: the answers lie in its
sockets.

Pure: the caller passes ``now_s``.
"""

from __future__ import annotations

import attrs

from atomr.http2.events import Reason

PATIENCE = {True: 1.25, False: 1.75}
"""In intervals: how long a peer's next probe is waited for, by who has dialed.  They
differ, so two that ask at the same time do not go on so."""

_LEAST_TRIES = 3.0
"""Timeouts of less intervals leave no room to wait for the peer."""


@attrs.frozen
class Beat:
    """A PING and a probe are to be sent.

    Attributes:
        number: of both.
        seen: number of the last probe that was answered; 0: none.
    """

    number: int
    seen: int = 0


class Heartbeat:
    """Keeps the time of both heartbeats of a link.

    Attributes:
        round_trip_s: of the last probe, here or over there; None before the first.
    """

    def __init__(
        self, *, interval_s: float, timeout_s: float, now_s: float, dialed: bool = True
    ) -> None:
        """Begin with a peer that has just been heard.

        Args:
            interval_s: between two beats, more than 0; at most half of the timeout.
            timeout_s: without an answer for so long the link is down.
            now_s: monotonic seconds.
            dialed: we opened the connection.
        """
        self._interval_s = min(interval_s, timeout_s / 2)
        self._timeout_s = timeout_s
        waits = timeout_s >= _LEAST_TRIES * self._interval_s
        self._patience_s = PATIENCE[dialed] * self._interval_s if waits else 0.0
        self._number = 0
        self._seen = 0
        self._answered = 0
        self._sent_at = now_s
        self._ponged_at = now_s
        self._probed_at = now_s
        self._beat_at = self._next_beat(now_s)
        self.round_trip_s: float | None = None

    @property
    def due_at(self) -> float:
        """When :meth:`step` is to be called next."""
        answered_at = min(self._ponged_at, self._probed_at)
        return min(self._beat_at, answered_at + self._timeout_s)

    def step(self, now_s: float) -> Beat | Reason | None:
        """Return what is to be done now.

        Returns:
            A beat to send; the reason why the link is down; None: nothing yet.
        """
        stood_still_s = now_s - self.due_at
        if stood_still_s < 0:
            return None
        if stood_still_s > self._interval_s:
            self._ponged_at += stood_still_s
            self._probed_at += stood_still_s
        if now_s - self._ponged_at >= self._timeout_s:
            return Reason.NO_PONG
        if now_s - self._probed_at >= self._timeout_s:
            return Reason.STALLED
        if now_s < self._beat_at:
            return None
        self._number += 1
        self._sent_at = now_s
        self._beat_at = self._next_beat(now_s)
        return Beat(self._number, self._seen)

    def ponged(self, now_s: float) -> None:
        """Note that a PING came back."""
        self._ponged_at = now_s

    def probed(self, number: int, now_s: float) -> None:
        """Note that a probe was answered."""
        self._probed_at = now_s
        if number == self._number:
            self._seen = number
            self.round_trip_s = now_s - self._sent_at

    def asked(
        self, number: int, now_s: float, *, seen: int, round_trip_s: float
    ) -> None:
        """Note that a probe of the peer's came, which is being answered.

        Args:
            number: of it.
            now_s: monotonic seconds.
            seen: number of its last probe of which it had the answer; 0: none.
            round_trip_s: how long that took; 0: unknown.
        """
        is_proof, self._answered = seen == self._answered, number
        if is_proof and self._patience_s:
            self._ponged_at = self._probed_at = now_s
            self._beat_at = max(self._beat_at, now_s + self._patience_s)
            self.round_trip_s = round_trip_s or self.round_trip_s

    def _next_beat(self, now_s: float) -> float:
        """Return a multiple of the interval, half to one and a half of it from now."""
        return (now_s / self._interval_s + 0.5) // 1.0 * self._interval_s + (
            self._interval_s
        )
