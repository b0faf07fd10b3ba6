"""What nodes tell each other of their replicas.

That one is there is replicated, and changes seldom; how much it has to do is told
over the link, often, and is forgotten.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LOADS = 4_096
"""Replicas that one node tells of in one message, at most."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A replica, as its node writes it into the replicated table.

    Attributes:
        phase: where it is in its life.
        version: the language that its node is asked in.
    """

    phase: str
    version: str


class Load(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one replica has to do.

    Attributes:
        deployment: whose it is.
        number: which one.
        outstanding: requests running and waiting.
        tokens: about how many tokens these have.
        limit: how many it runs at once.
        first_s: seconds to the first words of late; 0: nobody knows.
    """

    deployment: str
    number: int
    outstanding: int = 0
    tokens: int = 0
    limit: int = 1
    first_s: float = 0.0


class Loads(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What has changed since the last time, or all of it."""

    loads: tuple[Load, ...]


def entry_of(value: object) -> Entry | None:
    """Return what another node has written; None: another version wrote it.

    >>> entry_of({"phase": "serving", "version": "v"})
    Entry(phase='serving', version='v')
    >>> entry_of({"phase": "serving"})
    """
    try:
        return msgspec.convert(value, Entry)
    except msgspec.ValidationError:
        return None


def changed(before: Iterable[Load], now: Iterable[Load]) -> tuple[Load, ...]:
    """Return the loads that are others than before, at most ``MAX_LOADS``."""
    known = {(load.deployment, load.number): load for load in before}
    found = [x for x in now if known.get((x.deployment, x.number)) != x]
    return tuple(found[:MAX_LOADS])
