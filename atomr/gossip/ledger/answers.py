"""Answers that a ledger owes: they leave when the disk has what they say.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr.gossip.ledger.frames import Frame, Frozen, Row, Rows
from atomr.gossip.ledger.outcomes import Send

if TYPE_CHECKING:
    from atomr.gossip.ledger.book import Book


class Answers:
    """What one ledger is to say, and to whom; its rows are filled in when it leaves."""

    __slots__ = ("_book", "_budget", "_owed", "_rows", "_writing")

    def __init__(self, budget: str, book: Book) -> None:
        """Start without owing any."""
        self._budget = budget
        self._book = book
        self._rows = Rows(budget, book.ledger, ())
        self._owed: list[Send] = []
        self._writing: list[Send] = []

    def told(self) -> Rows:
        """Return all rows, as others may know them."""
        return Rows(self._budget, self._book.ledger, self._book.told)

    def owe(self, sender: str) -> None:
        """Answer with all rows, once the disk has ours."""
        for owed in self._owed:
            if owed.to == sender:
                return
        self._owed.append(Send(sender, self._rows))

    def add(self, answer: Send) -> None:
        """Answer with this, once the disk has what it says."""
        self._owed.append(answer)

    def written_with(self) -> None:
        """Let what is owed wait for the write that begins."""
        self._writing += self._owed
        self._owed.clear()

    def take_written(self) -> list[Send]:
        """Return what waited for the write that has ended."""
        return self._take(self._writing) if self._writing else []

    def take_owed(self) -> list[Send]:
        """Return what is owed: the disk has all."""
        return self._take(self._owed) if self._owed else []

    def _take(self, owed: list[Send]) -> list[Send]:
        told = self._book.told
        answers = [Send(each.to, _filled_in(each.message, told)) for each in owed]
        owed.clear()
        return answers


def _filled_in(frame: Frame, told: tuple[Row, ...]) -> Frame:
    """Return an answer as it is now that the disk has all."""
    if isinstance(frame, Rows | Frozen):
        return msgspec.structs.replace(frame, rows=told)
    return frame
