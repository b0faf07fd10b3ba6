"""What nodes say to each other of who is there.

Each frame carries the cluster's id and the sender's own record, so whoever hears
a node knows it, and updates about others, which ride along.

::

    Ping ──▶            Ack ◀──          is it there?
    PingRequest ──▶     Ack or Nack ◀──  would you ask it for me?
    Gossip ──▶                           updates only
    Digest ──▶          Table ◀──        is your table mine?  If not, here is mine
    Table ──▶           Table ◀──        the whole table; the first asks for yours

``msgspec`` arrays: tags and field names would be most of the bytes.

Pure.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from atomr.crdt.origin import Origin
from atomr.errors import AtomrError
from atomr.gossip.codec import Codec
from atomr.gossip.membership.member import Member, Text

Word = Annotated[int, msgspec.Meta(ge=0)]
"""64 bits, as msgpack has no more."""

Updates: TypeAlias = tuple[Member, ...]


class FrameError(AtomrError):
    """Bytes that are no frame; the link that they came by is to be closed."""


class _Frame(msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="t"):
    """What each frame begins with.

    Attributes:
        cluster: id of the cluster; one of another is not answered.
        me: the sender's record.
        updates: what it tells of others.
    """

    cluster: Word
    me: Member
    updates: Updates


class Ping(_Frame, frozen=True, array_like=True, gc=False, tag=1):
    """Asks a node for an :class:`Ack`.

    Attributes:
        number: comes back in the answer; 0: nobody waits for one.
        target: the node's name, as addresses change hands.
    """

    number: int
    target: Text


class Ack(_Frame, frozen=True, array_like=True, gc=False, tag=2):
    """Says that a node has answered: the sender, or one that it was asked to ping.

    Attributes:
        number: of the ping, or of the request.
        target: who has answered.
    """

    number: int
    target: Origin


class PingRequest(_Frame, frozen=True, array_like=True, gc=False, tag=3):
    """Asks a node to ping another one.

    Attributes:
        number: comes back in the answer.
        target: whom; a node that does not know it answers that it got no answer,
            rather than dial whatever address it is given.
    """

    number: int
    target: Origin


class Nack(_Frame, frozen=True, array_like=True, gc=False, tag=4):
    """Says that a node that was to be pinged has not answered yet.

    It shows that the link to the helper is well, so the blame is the target's.

    Attributes:
        number: of the request.
    """

    number: int


class Gossip(_Frame, frozen=True, array_like=True, gc=False, tag=5):
    """Carries updates and asks for nothing."""


class Digest(_Frame, frozen=True, array_like=True, gc=False, tag=6):
    """Asks for a table if it is another one than this stands for.

    Attributes:
        digest: 64-bit hash of the sender's table.
    """

    digest: Word


class Table(_Frame, frozen=True, array_like=True, gc=False, tag=7):
    """Carries all that the sender knows, as its updates.

    Attributes:
        wants: whether the sender wants the receiver's table too.
    """

    wants: bool


Frame: TypeAlias = Ping | Ack | PingRequest | Nack | Gossip | Digest | Table

_codec = Codec[Frame](Frame, malformed=FrameError)

encode = _codec.encode
"""Returns the bytes of a frame."""

decode = _codec.decode
"""Returns the frame of these bytes.

Raises:
    FrameError: they are none, or a field is beyond its bounds.
"""
