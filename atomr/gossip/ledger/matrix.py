"""The rights matrix: who may spend how much, as far as is known.

A ledger's rights are what was minted there and moved there, less what it moved
away and took to be spent, plus what it gave back.  Only the ledger itself can
make them fewer, so each may decide alone, and the sum of what is spent is never
more than what was minted.

Pure.

Source: Balegas et al., "Extending Eventually Consistent Cloud Databases for
Enforcing Numeric Invariants" (2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.ledger.frames import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


WITHHELD = "-"
"""Rights that were moved there are nobody's: the budget was lowered."""


def merged(one: Row, other: Row) -> Row:
    """Return the least row that has all that both have; the one's heir, if any.

    >>> merged(Row("a", moved={"b": 3}), Row("a", spent=2, moved={"c": 1})).moved
    {'b': 3, 'c': 1}
    """
    if one == other:
        return one
    moved = dict(one.moved)
    for to, units in other.moved.items():
        moved[to] = max(units, moved.get(to, 0))
    return Row(
        one.ledger,
        max(one.minted, other.minted),
        moved,
        max(one.spent, other.spent),
        max(one.released, other.released),
        max(one.overrun, other.overrun),
        one.heir or other.heir,
    )


class Matrix:
    """All rows that are known, by ledger; changed by :meth:`put` and no other way.

    Attributes:
        minted: units that were ever made.
        spent: units that were taken to be spent, and not given back.
        overrun: units that were charged and that there were no rights for.
    """

    __slots__ = ("_rights", "_rows", "minted", "overrun", "spent")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        """Start with these."""
        self._rows: dict[str, Row] = {}
        self._rights: dict[str, int] = {}
        self.minted = self.spent = self.overrun = 0
        for row in rows:
            self.put(row)

    @property
    def rows(self) -> Mapping[str, Row]:
        """The rows by ledger, to look at."""
        return self._rows

    def put(self, row: Row) -> None:
        """Take a row in place of what is known of its ledger."""
        before = self._rows.get(row.ledger)
        if before is not None:
            self._count(before, -1)
        self._count(row, 1)
        self._rows[row.ledger] = row

    def _count(self, row: Row, sign: int) -> None:
        """Keep the sums: they are asked for far more often than a row changes."""
        rights = self._rights
        self.minted += sign * row.minted
        self.spent += sign * (row.spent - row.released)
        self.overrun += sign * row.overrun
        own = row.minted + row.released - row.spent
        for to, units in row.moved.items():
            own -= units
            rights[to] = rights.get(to, 0) + sign * units
        rights[row.ledger] = rights.get(row.ledger, 0) + sign * own

    def merge(self, row: Row) -> bool:
        """Take what is new in a row, and return whether anything was."""
        known = self._rows.get(row.ledger)
        new = row if known is None else merged(known, row)
        if new == known:
            return False
        self.put(new)
        return True

    def rights(self, ledger: str) -> int:
        """Return what a ledger may spend or give away.

        Less than 0 for a ledger that others know more of than is known here.
        """
        return self._rights.get(ledger, 0)

    @property
    def remaining(self) -> int:
        """What all ledgers together may still take."""
        return self.minted - self.spent - self._rights.get(WITHHELD, 0)
