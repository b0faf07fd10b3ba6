"""A seat: the place of the voter that lends the pools of all limits of one home.

Each voter has a seat of its own.  It sits there as long as a majority of the voters
gives it their votes, for a lease (:mod:`atomr.gossip.voting`); when it has gone, the
others stand for it, in the seat's own order.  Who sits lends; so one lease moves all
limits that have the same home, however many there are.

Whoever has taken a seat stays while it can: a change costs a lease and a window, and
to give it back would cost that twice.

Where limits do not move, the home sits in its seat for ever.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Protocol

from atomr.gossip import voting
from atomr.gossip.escrow.frames import Voting
from atomr.gossip.escrow.limit import rendezvous
from atomr.gossip.escrow.outcomes import Effect, Send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr.crdt.origin import Origin

_NEVER = float("inf")


class Seat(Protocol):
    """Who lends, as far as a node knows.

    Attributes:
        holder: whom to ask.
        moves: whether that may be another one.
        vacant_s: how long after the holder was last heard another one sits there, at
            the earliest; infinite: never.
    """

    holder: str
    moves: bool
    vacant_s: float

    @property
    def home(self) -> str:
        """Who lends, as far as is known: whoever has this node's vote, if any."""
        ...

    @property
    def alone_from_s(self) -> float:
        """A time after which only this node, in this life, has lent."""
        ...

    def holds(self, now_s: float) -> bool:
        """Whether this node may lend, right now."""
        ...

    def heard_of(self, teller: str, holder: str) -> None:
        """A node says that it does not lend, and who does; empty: it does not know."""
        ...

    def doubt(self, holder: str) -> None:
        """Ask another one: this one does not lend, or does not answer."""
        ...


class FixedSeat:
    """The seat of limits that do not move."""

    __slots__ = ("_holds", "holder")

    moves = False
    vacant_s = _NEVER
    alone_from_s = -_NEVER

    def __init__(self, holder: str, me: str) -> None:
        """Let the holder sit there for ever."""
        self.holder = holder
        self._holds = holder == me

    @property
    def home(self) -> str:
        """Who lends."""
        return self.holder

    def holds(self, now_s: float) -> bool:
        """Whether this node is the one."""
        return self._holds

    def heard_of(self, teller: str, holder: str) -> None:
        """There is no other."""

    def doubt(self, holder: str) -> None:
        """There is no other."""


class VotedSeat:
    """A seat that is voted for.

    Attributes:
        holder: whom to ask.
        users: limits of this node whose pools are lent from it.
        next_deadline_s: when :meth:`advance` is due; infinite: never.
    """

    __slots__ = (
        "_election",
        "_me",
        "_order",
        "_rank",
        "_seen",
        "_stand_s",
        "holder",
        "next_deadline_s",
        "terms",
        "users",
        "vacant_s",
    )

    moves = True

    def __init__(
        self,
        terms: voting.Terms,
        owner: str,
        me: Origin,
        *,
        voted_until_s: float,
    ) -> None:
        """Start without wanting to sit there.

        Args:
            terms: of its lease.
            owner: whose seat it is, while it is there.
            me: the node, in this life.
            voted_until_s: when an earlier life has voted last, at the latest.
        """
        self.terms = terms
        others = [voter for voter in terms.voters if voter != owner]
        self._order = [owner, *rendezvous(owner, others)]
        self._me = me.name
        self.holder = owner
        self.users = 0
        self.vacant_s = terms.lapse_s
        self.next_deadline_s = _NEVER
        self._seen = ""
        self._stand_s = _NEVER
        self._election: voting.Election | None = None
        if me.name in terms.voters:
            rank = self._rank = self._order.index(me.name)
            # The next in order tries first, so that two do not hinder each other.
            drawn = _numbers(f"{me.name} {me.boot} {terms.name}")
            number = len(self._order)
            self._election = voting.Election(
                terms,
                me,
                draw=lambda: (rank + next(drawn)) / number,
                epoch=0,
                now_s=voted_until_s,
            )

    # --- who lends ------------------------------------------------------------------

    @property
    def home(self) -> str:
        """Who lends, as far as is known: whoever has this node's vote, if any."""
        return self._seen or self.holder

    @property
    def alone_from_s(self) -> float:
        """A time after which only this node, in this life, has lent."""
        election = self._election
        return -_NEVER if election is None else election.alone_from_s

    def holds(self, now_s: float) -> bool:
        """Whether this node may lend, right now."""
        election = self._election
        return election is not None and election.holds(now_s) is not None

    def heard_of(self, teller: str, holder: str) -> None:
        """A node says that it does not lend, and who does; empty: it does not know."""
        if teller != self.holder:
            return
        if holder in self.terms.voters and holder != teller:
            self.holder = holder
        else:
            self.doubt(teller)

    def doubt(self, holder: str) -> None:
        """Ask the next one."""
        if holder == self.holder:
            at = self._order.index(holder) + 1
            self.holder = self._order[at % len(self._order)]

    # --- the election ---------------------------------------------------------------

    def use(self, now_s: float) -> None:
        """Lend from there for one more limit, if this node may sit there."""
        self.users += 1
        if self.users > 1 or self._election is None:
            return
        # Whose seat it is has time to come first, where all start at once.
        self._stand_s = now_s if self._rank == 0 else now_s + self.terms.lapse_s
        self._schedule()

    def leave(self, now_s: float) -> list[Effect]:
        """Lend from there for one limit less."""
        self.users -= 1
        if self.users or self._election is None:
            return []
        self._stand_s = _NEVER
        effects = self._handle(voting.Leave(), now_s)
        return effects + self._handle(voting.Stopped(), now_s)

    def receive(self, sender: str, frame: voting.Frame, now_s: float) -> list[Effect]:
        """Handle what another voter says."""
        return self._handle(voting.Received(sender, frame), now_s)

    def advance(self, now_s: float) -> list[Effect]:
        """Do what is due."""
        if now_s < self._stand_s:
            return self._handle(voting.Woke(), now_s)
        self._stand_s = _NEVER
        return self._handle(voting.Stand(), now_s)

    def _handle(self, event: voting.Event, now_s: float) -> list[Effect]:
        election = self._election
        if election is None:
            return []
        effects = election.handle(event, now_s)
        seen = election.seen
        if seen != self._seen:
            self._seen = seen
            self.holder = seen or self.holder
        if any(isinstance(effect, voting.Won) for effect in effects):
            self.holder = self._me
        self._schedule()
        # When the lease ends nothing has to be stopped: each act of the home asks.
        return [
            Send(effect.to, Voting(effect.message))
            for effect in effects
            if isinstance(effect, voting.Send)
        ]

    def _schedule(self) -> None:
        due_s = None if self._election is None else self._election.next_deadline_s
        self.next_deadline_s = min(_NEVER if due_s is None else due_s, self._stand_s)


def _numbers(seed: str) -> Iterator[float]:
    """Yield numbers from 0 to below 1, which no other seed has."""
    for at in count():
        digest = blake2b(f"{seed} {at}".encode(), digest_size=4).digest()
        yield int.from_bytes(digest, "big") / 2.0**32


def terms_of(owner: str, voters: tuple[str, ...], away_s: float) -> voting.Terms:
    """Return the terms of the lease of a voter's seat."""
    # Those with other voters, or other times, are other seats, and never meet.
    whose = repr((owner, voters, float(away_s))).encode()
    name = f"seat {blake2b(whose, digest_size=16).hexdigest()}"
    return voting.Terms(name, voters, lease_s=away_s, stop_s=0.0)
