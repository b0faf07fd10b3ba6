"""Holds that wait for the disk, or for rights of others, in their order.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from atomr.gossip.ledger.outcomes import Answered, Effect, Held, Refused

if TYPE_CHECKING:
    from atomr.gossip.ledger.book import Book
    from atomr.gossip.ledger.peers import Peers

_NEVER = float("inf")

MAX_WAITING = 1_024
"""Holds that wait; past that they are refused."""


@attrs.define(eq=False)
class _Waiting:
    """A hold that waits."""

    ticket: int
    units: int
    until_s: float
    began_s: float


class Calls:
    """The holds that wait at one ledger.

    Attributes:
        units: what they need together.
    """

    __slots__ = ("_book", "_budget", "_tickets", "_waiting", "units")

    def __init__(self, budget: str, book: Book) -> None:
        """Start without any."""
        self._budget = budget
        self._book = book
        self._waiting: deque[_Waiting] = deque()
        self._tickets = self.units = 0

    @property
    def is_full(self) -> bool:
        """Whether no more may wait."""
        return len(self._waiting) >= MAX_WAITING

    @property
    def next_s(self) -> float:
        """When the first is to be refused; infinite: none waits."""
        if not self._waiting:
            return _NEVER
        return min(waiting.until_s for waiting in self._waiting)

    @property
    def lacking(self) -> int:
        """Units that they need and that are not in this ledger; 0: all are."""
        if not self.units:
            return 0
        book = self._book
        here = book.open + book.coming + book.rights
        return max(0, self.units - here)

    def add(self, units: int, *, until_s: float, now_s: float) -> int:
        """Let a hold wait, and return its ticket."""
        self._tickets += 1
        self.units += units
        self._waiting.append(_Waiting(self._tickets, units, until_s, now_s))
        return self._tickets

    def answer(self, now_s: float) -> list[Effect]:
        """Give them what is open."""
        effects: list[Effect] = []
        waiting, book = self._waiting, self._book
        while waiting and waiting[0].units <= book.open and now_s < waiting[0].until_s:
            first = waiting.popleft()
            book.open -= first.units
            effects.append(self._said(first, Held(first.units)))
        return effects

    def refuse(self, now_s: float, remaining: int, peers: Peers) -> list[Effect]:
        """Refuse those whose time is up, and those whom nobody can help.

        Args:
            now_s: by the node's clock.
            remaining: units that all ledgers together may still take.
            peers: who must have said so.
        """
        effects: list[Effect] = []
        left: deque[_Waiting] = deque()
        for waiting in self._waiting:
            is_hopeless = waiting.units > remaining and peers.have_answered(
                waiting.began_s
            )
            if now_s >= waiting.until_s or is_hopeless:
                effects.append(self._said(waiting, Refused(remaining)))
            else:
                left.append(waiting)
        self._waiting = left
        return effects

    def _said(self, waiting: _Waiting, outcome: Held | Refused) -> Answered:
        self.units -= waiting.units
        return Answered(self._budget, waiting.ticket, outcome)

    def to_take(self, most: int) -> int:
        """Return what is to be taken for those whom our rights can help.

        Less than 0: so much will be open beyond what they need.

        Args:
            most: no more at once, but for one alone that needs more: a crash makes
                unavailable what is taken.
        """
        book = self._book
        lacking = -book.open - book.coming
        for waiting in self._waiting:
            needed = lacking + waiting.units
            if needed > book.rights or needed > most > waiting.units:
                break
            lacking = needed
            if lacking > most:
                break
        return lacking
