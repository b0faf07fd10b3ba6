"""All seats that a node knows of, by their leases.

Which there are follows from the voters of the limits: one for each voter.  A node
votes for all of them as long as it runs, and stands for those that limits are lent
from; so the traffic grows with the voters, and not with the limits.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.escrow.seat import FixedSeat, Seat, VotedSeat, terms_of

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin
    from atomr.gossip.escrow.frames import Voting
    from atomr.gossip.escrow.limit import Limit
    from atomr.gossip.escrow.outcomes import Effect

_NEVER = float("inf")


class Seats:
    """The seats of one life of a node.

    Attributes:
        next_deadline_s: when :meth:`advance` is due; infinite: never.
    """

    __slots__ = ("_me", "_outbox", "_seats", "_voted_until_s", "next_deadline_s")

    def __init__(self, me: Origin, *, voted_until_s: float) -> None:
        """Start without any.

        Args:
            me: the node, in this life.
            voted_until_s: an earlier life may have voted until then, whatever is said.
        """
        self._me = me
        self._voted_until_s = voted_until_s
        self._seats: dict[str, VotedSeat] = {}
        self._outbox: list[Effect] = []
        self.next_deadline_s = _NEVER

    def use(self, limit: Limit, now_s: float, *, quiet_at_s: float) -> Seat:
        """Return the seat that a limit is lent from, for :meth:`leave` to give back.

        Args:
            limit: its terms.
            now_s: by the node's clock.
            quiet_at_s: when an earlier life of the node ended, at the latest.
        """
        if not limit.moves or limit.away_s is None:
            return FixedSeat(limit.home, self._me.name)
        voted_until_s = max(quiet_at_s, self._voted_until_s)
        for voter in limit.voters:
            terms = terms_of(voter, limit.voters, limit.away_s)
            if terms.name not in self._seats:
                self._seats[terms.name] = VotedSeat(
                    terms, voter, self._me, voted_until_s=voted_until_s
                )
        name = terms_of(limit.home, limit.voters, limit.away_s).name
        seat = self._seats[name]
        seat.use(now_s)
        self._schedule()
        return seat

    def leave(self, seat: Seat, now_s: float) -> None:
        """Lend a limit from a seat no more.

        The node goes on voting: what it has promised holds.
        """
        if isinstance(seat, VotedSeat):
            self._outbox += seat.leave(now_s)
            self._schedule()

    def receive(self, sender: str, frame: Voting, now_s: float) -> list[Effect]:
        """Handle what another voter says."""
        seat = self._seats.get(frame.said.lease)
        if seat is None:
            return []
        effects = seat.receive(sender, frame.said, now_s)
        self._schedule()
        return effects

    def advance(self, now_s: float) -> list[Effect]:
        """Do what is due."""
        if now_s < self.next_deadline_s:
            return []
        effects, self._outbox = self._outbox, []
        for seat in self._seats.values():
            if now_s >= seat.next_deadline_s:
                effects += seat.advance(now_s)
        self._schedule()
        return effects

    def _schedule(self) -> None:
        if self._outbox:
            self.next_deadline_s = -_NEVER
            return
        next_s = _NEVER
        for seat in self._seats.values():
            if seat.next_deadline_s < next_s:
                next_s = seat.next_deadline_s
        self.next_deadline_s = next_s
