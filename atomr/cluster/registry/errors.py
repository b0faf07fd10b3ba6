"""What becomes of a process whose name another one has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.errors import AtomrError

if TYPE_CHECKING:
    from atomr.refs import Pid


class NameConflictError(AtomrError):
    """The exit reason of a process whose name turned out to be another one's.

    Two nodes had given the same name while they did not know of each other.  The
    process that had it first keeps it.

    Attributes:
        registry: the registry's name.
        key: the name.
        winner: who keeps it.
    """

    def __init__(self, registry: str, key: object, winner: Pid) -> None:
        self.registry = registry
        self.key = key
        self.winner = winner
        super().__init__(f"{registry}[{key!r}]: {winner!r} had that name before")
