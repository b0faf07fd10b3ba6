"""Who made an event: a node in one of its lives, and the dots it hands out.

A node that restarts has forgotten which numbers it gave out.  If it counted on
under its old name, two events could carry the same dot, and one of them would be
taken for already seen.  So each start takes a new 64-bit boot id, and an
:class:`Origin` is never used again.

Both are ``msgspec`` structs, not ``attrs`` classes: they are in every message,
and hashed and compared for every event.

Pure: the boot id is drawn by whoever starts the node.
"""

from __future__ import annotations

import msgspec

BOOT_BITS = 64
"""Drawn at random, two of a million starts of one name agree with p < 1e-7."""


class Origin(
    msgspec.Struct,
    frozen=True,
    order=True,
    array_like=True,
    gc=False,
    cache_hash=True,
):
    """One life of one node.

    Attributes:
        name: of the node; the same after a restart.
        boot: of this life; 0 <= boot < 2**64, new at every start.

    >>> Origin("ams-1", 7) < Origin("ams-1", 8) < Origin("fra-1", 1)
    True
    """

    name: str
    boot: int

    def __str__(self) -> str:
        return f"{self.name}#{self.boot:x}"


class Dot(
    msgspec.Struct,
    frozen=True,
    order=True,
    array_like=True,
    gc=False,
):
    """One event of an origin; the dot of what it added.

    Attributes:
        origin: who made it.
        seq: counts the events of the origin, from 1 and without gaps.
    """

    origin: Origin
    seq: int
