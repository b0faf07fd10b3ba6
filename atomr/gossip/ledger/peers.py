"""Whom to ask for rights: what is known of the other nodes.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.ledger.frames import Need, Row

if TYPE_CHECKING:
    from atomr.gossip.ledger.book import Book
    from atomr.gossip.ledger.budget import Budget

_NEVER = float("inf")


class Peers:
    """The other voters.

    Attributes:
        names: of them, in their order.
    """

    __slots__ = ("_asked_s", "_book", "_budget", "_heard_s", "_where", "names")

    def __init__(self, budget: Budget, book: Book, *, name: str) -> None:
        """Start without having heard of any."""
        self.names = tuple(voter for voter in budget.voters if voter != name)
        self._budget = budget
        self._book = book
        self._where: dict[str, str] = {}
        self._heard_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}

    def heard(self, name: str, ledger: str, now_s: float) -> None:
        """Take note of a sign of life, and of the ledger that is there."""
        self._where[name] = ledger
        self._heard_s[name] = now_s

    def have_answered(self, since_s: float) -> bool:
        """Whether all were asked since then, and have answered."""
        asked_s, heard_s = self._asked_s, self._heard_s
        return all(
            since_s <= asked_s.get(name, -_NEVER) <= heard_s.get(name, -_NEVER)
            for name in self.names
        )

    def need(self, least: int, amount: int, now_s: float) -> tuple[str, Need]:
        """Return whom to ask, and what; there must be somebody."""
        book = self._book
        name = max(self.names, key=lambda name: self._worth(name, now_s))
        self._asked_s[name] = now_s
        there = self._where.get(name, "")
        seen = book.matrix.rows.get(there, Row(there)).moved.get(book.ledger, 0)
        return name, Need(self._budget.name, book.ledger, seen, least, amount)

    def _worth(self, name: str, now_s: float) -> tuple[bool, int, float]:
        """The richest first, but not the same again before the others."""
        asked_s = self._asked_s.get(name, -_NEVER)
        is_due = now_s >= asked_s + len(self.names) * self._budget.ask_s
        rights = self._book.matrix.rights(self._where.get(name, ""))
        return is_due, max(0, rights), -asked_s
