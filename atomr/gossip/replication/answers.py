"""What a peer is answered that has said what it knows.

Not all that it lacks: what was written just now comes by pushes, and what it was
answered before may be on its way.  How long either takes, each peer teaches by what
it says later.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.crdt import Batch, VersionVector
from atomr.gossip.replication.flight import Flight, Probe
from atomr.gossip.replication.frames import Events
from atomr.gossip.replication.settling import Settling

if TYPE_CHECKING:
    from atomr.crdt import EventLog, Origin
    from atomr.gossip.replication.options import ReplicationOptions

_NONE = Events((), more=False)


class Answers:
    """The answers of one replicator to its peers' digests."""

    __slots__ = ("_flights", "_log", "_options", "_own", "_settling")

    def __init__(self, log: EventLog, options: ReplicationOptions) -> None:
        self._log = log
        self._options = options
        self._settling = Settling(options.settle_s)
        self._flights: dict[Origin, Flight] = {}
        self._own: Probe | None = None

    def peer_up(self, peer: Origin) -> None:
        """Begin to remember what a peer was sent."""
        options = self._options
        self._flights[peer] = Flight(
            self._log.tail.total, least_s=options.settle_s, most_s=options.resend_s
        )

    def peer_down(self, peer: Origin) -> None:
        """Forget it."""
        self._flights.pop(peer, None)

    def wait_s(self, peer: Origin) -> float:
        """Return for how long what a peer was sent is on its way; the peer is up."""
        return self._flights[peer].timeout.wait_s

    def note(self, now_s: float) -> None:
        """Note that there are events that were not there before."""
        waits_s = [flight.timeout.wait_s for flight in self._flights.values()]
        self._settling.keep_s = max(waits_s, default=self._options.settle_s)
        tail = self._log.tail
        self._settling.note(tail.total, now_s)
        if tail.newest is not None and tail.newest.dot.origin == self._log.origin:
            self._own = Probe(tail.newest, tail.total, now_s)

    @property
    def _is_pushed(self) -> bool:
        """Whether each peer gets each push; else some learn of events by digests."""
        return len(self._flights) <= self._options.push_all

    def heard(self, peer: Origin, known: VersionVector, now_s: float) -> None:
        """Learn how long it takes what is sent to a peer to be known there.

        Args:
            peer: that is up.
            known: what it says that it knows.
            now_s: our clock.
        """
        flight = self._flights[peer]
        probe = self._probe(peer, now_s) if self._is_pushed else None
        if probe is not None:
            flight.measure(probe)
        flight.heard(known, now_s)

    def _probe(self, peer: Origin, now_s: float) -> Probe | None:
        # What others wrote came here as late as to the peer, where we are who is slow.
        own, newest = self._own, self._log.tail.newest
        if own is not None and now_s - own.since_s < self._options.resend_s:
            return own
        if newest is None or newest.dot.origin == peer:
            return None
        return Probe(newest, self._log.tail.total, self._settling.newest_at_s)

    def missing(
        self, peer: Origin, known: VersionVector, now_s: float
    ) -> Events | None:
        """Return the first of what a peer lacks and is not on its way to it.

        Args:
            peer: who, whether it is up or not.
            known: what it knows.
            now_s: our clock.

        Returns:
            None: the log has not all of it any more, and a snapshot is needed.
        """
        tail, options = self._log.tail, self._options
        behind = tail.behind(known, self._log.seen.vector)
        if behind is None:
            return None
        flight = self._flights.get(peer)
        wait_s = options.settle_s
        if flight is not None and self._is_pushed:
            wait_s = flight.timeout.push_s
        newest = self._settling.newest(tail.total, now_s, within_s=wait_s)
        first = tail.total - behind + 1
        if behind <= newest or (flight and flight.is_under_way(first, now_s)):
            return _NONE
        batch = Batch(options.batch_events, options.batch_bytes, newest)
        front = tail.front(known, batch, latest=behind)
        if flight is not None and front.events:
            last = None if self._is_pushed else front.events[-1]
            flight.sent(tail.total - front.after, now_s, last=last)
        return Events(front.events, front.more)
