"""How a budget stands: how its units are spread over its ledgers, as rows say it.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.gossip.ledger.matrix import WITHHELD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from atomr.gossip.ledger import Row


@attrs.frozen(kw_only=True)
class BudgetState:
    """What is known of a budget on this node.

    Attributes:
        name: its name.
        units: as its terms say.
        minted: units that were made, and not given up since; less than ``units``
            while a voter is missing, and more while some of a lowered budget are spent.
        remaining: units that all nodes together may still reserve.
        reserved: units that calls of this node hold.
        here: of those that remain, units that this node reserves without asking.
        idle: of those, units that it has taken: others count them as spent.
        overrun: units that were charged and that there were no rights for.
        problem: why less can be reserved than remains; None: nothing is wrong.
    """

    name: str
    units: int
    minted: int
    remaining: int
    reserved: int
    here: int
    idle: int
    overrun: int
    problem: str | None = None

    @property
    def spent(self) -> int:
        """Units that are spent, reserved, or set aside by other nodes."""
        return self.minted - self.remaining


def minted(rows: Iterable[Row]) -> int:
    """Return units that were made and not given up, as far as is known."""
    return sum(row.minted - row.moved.get(WITHHELD, 0) for row in rows)


def part_of(rows: Iterable[Row], ledger: str) -> int:
    """Return units that a ledger has made, but for those that it gave up."""
    return minted(row for row in rows if row.ledger == ledger)


def beyond(rows: Sequence[Row], ledger: str, *, part: int, units: int) -> int:
    """Return how many units a ledger has beyond its part, where there are too many.

    What others made and it was given counts, too: they lack it and would have to come
    for it, while a request of this node is nearer.  So does what it has spent.

    Args:
        rows: what is known.
        ledger: whose.
        part: what it is to make.
        units: what there is to be of all.

    >>> from atomr.gossip.ledger import Row
    >>> rows = [Row("a", minted=50, moved={"b": 20}), Row("b", minted=50)]
    >>> beyond(rows, "b", part=10, units=20), beyond(rows, "b", part=50, units=100)
    (60, 0)
    """
    had = 0
    for row in rows:
        if row.ledger == ledger:
            had += row.minted - sum(row.moved.values())
        else:
            had += row.moved.get(ledger, 0)
    return max(0, min(had - part, minted(rows) - units))
