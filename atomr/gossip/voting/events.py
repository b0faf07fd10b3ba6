"""What happens to an election, and what it wants done or has to say."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import attrs
import msgspec

from atomr.gossip.voting.frames import Frame

# Structs, and not attrs classes, are those of which each frame needs one: they are
# made in a tenth of the time.

# --- events -------------------------------------------------------------------------


class Received(msgspec.Struct, frozen=True, gc=False):
    """A frame has come.

    Attributes:
        sender: name of the node, as its link proves it.
        frame: decoded.
    """

    sender: str
    frame: Frame


@attrs.frozen
class Woke:
    """The time of ``next_deadline_s`` has come."""


@attrs.frozen
class Stand:
    """The node wants the lease from now on."""


@attrs.frozen
class Leave:
    """The node does not want the lease any more; a holder hands it over.

    Attributes:
        heir: name of the node that shall have it; empty: whoever is first.
    """

    heir: str = ""


@attrs.frozen
class Stopped:
    """What this node did as the holder has ended; nothing of it runs."""


Event: TypeAlias = Received | Woke | Stand | Leave | Stopped


# --- effects ------------------------------------------------------------------------


class Why(Enum):
    """Why a holder has to stop."""

    NO_MAJORITY = "no majority answers"
    LEAVING = "this node leaves"


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a frame; it may be lost.

    Attributes:
        to: name of the node.
        message: the frame.
    """

    to: str
    message: Frame


@attrs.frozen
class Won:
    """This node holds the lease from now on.

    Attributes:
        epoch: greater than that of any earlier holder; goes with the work, so that
            who is worked upon can refuse what comes late.
        heir_of: name of the node that handed it over, where the first try sufficed;
            empty: nobody did.
    """

    epoch: int
    heir_of: str = ""


@attrs.frozen
class Stop:
    """End the work, then say :class:`Stopped`.

    Attributes:
        epoch: of the term.
        why: what is the matter.
    """

    epoch: int
    why: Why


@attrs.frozen
class Lost:
    """The lease has ended, so what still runs of the work must not take a step.

    Attributes:
        epoch: of the term.
    """

    epoch: int


@attrs.frozen
class TermsDiffer:
    """A fact: a voter has other terms for this lease, and gives no vote.

    Attributes:
        voter: who.
    """

    voter: str


Effect: TypeAlias = Send | Won | Stop | Lost | TermsDiffer
