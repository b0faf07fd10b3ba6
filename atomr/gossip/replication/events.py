"""What happens to a replicator, and what it wants done or has to say.

Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs
import msgspec

from atomr.crdt import Event as LogEvent
from atomr.crdt.origin import Origin
from atomr.gossip.replication.frames import Frame

# Structs, and not attrs classes, are those of which each frame needs one: they are
# made in a tenth of the time.

# --- events -------------------------------------------------------------------------


class Received(msgspec.Struct, frozen=True, gc=False):
    """A frame has come.

    Attributes:
        sender: the life of the node that sent it; the link has made sure.
        frame: decoded.
    """

    sender: Origin
    frame: Frame


@attrs.frozen
class Woke:
    """The time of ``next_deadline_s`` has come."""


@attrs.frozen
class Wrote:
    """A replica of the log was written to."""


@attrs.frozen
class PeerUp:
    """Membership holds a node alive.

    Attributes:
        peer: its life; an earlier one of the same name is no peer any more.
    """

    peer: Origin


@attrs.frozen
class PeerDown:
    """Membership holds a node dead, or it has left.

    Attributes:
        peer: its life.
    """

    peer: Origin


@attrs.frozen
class Quorum:
    """Whether a majority of the configured voters is on our side.

    Without it no origin is retired: the other side may be the living one.

    Attributes:
        is_held: whether it is.
    """

    is_held: bool


@attrs.frozen
class Gone:
    """An origin has been dead for so long that it will not come back.

    Attributes:
        origin: to be buried, and retired when all peers know all of it.
    """

    origin: Origin


Event: TypeAlias = Received | Woke | Wrote | PeerUp | PeerDown | Quorum | Gone

# --- effects ------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a frame; should it be lost, nothing is.

    Attributes:
        to: the peer.
        frame: what to send.
    """

    to: Origin
    frame: Frame


class Applied(msgspec.Struct, frozen=True, gc=False):
    """Events of others were applied; for whoever watches keys.

    Attributes:
        events: in that order.
    """

    events: tuple[LogEvent, ...]


@attrs.frozen
class Joined:
    """A snapshot was joined: any key may have changed.

    Attributes:
        peer: who sent it.
    """

    peer: Origin


@attrs.frozen
class Diverged:
    """A peer knows the same events and holds something else: a bug, being repaired.

    Attributes:
        peer: who.
        ours: our hash.
        theirs: its hash.
    """

    peer: Origin
    ours: int
    theirs: int


@attrs.frozen
class Retired:
    """An origin was dropped from the vector.

    Attributes:
        origin: which.
    """

    origin: Origin


@attrs.frozen
class MustReset:
    """We were away too long: drop the log, and begin a new life with a new boot id.

    Attributes:
        peer: who says so; ourselves, after too long without a majority.
    """

    peer: Origin


@attrs.frozen
class Suspicious:
    """A peer sent what a sound one does not; nothing of it was used.

    Attributes:
        peer: who.
        problem: what.
    """

    peer: Origin
    problem: str


Effect: TypeAlias = (
    Send | Applied | Joined | Diverged | Retired | MustReset | Suspicious
)
