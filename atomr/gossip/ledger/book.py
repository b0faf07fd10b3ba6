"""What a ledger knows, what it has written down, and what it may spend from.

The order is what keeps the promise.  Whatever makes this ledger's rights fewer
is on its disk before anybody profits from it: a chunk before it is spent from,
a move before the receiver is told.  So a crash can forget what is there to be
spent, and never that it was.

A chunk counts as spent when it is taken.  What is left of it when the process
dies stays spent, until somebody knows better (:meth:`Book.reconcile`).

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr.gossip.ledger.budget import MAX_UNITS
from atomr.gossip.ledger.frames import Record, Row, decode_record, encode_record
from atomr.gossip.ledger.matrix import WITHHELD, Matrix
from atomr.gossip.ledger.outcomes import Balance, Held, Persist

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr.gossip.ledger.frames import Need

_NEVER = float("inf")


class Book:
    """One ledger's state.

    Attributes:
        ledger: its id.
        matrix: all that is known; its own row may be ahead of the disk.
        frozen: heirs of lost ledgers, by ledger.
        open: units that were taken, are on the disk, and are not spent.
        taking: units that were taken and are on their way to the disk.
        low: with no less open, and
        high: no more, a settlement leaves nothing to do.
    """

    __slots__ = (
        "_doubt",
        "_durable",
        "_freezing",
        "_frozen",
        "_is_dirty",
        "_is_reconciled",
        "_seq",
        "_written",
        "frozen",
        "high",
        "ledger",
        "low",
        "matrix",
        "open",
        "taking",
    )

    def __init__(self, ledger: str, record: bytes | None) -> None:
        """Start from the file of an earlier life, or with an empty one.

        Args:
            ledger: the id, if there is no file: one that nobody ever had.
            record: what the file holds; None: there is none.

        Raises:
            msgspec.DecodeError: the file is damaged.
        """
        if record is None:
            read = Record(ledger, (Row(ledger),), {})
        else:
            read = decode_record(record)
        self.ledger = read.ledger
        self.matrix = Matrix(read.rows)
        self.frozen = dict(read.frozen)
        self.open = self.taking = self._seq = 0
        self._durable: Row | None = None if record is None else self.row
        self.low, self.high = _NEVER, -_NEVER
        self._doubt = self.row.spent - self.row.released
        self._is_dirty = record is None
        self._is_reconciled = False
        self._written: tuple[int, Row, int] | None = None
        self._frozen = self._freezing = dict(read.frozen)

    @property
    def row(self) -> Row:
        """This ledger's own row."""
        return self.matrix.rows[self.ledger]

    @property
    def rights(self) -> int:
        """What may be taken, or moved elsewhere."""
        return max(0, self.matrix.rights(self.ledger))

    @property
    def balance(self) -> Balance:
        """What there is, and what was taken of it."""
        taken = self.row.spent - self.row.released
        return Balance(self.rights, taken, self.open + self.coming)

    @property
    def told(self) -> tuple[Row, ...]:
        """What others may know: of our own row, no more than is on the disk."""
        mine = () if self._durable is None else (self._durable,)
        rows = self.matrix.rows.items()
        return mine + tuple(row for ledger, row in rows if ledger != self.ledger)

    # --- changes --------------------------------------------------------------------

    def _write(self, **cells: object) -> None:
        self.matrix.put(msgspec.structs.replace(self.row, **cells))
        self._is_dirty = True

    def mint(self, units: int) -> None:
        """Make units."""
        self._write(minted=self.row.minted + units)

    def take(self, units: int) -> None:
        """Take rights, if any, to be spent; they are open once that is on the disk."""
        if units > 0:
            self._write(spent=self.row.spent + units)
            self.taking += units

    def try_settle(self, held: Held, cost: int) -> bool:
        """End a hold if that leaves nothing to do, as it does nearly always.

        Returns:
            False: nothing was done.
        """
        opened = self.open + held.units - cost
        if not (self.low <= opened <= self.high and 0 <= cost <= held.units):
            return False
        if held.is_open:
            held.is_open = False
            self.open = opened
        return True

    def band(self, chunk: int) -> tuple[float, float]:
        """Return how much may be open without anything to take or to give back."""
        half, quarter = parts_of(chunk)
        return quarter - self.coming if self.rights else 0, half + quarter

    def release(self, units: int) -> None:
        """Give open units back."""
        self.open -= units
        self._write(released=self.row.released + units)

    def recycle(self, units: int, withheld: int) -> None:
        """Give back units that were spent; so many of them are given up."""
        self._write(released=self.row.released + units)
        self.withhold(min(withheld, units))

    def give_back(self, units: int, withheld: int) -> None:
        """Take what is left of a hold; so many units of it are given up."""
        self.open += units
        self.withhold(min(withheld, units))

    def move(self, ledger: str, units: int) -> None:
        """Give rights to another ledger."""
        moved = {**self.row.moved, ledger: self.row.moved.get(ledger, 0) + units}
        self._write(moved=moved)

    def withhold(self, units: int) -> None:
        """Give up rights, and what is open if need be; as many as there are."""
        opened = min(self.open, max(0, units - self.rights))
        if opened:
            self.release(opened)
        given = min(units, self.rights)
        if given > 0:
            self.move(WITHHELD, given)

    def lend(self, need: Need, *, waiting: int) -> None:
        """Move what another ledger needs, and of the rest half.

        Args:
            need: what it has said.
            waiting: units that are needed here.
        """
        moved = self.row.moved.get(need.ledger, 0)
        least = max(0, need.seen + need.least - moved)
        amount = max(0, need.seen + need.amount - moved)
        spare = max(0, self.rights + self.open - waiting)
        units = min(spare, max(least, min(amount, spare // 2)))
        if need.ledger in self.frozen or need.ledger == self.ledger:
            units = 0
        if units > self.rights:
            self.release(units - self.rights)
        if units:
            self.move(need.ledger, units)

    def freeze(self, ledger: str, heir: str) -> None:
        """Believe no more news of a ledger, except from its heir."""
        if self.frozen.get(ledger) != heir:
            self.frozen[ledger] = heir
            self._is_dirty = True

    def is_frozen(self, ledger: str, heir: str) -> bool:
        """Whether the disk knows that a ledger is frozen for an heir."""
        return self._frozen.get(ledger) == heir

    def heir(self, ledger: str) -> str:
        """Return the ledger that has inherited from a lost one; empty: none has."""
        row = self.matrix.rows.get(ledger)
        return "" if row is None else row.heir

    def _see_heir(self, row: Row) -> None:
        """Take note of who inherited; of a later one only if the first is lost."""
        before = self.heir(row.ledger)
        if before and before not in self.frozen:
            return
        self.freeze(row.ledger, row.heir)
        known = self.matrix.rows.get(row.ledger, row)
        self.matrix.put(msgspec.structs.replace(known, heir=row.heir))

    def inherit(self, spent: Mapping[str, int]) -> int:
        """Write lost ledgers' last rows: all that they did not spend is ours.

        What one of them spent beyond what is known to have been there came from
        another one of them, so it is taken from what that one leaves.

        Args:
            spent: what was spent at each, in total; all are frozen everywhere.

        Returns:
            How many units that is.
        """
        for ledger, units in spent.items():
            self._close_row(ledger, units)
        left = {ledger: self.matrix.rights(ledger) for ledger in spent}
        total = budget = max(0, sum(left.values()))
        for ledger, units in left.items():
            moved = max(0, min(units, budget))
            budget -= moved
            row = self.matrix.rows[ledger]
            cells = {**row.moved, self.ledger: row.moved.get(self.ledger, 0) + moved}
            self.matrix.put(msgspec.structs.replace(row, moved=cells))
        self._is_dirty = True
        return total

    def _close_row(self, ledger: str, spent: int) -> None:
        row = self.matrix.rows.get(ledger, Row(ledger))
        known = row.spent - row.released
        closed = msgspec.structs.replace(
            row,
            spent=row.spent + max(0, spent - known),
            released=row.released + max(0, known - spent),
            heir=self.ledger,
        )
        self.matrix.put(closed)

    def reconcile(self, spent: int) -> int:
        """Give back what earlier lives took and did not spend; once in a life.

        Args:
            spent: what they spent, in total, with what may still be charged.

        Returns:
            How many units that is; less than 0: more was charged than the disk
            knew of, and how many of those there are rights for.
        """
        units = self._doubt - spent
        if self._is_reconciled or not units:
            return 0
        self._is_reconciled = True
        if units > 0:
            self._write(released=self.row.released + units)
            return units
        return -self.charge(-units)

    def cover(self, excess: int) -> int:
        """Charge what a call cost beyond what was held for it.

        Returns:
            For how many units there are no rights.
        """
        opened = min(excess, self.open)
        self.open -= opened
        return excess - opened - self.charge(excess - opened)

    def charge(self, units: int) -> int:
        """Take rights for what was spent without; return how many there were."""
        taken = min(units, self.rights)
        self._write(
            spent=self.row.spent + taken, overrun=self.row.overrun + units - taken
        )
        return taken

    def news(self, rows: Iterable[Row]) -> list[Row]:
        """Return those to :meth:`merge`: most of what is told is known."""
        known = self.matrix.rows
        return [row for row in rows if row.heir or row != known.get(row.ledger)]

    def merge(self, row: Row, *, for_heir: bool = False) -> bool:
        """Take what is new in a row.

        A row that has an heir is its last: all voters agreed to that.  One that
        says more than there can be is not believed: its sum would fit no frame.

        Args:
            row: a copy of it.
            for_heir: whether the sender believes no later news of it.

        Returns:
            False if it is our own and knows more than we do: our file is old.
        """
        if not _is_possible(row):
            return True
        if row.heir:
            self._see_heir(row)
        elif row.ledger in self.frozen and not for_heir:
            return True
        minted = self.matrix.minted
        is_new = self.matrix.merge(row)
        # Should whoever minted lose its disk, some other one has to know of it.
        self._is_dirty = self._is_dirty or self.matrix.minted != minted
        return not (is_new and row.ledger == self.ledger)

    # --- the disk -------------------------------------------------------------------

    def next_persist(self) -> Persist | None:
        """Return what to write now; None: nothing, or the disk is busy."""
        if not self._is_dirty or self._written is not None:
            return None
        self._is_dirty = False
        self._seq += 1
        self._written = self._seq, self.row, self.taking
        self._freezing = dict(self.frozen)
        self.taking = 0
        record = Record(self.ledger, tuple(self.matrix.rows.values()), self.frozen)
        return Persist(self._seq, encode_record(record))

    def persisted(self, seq: int) -> bool:
        """Take note that it is on the disk; False: that is not what was written."""
        if self._written is None or self._written[0] != seq:
            return False
        _, self._durable, taken = self._written
        self._frozen = self._freezing
        self._written = None
        self.open += taken
        return True

    @property
    def coming(self) -> int:
        """Units that will be open when the disk has them."""
        written = self._written
        return self.taking if written is None else self.taking + written[2]

    @property
    def is_clean(self) -> bool:
        """Whether the disk has all."""
        return not self._is_dirty and self._written is None


def parts_of(chunk: int) -> tuple[int, int]:
    """Return half a chunk, which is taken at once, and a quarter, which is left."""
    return (chunk + 1) // 2, (chunk + 3) // 4


def _is_possible(row: Row) -> bool:
    cells = row.minted, row.spent, row.released, row.overrun, *row.moved.values()
    return max(cells) <= MAX_UNITS
