"""Ways to break a lease, each of which the scenarios must notice.

A mutant is a line of ours that reads otherwise: mistakes that the next one who
touches the code might make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr.gossip.voting.candidate import Candidate
from atomr.gossip.voting.election import Election
from atomr.gossip.voting.terms import Terms
from atomr.gossip.voting.voter import Voter
from atomr.gossip.voting.votes import Votes
from tests.atomr.gossip.mutants import Mutant
from tests.atomr.gossip.voting.voting_scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable

BY_NAME = {s.name.removeprefix("voting."): s for s in SCENARIOS}


def _derived(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = vars(Terms)[name].func
    return function


_due_at: Callable[..., Any] = Candidate.due_at.fget  # type: ignore[attr-defined]

MUTANTS = (
    Mutant(
        "a candidate counts its lease from the answer",
        Candidate._hear_granted,
        "votes.granted(voter, frame)",
        "votes.granted(voter, type(frame)(frame.lease, frame.boot, frame.attempt,"
        " now_s, frame.epoch, frame.is_yours))",
        BY_NAME["last_moment"],
    ),
    Mutant(
        "the voter is no later than the candidate",
        _derived("lapse_s"),
        "self.lease_s * apart + _LAPSE_MARGIN_S",
        "self.lease_s",
        BY_NAME["last_moment"],
    ),
    Mutant(
        "a margin for one clock that is wrong, not for two",
        _derived("lapse_s"),
        "self.lease_s * apart + _LAPSE_MARGIN_S",
        "self.lease_s * (1.0 + DRIFT)",
        BY_NAME["last_moment"],
    ),
    Mutant(
        "a restarted voter votes at once",
        Voter.__init__,
        "now_s + terms.lapse_s",
        "now_s",
        BY_NAME["restarts"],
    ),
    Mutant(
        "a majority of those that are seen",
        Votes._last,
        "majority = self._terms.majority",
        "majority = len(times) // 2 + 1",
        BY_NAME["chaos"],
    ),
    Mutant(
        "half of the voters will do",
        _derived("majority"),
        "len(self.voters) // 2 + 1",
        "(len(self.voters) + 1) // 2",
        BY_NAME["islands"],
    ),
    Mutant(
        "the lease ends with the last vote",
        Votes._last,
        "times[majority - 1]",
        "times[0]",
        BY_NAME["wandering"],
    ),
    Mutant(
        "a holder that was away sees the end of its lease when it is woken",
        Election.handle,
        "candidate.notice_end(now_s)",
        "isinstance(event, Woke) and candidate.notice_end(now_s)",
        BY_NAME["wandering"],
    ),
    Mutant(
        "the vote is given to two",
        Voter._taken,
        "vote is not None and vote.to != candidate",
        "vote is not None and vote.to == candidate",
        BY_NAME["chaos"],
    ),
    Mutant(
        "a late word of an old attempt frees the vote of the new one",
        Voter._give_up,
        "vote.attempt > given_up.attempt",
        "vote.attempt < 0",
        BY_NAME["chaos"],
    ),
    Mutant(
        "anybody's word frees the vote",
        Voter._give_up,
        "not is_his",
        "False",
        BY_NAME["chaos"],
    ),
    Mutant(
        "the lease is given back before the work has ended",
        Candidate.leave,
        "self._stop(Why.LEAVING)",
        "self._stop(Why.LEAVING); self._give_up(now_s)",
        BY_NAME["chaos"],
    ),
    Mutant(
        "each candidate counts its own terms",
        Votes.granted,
        "return frame.epoch >= self.epoch",
        "self._confirmed.add(voter); return False",
        BY_NAME["chaos"],
    ),
    Mutant(
        "voters forget epochs",
        Voter.ask,
        "self.epoch = believed(self.epoch, frame.epoch)",
        "pass",
        BY_NAME["chaos"],
    ),
    Mutant(
        "an heir that has come keeps its place for the next one",
        Voter._give,
        "self._heir_until_s = self._ready_at",
        "pass",
        BY_NAME["handover"],
    ),
    Mutant(
        "a holder looks at the time when it renews",
        _due_at,
        "min(self._tick_at, self._votes.until_s - self._terms.stop_s)",
        "self._tick_at",
        BY_NAME["in_time"],
    ),
    Mutant(
        "a vote is not asked for once more",
        Candidate._keep,
        "self._ask(votes.stale(fresh_s), now_s)",
        "self._ask([], now_s)",
        BY_NAME["steady"],
    ),
    Mutant(
        "who hears nobody takes votes all the same",
        Candidate.poll,
        "self._poll(now_s)",
        "self._begin(now_s)",
        BY_NAME["deaf"],
    ),
    Mutant(
        "others do not leave time to an heir",
        Voter._taken,
        "max(self._ready_at, self._heir_until_s)",
        "self._ready_at",
        BY_NAME["late_heir"],
    ),
    Mutant(
        "an heir does not say whose it is",
        Candidate.yielded,
        "GivenUp(candidate.name, candidate.boot, frame.attempt)",
        "None",
        BY_NAME["handover"],
    ),
)
