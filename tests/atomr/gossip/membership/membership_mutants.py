"""Membership with a line broken: some scenario notices.

A mutant that no scenario notices is a line that nothing tests.
"""

from __future__ import annotations

from atomr.gossip.membership import machine, member, prober, roster, suspicion, updates
from atomr.gossip.membership.beliefs import Beliefs
from tests.atomr.gossip.membership import (
    membership_care_scenarios,
    membership_scenarios,
)
from tests.atomr.gossip.mutants import Mutant

SCENARIOS = {
    scenario.name.removeprefix("membership."): scenario
    for scenario in (
        *membership_scenarios.SCENARIOS,
        *membership_care_scenarios.SCENARIOS,
    )
}
Membership, Prober, Roster = machine.Membership, prober.Prober, roster.Roster

MUTANTS = (
    Mutant(
        "a new life waits for the rumours of the old one",
        member.precedence,
        "member.origin.boot, member.incarnation, member.status",
        "member.incarnation, member.status, member.origin.boot",
        SCENARIOS["rolling_restart"],
    ),
    Mutant(
        "a refutation says nothing new",
        Beliefs._refute,
        "incarnation=incarnation), now_s)",
        "incarnation=said.incarnation), now_s)",
        SCENARIOS["lossy_stalls"],
    ),
    Mutant(
        "a node believes that it is dead itself",
        Beliefs._hear_of_me,
        "self._refute(said, now_s)",
        "self.believe(said, now_s)",
        SCENARIOS["stalls"],
    ),
    Mutant(
        "the dead of the other side die here too",
        Beliefs._hear_news,
        "known.status is Status.ALIVE",
        "known.status is Status.LEFT",
        SCENARIOS["islands"],
    ),
    Mutant(
        "newcomers are not told of the dead",
        Beliefs._hear_of_stranger,
        "self._roster.put(said, now_s)",
        "pass",
        SCENARIOS["chaos"],
    ),
    Mutant(
        "the old dead are learned again",
        Beliefs._hear_of_stranger,
        "elif said.age_s < self._options.forget_s:",
        "else:",
        SCENARIOS["forgetting"],
    ),
    Mutant(
        "the dead are as young as those who hear of them",
        Roster._aged,
        "int(now_s - died_at)",
        "0",
        SCENARIOS["forgetting"],
    ),
    Mutant(
        "nobody is ever held dead",
        Beliefs.due,
        "now_s >= suspicion.due_at",
        "now_s < 0.0",
        SCENARIOS["chaos"],
    ),
    Mutant(
        "a suspect has no last word",
        Beliefs.due,
        "self._speaker.ping(name, known.address, 0)",
        "pass",
        SCENARIOS["bad_ears"],
        first_seed=160,
    ),
    Mutant(
        "the dead and the seeds are not tried again",
        Membership._due,
        "self._try_again()",
        "pass",
        SCENARIOS["islands"],
    ),
    Mutant(
        "nodes of another cluster are let in",
        Membership._receive,
        "frame.cluster != self._cluster",
        "False",
        SCENARIOS["two_clusters"],
    ),
    Mutant(
        "a node blames others for its own stall",
        Membership._notice_lag,
        "lag_s > self._options.lag_s",
        "False",
        SCENARIOS["stalls"],
    ),
    Mutant(
        "the end of an old link is held against the new life",
        Membership._link_reset,
        "known.origin == peer",
        "True",
        SCENARIOS["rolling_restart"],
    ),
    Mutant(
        "goodbye is said to nobody",
        Membership._leave,
        "self._speaker.tell(self._roster.members[name].address)",
        "pass",
        SCENARIOS["goodbyes"],
    ),
    Mutant(
        "equal tables look different",
        Roster.digest,
        "sorted(rows)",
        "rows",
        SCENARIOS["quiet"],
    ),
    Mutant(
        "updates are told for ever",
        updates.UpdateQueue.take,
        "times + 1 >= limit",
        "False",
        SCENARIOS["quiet"],
    ),
    Mutant(
        "nobody vouches for a node behind a bad link",
        Prober._due_probe,
        "self._options.helpers, but=",
        "0, but=",
        SCENARIOS["bad_links"],
    ),
    Mutant(
        "a helper keeps the answer to itself",
        Prober.acked,
        "not relay.is_acked",
        "relay.is_acked",
        SCENARIOS["bad_links"],
    ),
    Mutant(
        "an unanswered ping is not sent again",
        Prober._due_probe,
        "self._speaker.ping(probe.target.name, probe.target.address, probe.number)",
        "pass",
        SCENARIOS["losses"],
    ),
    Mutant(
        "suspects have no time at all",
        suspicion.suspicion_timeout_s,
        "base_s = options.suspicion_mult * options.probe_s",
        "base_s = options.probe_s",
        SCENARIOS["lossy_stalls"],
        first_seed=170,
    ),
)
