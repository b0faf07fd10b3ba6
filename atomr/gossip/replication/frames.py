"""What replicators say to each other.

::

    Push ──▶                              events that I have just made
    Digest ──▶      Events ◀──            this is what I know: what do I lack?
                    Digest ◀──            and this is what I know, as you have more
    Events ──▶
    Digest ──▶      SnapshotPart 0 ◀──    you lack more than my log holds
    AskSnapshot ──▶ SnapshotPart n ◀──
    Digest ──▶      Reset ◀──             you were away too long: start anew

Any of them may be lost, doubled, or come late; none is acknowledged.

``msgspec`` arrays: tags and field names would be most of the bytes.

Pure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from atomr.crdt.errors import MalformedError
from atomr.crdt.origin import Origin
from atomr.crdt.snapshots import Chunk, Pairs
from atomr.crdt.wire import Amount, Event
from atomr.gossip.codec import Codec

if TYPE_CHECKING:
    from atomr.crdt.event_log import EventLog


class _Frame(msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="t"):
    """Common to all frames."""


class Push(_Frame, frozen=True, array_like=True, gc=False, tag=1):
    """Events that the sender has just made.

    Attributes:
        events: in their order, without a gap.
    """

    events: tuple[Event, ...]


class Digest(_Frame, frozen=True, array_like=True, gc=False, tag=2):
    """What the sender knows.

    Attributes:
        vector: of its log.
        retired: origins that it has retired, with their last event.
        state_hash: of its entries.
        is_answer: whether it answers a digest, and so asks for none.
    """

    vector: Pairs
    retired: Pairs
    state_hash: int
    is_answer: bool


class Events(_Frame, frozen=True, array_like=True, gc=False, tag=3):
    """Some of what the receiver lacks, from the front.

    Attributes:
        events: in the order in which they can be applied.
        more: whether there is more to ask for.
    """

    events: tuple[Event, ...]
    more: bool


class AskSnapshot(_Frame, frozen=True, array_like=True, gc=False, tag=4):
    """Asks for a part of a snapshot.

    Attributes:
        snapshot: its number at the sender of the parts.
        part: from 0.
    """

    snapshot: Amount
    part: Amount


class SnapshotPart(_Frame, frozen=True, array_like=True, gc=False, tag=5):
    """A part of a snapshot.

    Attributes:
        snapshot: its number; another one is of another instant.
        chunk: the part.
    """

    snapshot: Amount
    chunk: Chunk


class Reset(_Frame, frozen=True, array_like=True, gc=False, tag=6):
    """Tells a node that its origin is retired: what it knows is no use any more.

    Attributes:
        origin: the receiver, as it calls itself.
    """

    origin: Origin


def digest_of(log: EventLog, *, is_answer: bool) -> Digest:
    """Return what a log knows, in the order of the origins.

    Args:
        log: as it is now.
        is_answer: whether it answers a digest.
    """
    vector = tuple(sorted(log.seen.vector.items()))
    retired = tuple(sorted(log.retired.items()))
    return Digest(vector, retired, log.state_hash, is_answer)


Frame: TypeAlias = Push | Digest | Events | AskSnapshot | SnapshotPart | Reset

_codec = Codec[Frame](Frame, malformed=partial(MalformedError, "a frame"))

encode = _codec.encode
"""Returns the bytes of a frame."""

decode = _codec.decode
"""Returns the frame of these bytes.

Raises:
    MalformedError: they are none.
"""
