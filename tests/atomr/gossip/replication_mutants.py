"""Bugs of others, put into replication on purpose; see :mod:`mutants`."""

from __future__ import annotations

from atomr.crdt import (
    CausalContext,
    EventLog,
    LogTail,
    Replicated,
    joining,
)
from atomr.gossip.replication import Replication
from atomr.gossip.replication.flight import Flight
from atomr.gossip.replication.retiring import Retiring
from tests.atomr.gossip.mutants import Mutant
from tests.atomr.gossip.replication_scenarios import SCENARIOS
from tests.atomr.gossip.replication_world import ReplicaNode

CHAOS, RETIREMENT, ROLLING = SCENARIOS


MUTANTS = (
    Mutant(
        "trap 1: the newest events are sent, not the first",
        LogTail.front,
        "max(0, number - latest)",
        "max(0, number - min(latest, batch.events))",
        CHAOS,
    ),
    Mutant(
        "trap 1: the vector is taken from the sender, whatever of it came",
        Replication._answer,
        "effects = self._send_missing(peer, known, now_s)",
        "effects = self._send_missing(peer, known, now_s);"
        " log.seen.join(type(log.seen)(dict(vector)))",
        CHAOS,
    ),
    Mutant(
        "trap 2: a gap in an origin's events is jumped over",
        EventLog._take,
        "dot.seq == last + 1",
        "dot.seq > last",
        CHAOS,
    ),
    Mutant(
        "trap 3: a removal does not wait for what it removes",
        EventLog._are_known,
        "vector, retired = self.seen.vector, self.retired",
        "return True",
        CHAOS,
    ),
    Mutant(
        "trap 3: what waited is applied before what it removes",
        EventLog._next_ready,
        "event is not None and self._are_known(event.kills)",
        "event is not None",
        CHAOS,
    ),
    Mutant(
        "trap 5: a restarted node has the origin that it had before",
        ReplicaNode.__init__,
        "Origin(boot.name, boot.boot)",
        "Origin(boot.name, 1)",
        CHAOS,
    ),
    Mutant(
        "trap 6: a log that begins too late is sent all the same",
        LogTail.behind,
        "get(origin, 0) < seq for origin, seq",
        "False for origin, seq",
        CHAOS,
    ),
    Mutant(
        "trap 6: what falls out of the log is not remembered",
        LogTail.append,
        "self.base[old.dot.origin] = old.dot.seq",
        "pass",
        CHAOS,
    ),
    Mutant(
        "trap 9: a snapshot brings back what a retired node had",
        EventLog.adopt,
        "seen = context_of(self.seen.vector.items(), self.retired.items())",
        "seen = context_of(self.seen.vector.items())",
        RETIREMENT,
    ),
    Mutant(
        "what a peer was sent once is not sent again, whatever became of it",
        Flight.is_under_way,
        "return False",
        "return first <= self._position",
        CHAOS,
    ),
    Mutant(
        "a snapshot is joined with its first chunk",
        Replication._add_part,
        "if not incoming.assembly.is_whole:",
        "if False:",
        CHAOS,
    ),
    Mutant(
        "a snapshot takes the place of what was there",
        joining.joined_cell,
        "if not their_seen.contains(entry.dot.origin, entry.dot.seq)",
        "if False",
        CHAOS,
    ),
    Mutant(
        "a snapshot does not remove what it has seen and does not hold",
        joining.joined_cell,
        "if not their_seen.contains(entry.dot.origin, entry.dot.seq)",
        "",
        CHAOS,
    ),
    Mutant(
        "a snapshot brings back what was removed here",
        joining.joined_cell,
        "elif not seen.contains(entry.dot.origin, entry.dot.seq):",
        "else:",
        CHAOS,
    ),
    Mutant(
        "a snapshot's vector is taken as it is, not joined",
        EventLog.adopt,
        "origin not in self.retired and seq > self.seen.vector.get(origin, 0)",
        "origin not in self.retired",
        CHAOS,
    ),
    Mutant(
        "after a snapshot the log is said to begin where it did",
        EventLog.adopt,
        "self.seen.vector[origin] = self.tail.base[origin] = seq",
        "self.seen.vector[origin] = seq",
        ROLLING,
    ),
    Mutant(
        "only the first of the killed dots is killed",
        Replicated.apply,
        "entry.dot not in kills",
        "entry.dot != kills[0]",
        CHAOS,
    ),
    Mutant(
        "an added entry takes the place of concurrent ones",
        Replicated.apply,
        "tuple(sorted((*cell, entry))) if cell else (entry,)",
        "(entry,)",
        CHAOS,
    ),
    Mutant(
        "the hash forgets to take out what was there",
        Replicated._put,
        "self._digest ^= self._marks.pop(key, 0)",
        "self._marks.pop(key, 0)",
        CHAOS,
    ),
    Mutant(
        "a node takes the same number twice",
        CausalContext.take,
        "self.vector[origin] = seq",
        "self.vector[origin] = seq - seq % 2 or seq",
        CHAOS,
    ),
    Mutant(
        "an origin is retired while some have not seen its last event",
        Retiring._try,
        "p not in heard or known[origin] != last",
        "False",
        RETIREMENT,
    ),
    Mutant(
        "an origin is retired while some have seen more of it",
        Retiring._try,
        "or known[origin] != last",
        "or known[origin] < last",
        RETIREMENT,
    ),
    Mutant(
        "trap 8: an origin is retired while what it added lives",
        EventLog.retire,
        "if origin == self.origin or self.pins(origin):",
        "if origin == self.origin:",
        RETIREMENT,
    ),
    Mutant(
        "what is removed of a retired node waits for it for ever",
        EventLog._are_known,
        "or dot.seq <= retired.get(dot.origin, 0)",
        "",
        RETIREMENT,
        first_seed=1_470,
    ),
    Mutant(
        "a snapshot does not tell whom its sender has retired",
        EventLog.adopt,
        "their_seen = context_of(vector.items(), snapshot.retired)",
        "their_seen = context_of(vector.items())",
        RETIREMENT,
    ),
    Mutant(
        "an event that is known is taken for an early one",
        EventLog._take,
        "dot.seq <= last or",
        "",
        CHAOS,
    ),
    Mutant(
        "an event is applied and not logged",
        EventLog._apply_one,
        "self.tail.append(event)",
        "pass",
        CHAOS,
    ),
    Mutant(
        "nobody buries the dead",
        Retiring._try,
        "if not any(peer < log.origin for peer in peers):",
        "if False:",
        RETIREMENT,
    ),
)
