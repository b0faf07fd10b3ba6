"""Ways to break the ledger of a budget, each of which the scenarios must notice."""

from __future__ import annotations

from atomr.gossip.ledger.book import Book
from atomr.gossip.ledger.ledger import Ledger
from atomr.gossip.ledger.matrix import Matrix, merged
from atomr.gossip.ledger.reclaim import Reclaim, _Attempt
from tests.atomr.gossip.ledger_scenarios import (
    CALLS_IN_A_SLOW_WRITE,
    MINT_ONLY_HEARD_OF,
    SCENARIOS,
)
from tests.atomr.gossip.mutants import Mutant

CRASHES, DISKS, LATE = SCENARIOS

MUTANTS = (
    Mutant(
        "each call adds to what is being written",
        Ledger._take,
        "min(book.rights, room, max(short, half))",
        "min(book.rights, max(short, half))",
        DISKS,
        first_seed=CALLS_IN_A_SLOW_WRITE,
    ),
    Mutant(
        "a chunk is spent from before the disk knows of it",
        Book.take,
        "self.taking += units",
        "self.open += units",
        CRASHES,
    ),
    Mutant(
        "a move is told before the disk knows of it",
        Book.told.fget,  # type: ignore[attr-defined]
        "(self._durable,)",
        "(self.row,)",
        CRASHES,
    ),
    Mutant(
        "the open chunk is open again after a crash",
        Book.__init__,
        "self.open = self.taking = self._seq = 0",
        "self.taking = self._seq = 0; self.open = 2_500 if record else 0",
        CRASHES,
    ),
    Mutant(
        "copies of a row add up",
        merged,
        "max(units, moved.get(to, 0))",
        "units + moved.get(to, 0)",
        CRASHES,
        first_seed=2,  # in others the sums grow for seconds before anybody notices
    ),
    Mutant(
        "what was moved away may be spent",
        Matrix._count,
        "own -= units",
        "own -= 0",
        CRASHES,
    ),
    Mutant(
        "what is given back stays open",
        Book.release,
        "self.open -= units",
        "pass",
        CRASHES,
    ),
    Mutant(
        "a chunk is opened with each write",
        Book.next_persist,
        "self.taking = 0",
        "pass",
        CRASHES,
    ),
    Mutant(
        "a hold that is settled twice gives back twice",
        Book.try_settle,
        "held.is_open = False",
        "pass",
        CRASHES,
    ),
    Mutant(
        "more is lent than there is",
        Book.lend,
        "units = min(spare, max(least, min(amount, spare // 2)))",
        "units = max(least, min(amount, spare // 2))",
        CRASHES,
    ),
    Mutant(
        "reconciling twice gives back twice",
        Book.reconcile,
        "self._is_reconciled = True",
        "pass",
        CRASHES,
    ),
    Mutant(
        "an heir waits for nobody",
        _Attempt.waits_for.fget,  # type: ignore[attr-defined]
        "if name not in self.agreed",
        "if name in self.agreed",
        DISKS,
    ),
    Mutant(
        "an heir does not listen to those that it asks",
        Reclaim.agreed,
        "book.merge(row, for_heir=True)",
        "pass",
        DISKS,
        first_seed=800,
    ),
    Mutant(
        "late news of a lost ledger is believed",
        Book.merge,
        "elif row.ledger in self.frozen and not for_heir:",
        "elif row.ledger in self.frozen and for_heir:",
        LATE,
    ),
    Mutant(
        "a mint that is only heard of is not written",
        Book.merge,
        "self._is_dirty or self.matrix.minted != minted",
        "self._is_dirty",
        DISKS,
        first_seed=MINT_ONLY_HEARD_OF,
    ),
    Mutant(
        "an heir inherits what was spent",
        Book._close_row,
        "spent=row.spent + max(0, spent - known)",
        "spent=row.spent",
        DISKS,
    ),
)
