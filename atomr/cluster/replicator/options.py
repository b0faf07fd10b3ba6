"""How a replicator divides its keys, and when it gives up those who are gone.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.core.checks import check_count, check_names, check_seconds
from atomr.gossip.replication import ReplicationOptions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

_DAY_S = 86_400.0

REPLICATION = ReplicationOptions(
    push_s=0.002, batch_events=250, batch_bytes=64 * 1024, chunk_bytes=32 * 1024
)
"""Smaller frames than the machine's own default: to apply one takes 2 ms, not 10."""

MAX_SHARDS = 1_024


def _names(names: Iterable[str]) -> frozenset[str]:
    check_names("voters", names)
    return frozenset(names)


@attrs.frozen
class ReplicatorOptions:
    """Times in seconds of the node's own clock.

    Attributes:
        shards: into how many logs the keys are divided; the same on all nodes.  A
            snapshot is joined in one go, in a millisecond for a thousand keys.
        voters: names of the nodes of which a majority must be there before a dead
            one is given up; empty: it never is, unless it came back in a new life.
        retire_after_s: a node that is dead for so long is given up: what it owned is
            dropped, and should it come back, it begins anew.
        retire_restarted_after_s: the same for a life whose node has begun another.
        quiet_s: while all is equal, one message about all shards in so long.
        max_waiting: frames of peers that wait to be handled; one more is dropped,
            and comes again.
        max_log_events: the latest that are kept for peers that lack them, of all shards
            together; who lacks more gets a snapshot of a shard.
        max_log_bytes: and what takes more than that is dropped, too.
        replication: how fast logs are compared, and how much is sent at once.

    Raises:
        TypeError: one is of another type.
        ValueError: one is too small, or there are too many shards.
    """

    shards: int = 32
    voters: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    retire_after_s: float = _DAY_S
    retire_restarted_after_s: float = 60.0
    quiet_s: float = 10.0
    max_waiting: int = 512
    max_log_events: int = 100_000
    max_log_bytes: int = 32 * 1024 * 1024
    replication: ReplicationOptions = REPLICATION

    def __attrs_post_init__(self) -> None:
        check_count("shards", self.shards, least=1)
        if self.shards > MAX_SHARDS:
            raise ValueError(f"shards={self.shards}: expected at most {MAX_SHARDS}")
        for name in ("max_waiting", "max_log_events", "max_log_bytes"):
            check_count(name, getattr(self, name), least=1)
        for name in ("retire_after_s", "retire_restarted_after_s", "quiet_s"):
            check_seconds(name, getattr(self, name), zero=False)

    def has_quorum(self, up: AbstractSet[str]) -> bool:
        """Return whether these nodes are a majority of the voters.

        >>> ReplicatorOptions(voters={"a", "b", "c"}).has_quorum({"a", "c"})
        True
        >>> ReplicatorOptions(voters={"a", "b"}).has_quorum({"a"})
        False
        """
        return not self.voters or 2 * len(self.voters & up) > len(self.voters)
