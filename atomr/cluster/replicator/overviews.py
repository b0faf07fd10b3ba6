"""One message for all shards that says what a node knows, from time to time.

While all agree no digest is sent: whoever has said that it holds the same learns
nothing from another one.  That both still do is found out here, in one message for
all shards and in ten seconds; of a shard that differs, the digest follows.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.replicator.facts import Neighbour, Tell
from atomr.cluster.replicator.frames import Overview, lives_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from atomr.cluster.replicator.options import ReplicatorOptions
    from atomr.cluster.replicator.shard import Shard
    from atomr.gossip.membership.draw import Draw
    from atomr.gossip.replication import Effect

COMPARE_S = 0.5
"""Overviews of a peer are looked at no more often: each costs as much as a round."""


class Overviews:
    """Those of one replicator.

    Attributes:
        at_s: when the next one is due.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        options: ReplicatorOptions,
        *,
        draw: Draw,
        now_s: float,
    ) -> None:
        self._shards = shards
        self._options = options
        self._draw = draw
        # Nodes that start together shall not speak together for ever.
        self.at_s = now_s + options.quiet_s * (0.5 + draw.random() / 2)

    def due(self, neighbours: Iterable[Neighbour], now_s: float) -> list[Tell]:
        """Return what is to be told now."""
        if now_s < self.at_s:
            return []
        self.at_s = now_s + self._options.quiet_s
        known = [n for n in neighbours if n.logs is not None]
        fanout = min(self._options.replication.fanout, len(known))
        lives = lives_of(shard.origin for shard in self._shards)
        overview = Overview(lives, tuple([shard.mark for shard in self._shards]))
        return [Tell(n.node, overview) for n in self._draw.sample(known, fanout)]

    def compare(
        self, neighbour: Neighbour, overview: Overview, now_s: float
    ) -> Iterator[tuple[Shard, list[Effect]]]:
        """Return what follows from a neighbour's, shard by shard.

        Args:
            neighbour: whose logs are known.
            overview: of as many shards as there are here.
            now_s: our clock.
        """
        if now_s - neighbour.compared_at_s < COMPARE_S:
            return
        neighbour.compared_at_s = now_s
        logs = neighbour.logs or ()
        for shard, log, mark in zip(self._shards, logs, overview.marks, strict=True):
            is_equal = mark == shard.mark
            yield shard, shard.compare(log, is_equal=is_equal, now_s=now_s)
