"""Bugs that are put into the replicator on purpose."""

from __future__ import annotations

from atomr.cluster.replicator.core import Core
from atomr.cluster.replicator.shard import Shard
from atomr.gossip.replication import Replication
from tests.atomr.cluster.replicator.replicator_scenarios import SCENARIOS
from tests.atomr.gossip.mutants import Mutant

CHAOS, ROLLING, KEYS, CUT, RETURNING, BURIED = SCENARIOS

MUTANTS = (
    Mutant(
        "who is sent a part of what it lacks knows all from then on (delta_crdt_ex 65)",
        Replication._answer,
        "effects = self._send_missing(peer, known, now_s)",
        "effects = self._send_missing(peer, known, now_s);"
        " log.seen.join(type(log.seen)(dict(vector)))",
        KEYS,
    ),
    Mutant(
        "no digest is sent",
        Shard._is_needless,
        "if is_equal and ",
        "if ",
        CUT,
    ),
    Mutant(
        "a hello that was lost is not asked for while all is silent",
        Core._compare,
        "or overview.lives != lives_of(logs)",
        "",
        RETURNING,
    ),
    Mutant(
        "what a node owns is not put into the new life of its log",
        Shard.reset,
        "self._put_again(replica, before.origin)",
        "pass",
        RETURNING,
    ),
    Mutant(
        "what others have buried stays away",
        Core._take_news,
        "if shard.heal(news, is_joined=is_joined):",
        "if False:",
        BURIED,
    ),
    Mutant(
        "what a snapshot has taken away stays away",
        Shard.heal,
        "if is_joined:",
        "if False:",
        BURIED,
    ),
    Mutant(
        "what owners that are gone have put is still found",
        Core.node_of,
        "if node is None or",
        "if node is None: return owner\n    if",
        ROLLING,
    ),
    Mutant(
        "watchers are not told of an owner that comes into sight",
        Core._meet,
        "self._changes += ",
        "",
        CHAOS,
    ),
    Mutant(
        "a snapshot that was joined is not stored",
        Core._rewrite,
        "if self.journal is not None:",
        "if False:",
        CHAOS,
    ),
    Mutant(
        "a life that its node has left is never given up",
        Shard._is_overdue,
        "if is_restarted:",
        "if False:",
        ROLLING,
    ),
    Mutant(
        "a restarted node goes on under the old life of its log",
        Core.__init__,
        "Origin(node.name, new_boot())",
        "Origin(node.name, 1)",
        CHAOS,
    ),
)
