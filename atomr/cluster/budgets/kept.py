"""What a node's file holds of its budgets, and what is written to it.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import msgspec


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the file holds of one budget.

    Attributes:
        record: of its ledger.
        ends_at_s: as its terms say.
        spent: of a rolling budget, units that were spent by slot, and that may not be
            spent again yet.
    """

    record: bytes
    ends_at_s: float | None
    spent: dict[int, int]


@attrs.frozen(kw_only=True)
class Stored:
    """What a file holds.

    Attributes:
        file: its id.
        made_at_s: Unix time when it was made.
        is_vouched: whether the voters have said that it is the node's first.
        closed_at_s: budgets that ended by then are closed for good.
        heard: the first file that was heard of, by node.
        budgets: what is kept of each.
        damaged: what is wrong with those that cannot be read, by name.
    """

    file: str
    made_at_s: float
    is_vouched: bool = False
    closed_at_s: float = 0.0
    heard: Mapping[str, str] = attrs.field(factory=dict)
    budgets: Mapping[str, Kept] = attrs.field(factory=dict)
    damaged: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Write:
    """What is to be written; all of it, or nothing.

    Attributes:
        is_vouched: as in :class:`Stored`.
        closed_at_s: as in :class:`Stored`.
        heard: all of it.
        budgets: what is kept of those that changed.
        closed: budgets of which nothing is kept any more.
        numbers: of the records, for their ledgers.
    """

    is_vouched: bool
    closed_at_s: float
    heard: Mapping[str, str]
    budgets: Mapping[str, Kept]
    closed: tuple[str, ...]
    numbers: Mapping[str, int]
