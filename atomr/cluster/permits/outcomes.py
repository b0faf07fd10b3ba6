"""What a node's part in limits tells of itself."""

from __future__ import annotations

import attrs

from atomr.gossip.escrow import Limit


@attrs.frozen
class LimitState:
    """How a limit stands on this node.

    Attributes:
        limit: its terms.
        used: permits that are locked here; of a soft limit, in all.
        waiting: how many wait for permits here.
        overrun: permits that were used beyond what was granted.
        differs: nodes that have other terms for it, or had when they were last heard
            of; nothing is lent between them.
    """

    limit: Limit
    used: int
    waiting: int
    overrun: int
    differs: tuple[str, ...] = ()
