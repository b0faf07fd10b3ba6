"""What comes of asking for permits, and what the machines want done."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr.gossip.escrow.frames import Frame

if TYPE_CHECKING:
    from atomr.gossip.escrow.cooling import Batch


class Granted:
    """Permits that may be used, now.

    They count as used from here on; :meth:`Escrow.settle` gives back what was
    not.

    Attributes:
        permits: how many.
        floor: as many of them are the node's own.
        pool: the others are lent.
    """

    __slots__ = ("_floor_batch", "_pool_batch", "floor", "permits", "pool")

    def __init__(
        self,
        pool: int,
        floor: int,
        *,
        pool_batch: Batch | None,
        floor_batch: Batch | None,
    ) -> None:
        """Say where they come from; None where none do."""
        self.permits = pool + floor
        self.pool = pool
        self.floor = floor
        self._pool_batch = pool_batch
        self._floor_batch = floor_batch

    def __repr__(self) -> str:
        return f"Granted(permits={self.permits})"

    def settled(self) -> tuple[Batch | None, Batch | None]:
        """Return the batches of the lent and the own ones, the first time only.

        A second settlement must not give the same permits back again.
        """
        batches = self._pool_batch, self._floor_batch
        self._pool_batch = self._floor_batch = None
        return batches


@attrs.frozen
class Denied:
    """Not now.

    Attributes:
        retry_after_s: when it may work, from now; infinite: never, because no
            node can ever hold that many.  A hint: others ask too.
    """

    retry_after_s: float


@attrs.frozen
class Asking:
    """The home has been asked; an :class:`Answered` with this ticket follows.

    Attributes:
        ticket: tells the answers apart.
    """

    ticket: int


Outcome: TypeAlias = Granted | Denied | Asking


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
class Answered:
    """An acquire that waited has its outcome.

    Attributes:
        limit: name of the limit.
        ticket: of the :class:`Asking`.
        outcome: what became of it.
    """

    limit: str
    ticket: int
    outcome: Granted | Denied


@attrs.frozen
class Mark:
    """A line of the use log: how far the floor may be used from now on.

    Attributes:
        limit: name of the limit.
        boot: of the node's life; a life's first mark replaces those of others.
        used: total uses of the floor in this life that are allowed.
        at_s: by the clock of that life.
    """

    limit: str
    boot: int
    used: int
    at_s: float


@attrs.frozen
class Persist:
    """Write a mark and sync it; then say :meth:`Escrow.persisted`.

    Attributes:
        mark: what to write.
    """

    mark: Mark


@attrs.frozen
class TermsDiffer:
    """A fact: another node has other terms for this limit; nothing is lent.

    Attributes:
        limit: name of the limit.
        peer: who.
    """

    limit: str
    peer: str


Effect: TypeAlias = Send | Answered | Persist | TermsDiffer
