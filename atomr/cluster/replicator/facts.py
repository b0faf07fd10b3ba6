"""What a replicator wants done, what it has to say, and whom it knows.

Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs
import msgspec

from atomr.cluster.replicator.frames import Hello, Message
from atomr.crdt import Origin
from atomr.gossip.replication import Diverged, Suspicious


# A struct, as it is made for each message: in a tenth of the time.
class Tell(msgspec.Struct, frozen=True, gc=False):
    """Send a message to the replicator of another node; it may be lost.

    Attributes:
        to: the node.
        message: what to send.
        is_bulk: whether it is large, and may wait.
    """

    to: Origin
    message: Message
    is_bulk: bool = False


@attrs.frozen
class Reborn:
    """A shard has begun a new life, as peers said that the old one was away too long.

    Attributes:
        shard: its number.
        peer: who said so.
    """

    shard: int
    peer: Origin


@attrs.frozen
class Alarm:
    """Something that only a bug, or a bad peer, can bring about.

    Attributes:
        shard: its number; None: of the replicator as a whole.
        peer: whom it is about.
        fact: what it is.
    """

    shard: int | None
    peer: Origin
    fact: Diverged | Suspicious


Out: TypeAlias = Tell | Reborn | Alarm


@attrs.define
class Neighbour:
    """A node that is up.

    Attributes:
        node: in its present life.
        logs: the present life of each of its shards' logs; None: it has not said.
        is_suspect: whether the membership suspects it.
        unsaid: the hello that it is to be told; None: it was told.
        asked_at_s: when it was asked for its hello.
        compared_at_s: when its overview was looked at.
    """

    node: Origin
    logs: tuple[Origin, ...] | None = None
    is_suspect: bool = False
    unsaid: Hello | None = None
    asked_at_s: float = float("-inf")
    compared_at_s: float = float("-inf")
