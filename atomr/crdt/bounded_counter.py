"""A bounded counter: units that ledgers hold, move to each other, and spend.

The state is a matrix.  ``R[i][i]`` is what was minted at ledger i, ``R[i][j]`` what i
has moved to j, ``U[i]`` what i has spent.  A ledger's rights are what was minted and
moved to it, less what it moved and spent.  All cells are cumulative, and only the
ledger of their row writes them; where two entries of a cell meet, the greater is the
later.

A ledger spends only rights that it holds, and only it can make them fewer.  What
others do can only add to them.  So each may decide alone, in any partition, and the
sum of what is spent never exceeds what was minted.

A ledger is a name that outlives restarts, as its rows do: whoever writes for it must
be the only one, and must know what it wrote before.

Pure.

Source: Balegas et al., "Extending Eventually Consistent Cloud Databases for
Enforcing Numeric Invariants", 2015.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from atomr.crdt.counters import check_amount, highest
from atomr.crdt.errors import InsufficientRightsError
from atomr.crdt.replicated import Replicated
from atomr.crdt.wire import Delta, Entry, Event, Key

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin

_RIGHTS, _SPENT = "rights", "spent"


class BoundedCounter(Replicated):
    """A counter of units that cannot be overspent.

    Units are integers; a budget counts millionths of its currency.

    >>> from atomr.crdt import Origin
    >>> a, b = BoundedCounter(Origin("a", 1)), BoundedCounter(Origin("b", 1))
    >>> b.join(a.mint("a", 100) + a.move("a", "b", amount=30) + a.spend("a", 70))
    True
    >>> b.rights("a"), b.rights("b"), bool(b.spend("b", 10)), b.remaining
    (0, 30, True, 20)
    """

    KIND: ClassVar[str] = "bounded_counter"
    __slots__ = ("_rights",)

    def __init__(self, origin: Origin | None = None, *, name: str = "") -> None:
        super().__init__(origin, name=name)
        self._rights: dict[str, int] | None = None

    def mint(self, ledger: str, amount: int) -> Delta:
        """Make new units, held by a ledger; whoever does that sets the limit.

        Raises:
            TypeError: ``amount`` is no int.
            ValueError: ``amount`` is negative.
        """
        return self._add((_RIGHTS, ledger, ledger), amount)

    def move(self, ledger: str, to: str, *, amount: int) -> Delta:
        """Give some of a ledger's units to another one.

        Raises:
            TypeError: ``amount`` is no int.
            ValueError: ``amount`` is negative, or both ledgers are the same.
            InsufficientRightsError: the ledger does not hold that many.
        """
        if ledger == to:
            raise ValueError(f"move from {ledger!r}: expected another ledger")
        self._check(ledger, amount)
        return self._add((_RIGHTS, ledger, to), amount)

    def spend(self, ledger: str, amount: int) -> Delta:
        """Spend some of a ledger's units.

        Raises:
            TypeError: ``amount`` is no int.
            ValueError: ``amount`` is negative.
            InsufficientRightsError: the ledger does not hold that many.
        """
        self._check(ledger, amount)
        return self._add((_SPENT, ledger), amount)

    def rights(self, ledger: str) -> int:
        """Return how many units a ledger holds, as far as is known here.

        Of a ledger that is written here it is what it holds, or less: others may
        have moved units to it that are still under way.
        """
        return self._all_rights().get(ledger, 0)

    def ledgers(self) -> tuple[str, ...]:
        """Return the names of all ledgers, in their order."""
        return tuple(sorted(self._all_rights()))

    def minted(self, ledger: str) -> int:
        """Return how many units were made at a ledger."""
        return self._cell((_RIGHTS, ledger, ledger))

    def moved(self, ledger: str, to: str) -> int:
        """Return how many units one ledger has given to another one."""
        return 0 if ledger == to else self._cell((_RIGHTS, ledger, to))

    def spent(self, ledger: str) -> int:
        """Return how many units a ledger has spent."""
        return self._cell((_SPENT, ledger))

    @property
    def remaining(self) -> int:
        """What all ledgers hold, as far as is known here."""
        return sum(self._all_rights().values())

    @property
    def value(self) -> int:
        """What all ledgers have spent, as far as is known here."""
        return sum(highest(c) for k, c in self._live.items() if _is_spent(k))

    def bury(self, origin: Origin) -> Delta:
        """Put a dead origin's cells under our own dots; the ledgers stay."""
        moved = Delta()
        for key, cell in list(self._live.items()):
            if any(entry.dot.origin == origin for entry in cell):
                moved += self._write(key, stamp=highest(cell))
        return moved

    def apply(self, event: Event) -> None:
        """Apply an event whose dot is new and whose killed dots were seen."""
        self._rights = None
        super().apply(event)

    def _put(self, key: Key, cell: tuple[Entry, ...], mark: int | None = None) -> None:
        self._rights = None
        super()._put(key, cell, mark)

    def _cell(self, key: Key) -> int:
        cell = self._live.get(key)
        return highest(cell) if cell else 0

    def _add(self, key: Key, amount: int) -> Delta:
        check_amount(amount)
        return self._write(key, stamp=self._cell(key) + amount) if amount else Delta()

    def _check(self, ledger: str, amount: int) -> None:
        check_amount(amount)
        held = self.rights(ledger)
        if amount > held:
            raise InsufficientRightsError(ledger, wanted=amount, held=held)

    def _all_rights(self) -> dict[str, int]:
        if self._rights is None:
            self._rights = _sum_rights(self._live)
        return self._rights


def _is_spent(key: Key) -> bool:
    return isinstance(key, tuple) and key[0] == _SPENT


def _sum_rights(cells: dict[Key, tuple[Entry, ...]]) -> dict[str, int]:
    rights: dict[str, int] = {}
    for key, cell in cells.items():
        amount = highest(cell)
        match key:
            case (kind, str(ledger)) if kind == _SPENT:
                rights[ledger] = rights.get(ledger, 0) - amount
            case (kind, str(ledger), str(to)) if kind == _RIGHTS:
                rights[to] = rights.get(to, 0) + amount
                if to != ledger:
                    rights[ledger] = rights.get(ledger, 0) - amount
    return rights
