"""Ways to break a home that moves, each of which the scenarios must notice."""

from __future__ import annotations

from atomr.gossip.escrow.home import Home
from atomr.gossip.escrow.lessee import Lessee
from atomr.gossip.escrow.member import Member
from atomr.gossip.escrow.seat import VotedSeat
from atomr.gossip.voting.candidate import Candidate
from atomr.gossip.voting.voter import Voter
from atomr.gossip.voting.votes import Votes
from tests.atomr.gossip.home_scenarios import LONG, SCENARIOS
from tests.atomr.gossip.mutants import Mutant

(CHAOS,) = SCENARIOS
LAST_MOMENT, BACK, PAUSED, *_ = LONG

MUTANTS = (
    Mutant(
        "who was a home once lends for ever",
        Member._lends,
        "not seat.holds(now_s)",
        "seat.alone_from_s == -_NEVER",
        LAST_MOMENT,
    ),
    Mutant(
        "a home that stood still lends until it sees that its lease is over",
        VotedSeat.holds,
        "election.holds(now_s) is not None",
        "election.epoch != 0",
        PAUSED,
    ),
    Mutant(
        "a new home lends at once",
        Home.take_over,
        "self._begin(at_s)",
        "self._alone_from_s = at_s",
        PAUSED,
    ),
    Mutant(
        "a new home waits for a window, and not for the leases of the old one",
        Home._begin,
        "at_s + limit.lapse_s",
        "at_s",
        LAST_MOMENT,
    ),
    Mutant(
        "a new home waits for the leases of the old one, and not for a window",
        Home._lock_forgotten,
        "self._closing.add(permits, self._forgotten_s)",
        "self._closing.add(permits, self._forgotten_s - self._limit.cooling_s)",
        PAUSED,
    ),
    Mutant(
        "a vote that was another's has never been",
        Voter._give,
        "self._ready_at if self._last is None else now_s",
        "self._ready_at",
        PAUSED,
    ),
    Mutant(
        "who had the vote before is forgotten when it has it again",
        Voter._give,
        "self._since = attempt",
        "self._since = 0",
        BACK,
    ),
    Mutant(
        "nobody else lends between two terms",
        Candidate._hear_granted,
        "votes.since() > self._term",
        "self._term < 0",
        BACK,
    ),
    Mutant(
        "one voter knows who has lent",
        Votes.alone_from_s,
        "[self._terms.majority - 1]",
        "[0]",
        CHAOS,
    ),
    Mutant(
        "what the old home has lent is kept beside what the new one lends",
        Lessee.offered,
        "self._drop()",
        "self._account = None",
        CHAOS,
    ),
    Mutant(
        "a node that is alone lends",
        VotedSeat.holds,
        "election.holds(now_s) is not None",
        "election.phase.value != 'idle'",
        CHAOS,
    ),
)
