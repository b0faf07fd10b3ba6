"""What replicators send each other: frames of a shard, and which life each shard is in.

::

    Hello ──▶   ◀── Hello (is_answer)     which life of each log speaks here
    Carried ──▶                           a frame of one shard's replication
    Overview ──▶                          what is known of all shards, in brief

A log's life is not its node's: a shard that has to begin anew takes a new boot id
while the node and its links live on.  So the boot ids are said in a hello, and again
with each frame: what was still under way of an earlier life is dropped.

Pure.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from atomr.crdt.wire import Amount
from atomr.gossip.replication import Digest, Frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.crdt import Origin

_encode = msgspec.msgpack.Encoder().encode


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


class Overview(_Message, frozen=True, array_like=True, gc=False, tag=3):
    """Says of all shards what the sender knows and holds: stands for their digests.

    Attributes:
        lives: stands for the boot ids of its hello: that may have been lost.
        marks: see :func:`mark_of`; of each shard, in order.
    """

    lives: int
    marks: tuple[int, ...]


Message: TypeAlias = Hello | Carried | Overview


def says_same(one: Digest | None, other: Digest) -> bool:
    """Return whether two digests are of the same events and the same entries."""
    return (
        one is not None
        and one.state_hash == other.state_hash
        and one.vector == other.vector
        and one.retired == other.retired
    )


def mark_of(digest: Digest) -> int:
    """Return 64 bits that stand for a digest: equal where :func:`says_same` holds."""
    return _hash((digest.vector, digest.retired, digest.state_hash))


def lives_of(logs: Iterable[Origin]) -> int:
    """Return 64 bits that stand for the present lives of a node's logs."""
    return _hash([log.boot for log in logs])


def _hash(value: object) -> int:
    return int.from_bytes(blake2b(_encode(value), digest_size=8).digest(), "big")
