"""What is on its way to a peer, and when it is taken for lost.

All that a log has is in one order, and is sent in that order, so one number says how
far a peer was sent all of it: a *position*, which is how many events the log had by
then.  A digest says which is the first event that the peer lacks.

- It was sent in an answer whose time is not over: that is on its way, and until it
  has arrived nothing follows it, so that a slow peer sets the pace.
- Its time is over: it is taken for lost, what is lacking is sent again, and the peer
  gets more time from then on.
- It was in no answer: it is sent, as soon as pushes had their time, and with that
  its time is over, too.

How much time a peer needs is measured with one event at a time: how old it was when
a digest came last that did not have it.  So a digest that is waited for is no delay,
and a peer that always has what it should have gets no more time than it had.

It may all be wrong, and is for a peer that lost what it had: then what it lacks comes
to it some seconds later, the longest that is waited for.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.crdt import Event
from atomr.gossip.replication.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.crdt import Origin


@attrs.define
class Probe:
    """An event by which it is measured how slow a peer is.

    Attributes:
        event: which the peer was sent once.
        position: up to there.
        since_s: when.
        missed_s: how old it was when the peer last said that it lacks it.
    """

    event: Event
    position: int
    since_s: float
    missed_s: float = 0.0


class Flight:
    """What one peer was sent.

    Attributes:
        timeout: how long it is given.
    """

    __slots__ = (
        "_expired_at_s",
        "_met",
        "_position",
        "_probe",
        "_probed",
        "_sent_at_s",
        "timeout",
    )

    def __init__(self, met: int, *, least_s: float, most_s: float) -> None:
        """Know of nothing that was sent.

        Args:
            met: the position from which on the peer gets pushes.
            least_s: it gets at least that much time.
            most_s: and at most that much.
        """
        self.timeout = Timeout(least_s=least_s, most_s=most_s)
        self._met = met
        self._position = 0
        self._sent_at_s = self._expired_at_s = float("-inf")
        self._probe: Probe | None = None
        self._probed = 0

    def is_under_way(self, first: int, now_s: float) -> bool:
        """Return whether something the peer lacks is on its way to it.

        Args:
            first: the position of the first event that it lacks, and that pushes had
                their time for.
            now_s: the time.
        """
        wait_s = self.timeout.wait_s
        if first <= self._position and now_s - self._sent_at_s < wait_s:
            return True
        is_first_time = first > self._position and first <= self._met
        if not is_first_time and now_s - self._expired_at_s >= wait_s:
            # However much was late: once in that time.
            self._expired_at_s = now_s
            self.timeout.expired()
        return False

    def sent(self, position: int, now_s: float, *, last: Event | None = None) -> None:
        """Note that it was sent all that it lacked, up to there, in an answer.

        Args:
            position: of the last event of the answer.
            now_s: the time.
            last: that event, if it was not pushed; by it is measured.
        """
        is_first = position > self._position
        self._position, self._sent_at_s = position, now_s
        if self._probe is not None and self._probe.position <= position:
            # It was sent before: nobody will know which of the two arrived.
            self._probe = None
        if last is not None and is_first and self._probe is None:
            self._probe = Probe(last, position, now_s)

    def measure(self, probe: Probe) -> None:
        """Measure by an event, unless one is under way, or it was sent in an answer."""
        if self._probe is None and probe.position > max(self._probed, self._position):
            # Its own: how late the event is differs from peer to peer.
            self._probe = Probe(probe.event, probe.position, probe.since_s)
            self._probed = probe.position

    def heard(self, known: Mapping[Origin, int], now_s: float) -> None:
        """Note how many events of each origin the peer has."""
        probe = self._probe
        if probe is None:
            return
        dot = probe.event.dot
        if known.get(dot.origin, 0) < dot.seq:
            probe.missed_s = now_s - probe.since_s
        else:
            self._probe = None
            self.timeout.took(probe.missed_s)
