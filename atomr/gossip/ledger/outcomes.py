"""What comes of asking for a part of a budget, and what a ledger wants done."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from atomr.gossip.ledger.frames import Frame


@attrs.define(eq=False)
class Held:
    """Units that are set aside for a call; :meth:`Ledger.settle` ends it.

    Attributes:
        units: how many; the most that the call may cost.
        is_open: whether it has not been settled.
    """

    units: int
    is_open: bool = True


@attrs.frozen
class Waiting:
    """The units have to be written down first, or come from elsewhere.

    An :class:`Answered` with this ticket follows, by the deadline.

    Attributes:
        ticket: tells the answers apart.
    """

    ticket: int


@attrs.frozen
class Refused:
    """The budget does not allow it.

    Attributes:
        remaining: units that all ledgers together may still take, as far as is
            known here; not all of them may be within reach.
    """

    remaining: int


@attrs.frozen
class Balance:
    """What one ledger has.

    Attributes:
        rights: units that it may take, or move to others.
        taken: units that it took and did not give back, in all its lives.
        idle: of those taken, units that nobody holds or spent.
    """

    rights: int
    taken: int
    idle: int


Outcome: TypeAlias = Held | Waiting | Refused


# --- effects ------------------------------------------------------------------------


@attrs.frozen
class Send:
    """Send a frame; it may be lost.

    Attributes:
        to: name of the node.
        message: the frame.
    """

    to: str
    message: Frame


@attrs.frozen
class Persist:
    """Write this instead of what the file holds, sync it, say ``persisted``.

    Attributes:
        seq: what to say; at most one of them is under way.
        record: the whole file.
    """

    seq: int
    record: bytes


@attrs.frozen
class Answered:
    """A hold that waited has its outcome.

    Attributes:
        budget: its name.
        ticket: of the :class:`Waiting`.
        outcome: what became of it.
    """

    budget: str
    ticket: int
    outcome: Held | Refused


@attrs.frozen
class Overran:
    """A fact, and an alarm: a call cost more than was held for it.

    Attributes:
        budget: its name.
        excess: units beyond what was held.
        uncovered: of these, units that there were no rights for here.
    """

    budget: str
    excess: int
    uncovered: int


@attrs.frozen
class RolledBack:
    """A fact, and an alarm: this ledger's file is older than what others saw.

    It was restored from a copy.  What was spent since may be spent again.

    Attributes:
        budget: its name.
        ledger: whose file it is.
    """

    budget: str
    ledger: str


@attrs.frozen
class Reclaimed:
    """A fact: lost ledgers' rights have been inherited.

    A crash before the next ``persisted`` undoes it; then it has to be asked for
    again.  It holds once some other node's ``rows`` name the heir.

    Attributes:
        budget: its name.
        lost: the ledgers.
        units: how much it was.
    """

    budget: str
    lost: tuple[str, ...]
    units: int


@attrs.frozen
class ReclaimFailed:
    """A fact: lost ledgers' rights cannot be inherited.

    Attributes:
        budget: its name.
        lost: the ledger that stands in the way.
        reason: ``alive``, ``also lost``, or the ledger that inherits already.
    """

    budget: str
    lost: str
    reason: str


Effect: TypeAlias = (
    Send | Persist | Answered | Overran | RolledBack | Reclaimed | ReclaimFailed
)
