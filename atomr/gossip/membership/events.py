"""What happens to a membership, and what it wants done or has to say.

Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs
import msgspec

from atomr.crdt.origin import Origin
from atomr.gossip.membership.frames import Frame
from atomr.gossip.membership.member import Member

# Structs, and not attrs classes, are those of which each frame needs one: they are
# made in a tenth of the time.

# --- events -------------------------------------------------------------------------


class Received(msgspec.Struct, frozen=True, gc=False):
    """A frame has come.

    Attributes:
        sender: the address that an answer is to be sent to.
        frame: decoded; the link has made sure that its ``me`` is the peer's name.
    """

    sender: str
    frame: Frame


@attrs.frozen
class Woke:
    """The time of ``next_deadline_s`` has come."""


@attrs.frozen
class LinkReset:
    """The peer's system has closed the link: its process has probably ended.

    Attributes:
        peer: the life that the link was with; a later one is not meant.
    """

    peer: Origin


@attrs.frozen
class MetaChanged:
    """What the node says of itself elsewhere has changed.

    Attributes:
        meta: its 64-bit hash.
    """

    meta: int


@attrs.frozen
class SeedsChanged:
    """There are other addresses to join by.

    Attributes:
        seeds: all of them; the node's own among them does no harm.
    """

    seeds: tuple[str, ...]


@attrs.frozen
class Leave:
    """The node is about to stop; nothing is done for it after this."""


Event: TypeAlias = Received | Woke | LinkReset | MetaChanged | SeedsChanged | Leave


# --- effects ------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a frame; it may be lost.

    Attributes:
        to: address.
        message: the frame.
    """

    to: str
    message: Frame


@attrs.frozen
class Changed:
    """A member is no longer what it was held to be.

    Attributes:
        before: None: nothing was known of it.
        after: what is held now.
    """

    before: Member | None
    after: Member


@attrs.frozen
class Refuted:
    """Others said of this node what is not so, and were told.

    Attributes:
        accused: what they said.
        incarnation: the node's new one.
    """

    accused: Member
    incarnation: int


@attrs.frozen
class Superseded:
    """This life is over for the others: they know a later one of the same name.

    Either another process has the name, or this one's boot id was drawn from a
    clock that went back.  Nothing that this node says of itself will count until
    it starts again with a boot id above ``by``'s.

    Attributes:
        by: the later life; or this one, of which somebody says an incarnation that
            cannot be outbid.
    """

    by: Origin


@attrs.frozen
class ForeignCluster:
    """A node of another cluster has spoken to this one, and got no answer.

    Attributes:
        sender: its address.
        cluster: its id.
    """

    sender: str
    cluster: int


Effect: TypeAlias = Send | Changed | Refuted | Superseded | ForeignCluster
