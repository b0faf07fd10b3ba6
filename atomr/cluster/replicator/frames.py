"""What replicators send each other: frames of a shard, and which life each shard is in.

::

    Hello ──▶   ◀── Hello (is_answer)     which life of each log speaks here
    Carried ──▶                           a frame of one shard's replication

A log's life is not its node's: a shard that has to begin anew takes a new boot id
while the node and its links live on.  So the boot ids are said in a hello, and again
with each frame: what was still under way of an earlier life is dropped.

Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from atomr.crdt.wire import Amount
from atomr.gossip.replication import Digest, Frame


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="t"):
    """Common to all messages."""


class Hello(_Message, frozen=True, array_like=True, gc=False, tag=1):
    """Says which lives the sender's logs are in.

    Attributes:
        boots: of each shard's log, in order; as many as there are shards.
        is_answer: whether it answers a hello, and so asks for none.
    """

    boots: tuple[int, ...]
    is_answer: bool


class Carried(_Message, frozen=True, array_like=True, gc=False, tag=2):
    """A frame of one shard.

    Attributes:
        shard: its number.
        boot: the life of the sender's log.
        frame: what it says.
    """

    shard: Amount
    boot: int
    frame: Frame


Message: TypeAlias = Hello | Carried


def says_same(one: Digest | None, other: Digest) -> bool:
    """Return whether two digests are of the same events and the same entries."""
    return (
        one is not None
        and one.state_hash == other.state_hash
        and one.vector == other.vector
        and one.retired == other.retired
    )
