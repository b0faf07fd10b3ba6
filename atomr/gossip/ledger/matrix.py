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
    from collections.abc import Iterable


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
    """All rows that are known, by ledger."""

    __slots__ = ("rows",)

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        """Start with these."""
        self.rows = {row.ledger: row for row in rows}

    def merge(self, row: Row) -> bool:
        """Take what is new in a row, and return whether anything was."""
        known = self.rows.get(row.ledger)
        new = row if known is None else merged(known, row)
        self.rows[row.ledger] = new
        return new != known

    def rights(self, ledger: str) -> int:
        """Return what a ledger may spend or give away.

        Less than 0 for a ledger that others know more of than is known here.
        """
        row = self.rows.get(ledger)
        given = sum(other.moved.get(ledger, 0) for other in self.rows.values())
        if row is None:
            return given
        gone = sum(row.moved.values()) + row.spent
        return row.minted + given + row.released - gone

    @property
    def minted(self) -> int:
        """All units that were ever made."""
        return sum(row.minted for row in self.rows.values())

    @property
    def spent(self) -> int:
        """All units that were taken to be spent, and not given back."""
        return sum(row.spent - row.released for row in self.rows.values())

    @property
    def remaining(self) -> int:
        """What all ledgers together may still take."""
        return self.minted - self.spent

    @property
    def overrun(self) -> int:
        """Units that were charged and that there were no rights for."""
        return sum(row.overrun for row in self.rows.values())
