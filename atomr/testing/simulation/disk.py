"""A disk that keeps what was synced, and of the rest whatever it likes.

A crash keeps a prefix of the records that were appended after the last
:meth:`Disk.sync`: the length is drawn, and so is everything in between nothing
and all.  A lost disk is a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence


class Disk:
    """An append-only file of records, each whole or absent."""

    __slots__ = ("_pending", "_synced")

    def __init__(self) -> None:
        """Start empty."""
        self._synced: list[bytes] = []
        self._pending: list[bytes] = []

    def append(self, record: bytes) -> None:
        """Write a record, which a crash may lose until :meth:`sync`."""
        self._pending.append(record)

    def sync(self) -> None:
        """Make what was written survive a crash."""
        self._synced += self._pending
        self._pending.clear()

    def rewrite(self, records: Sequence[bytes]) -> None:
        """Take these instead of all that is there, at once and synced.

        That is what writing a second file and renaming it comes to.
        """
        self._synced = list(records)
        self._pending.clear()

    @property
    def records(self) -> list[bytes]:
        """What a reader would find now, oldest first."""
        return [*self._synced, *self._pending]

    def crash(self, draw: random.Random) -> None:
        """Lose some of what was not synced."""
        if self._pending:
            kept = draw.randrange(len(self._pending) + 1)
            self._synced += self._pending[:kept]
            self._pending.clear()
