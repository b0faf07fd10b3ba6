"""A ledger: one node's part of a budget.

::

    rights ──take──▶ open chunk ──hold──▶ held ──settle──▶ spent
       ▲  ▲              │                  │
       │  └───release────┘◀─────the rest────┘
       └──move── another ledger's rights

A call holds the most that it may cost, and settles at what it did cost.  What is
held comes out of an open chunk; chunks come out of this ledger's rights; rights
come from other ledgers, the richest first.  A hold waits for the disk and for
others as long as its deadline allows, and is refused at once only when all have
said that there is not enough.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.ledger.answers import Answers
from atomr.gossip.ledger.book import Book, parts_of
from atomr.gossip.ledger.budget import check_units
from atomr.gossip.ledger.calls import Calls
from atomr.gossip.ledger.frames import Frame, Freeze, Frozen, Need, Objects, Row, Rows
from atomr.gossip.ledger.outcomes import (
    Effect,
    Held,
    Outcome,
    Overran,
    Refused,
    RolledBack,
    Send,
    Waiting,
)
from atomr.gossip.ledger.peers import Peers
from atomr.gossip.ledger.reclaim import Reclaim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atomr.gossip.ledger.budget import Budget
    from atomr.gossip.ledger.outcomes import Balance

_NEVER = float("inf")

_LOW_CHUNKS = 2
"""With rights for fewer chunks than that, others are asked ahead of need."""

_ASKED_CHUNKS = 8
"""And for so many."""

_TOLD_TIMES = 3
"""A change is told again so often: it may get lost."""


class Ledger:
    """One node's part of one budget."""

    __slots__ = (
        "_answers",
        "_book",
        "_budget",
        "_calls",
        "_effects",
        "_is_wanted",
        "_next_ask_s",
        "_next_tell_s",
        "_peers",
        "_reclaim",
        "_tells",
        "_work_s",
    )

    def __init__(
        self, budget: Budget, *, name: str, ledger: str, record: bytes | None
    ) -> None:
        """Start from the file of an earlier life, or as a new ledger.

        Args:
            budget: its terms.
            name: of this node.
            ledger: the id to take where there is no file: one that nobody ever
                had, as the node's name with its boot id.
            record: what the file holds; None: there is none.

        Raises:
            msgspec.DecodeError: the file is damaged.
        """
        self._budget = budget
        self._book = Book(ledger, record)
        self._answers = Answers(budget.name, self._book)
        self._calls = Calls(budget.name, self._book)
        self._peers = Peers(budget, self._book, name=name)
        self._reclaim = Reclaim(budget, self._book)
        self._next_ask_s = -_NEVER
        self._next_tell_s = -_NEVER
        self._tells = _TOLD_TIMES
        self._is_wanted = False
        self._work_s = _NEVER
        self._effects: list[Effect] = []

    # --- what is known --------------------------------------------------------------

    @property
    def ledger(self) -> str:
        """The id, which stays when the node restarts with its file."""
        return self._book.ledger

    @property
    def remaining(self) -> int:
        """Units that all ledgers together may still take, as far as is known."""
        book = self._book
        return max(0, book.matrix.remaining + book.open + book.coming)

    @property
    def overrun(self) -> int:
        """Units charged without rights, by all ledgers, as far as is known."""
        return self._book.matrix.overrun

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows that are known, for an operator to look at."""
        return tuple(self._book.matrix.rows.values())

    @property
    def balance(self) -> Balance:
        """What this ledger itself has."""
        return self._book.balance

    # --- use ------------------------------------------------------------------------

    def mint(self, units: int, now_s: float) -> Sequence[Effect]:
        """Make units.  An operator's act: whoever repeats it doubles the budget.

        Raises:
            ValueError: ``units`` is not from 1 to 2**53.
        """
        check_units("mint(units", units, least=1)
        self._book.mint(units)
        return self._work(now_s)

    def withhold(self, units: int, now_s: float) -> Sequence[Effect]:
        """Give up what there is here of so many units, for good; at least 1."""
        self._book.withhold(units)
        return self._work(now_s)

    def hold(self, units: int, *, deadline_s: float, now_s: float) -> Outcome:
        """Set units aside for a call.

        Call :meth:`advance` at :attr:`next_deadline_s`, which is now if there is
        something to write or to ask.

        Args:
            units: the most that the call may cost, at least 1.
            deadline_s: how long it may wait, by the node's clock.
            now_s: by the node's clock.

        Raises:
            ValueError: ``units`` is not from 1 to 2**53.
        """
        check_units("hold(units", units, least=1)
        held = self.try_hold(units)
        if held is not None:
            return held
        self._is_wanted = True
        if now_s >= deadline_s or self._calls.is_full:
            return Refused(self.remaining)
        self._work_s = now_s
        return Waiting(self._calls.add(units, until_s=deadline_s, now_s=now_s))

    def try_hold(self, units: int) -> Held | None:
        """Set units aside that are at hand: by that nothing becomes due.

        Returns:
            None where there are not as many, or others wait: :meth:`hold` says more.
        """
        book = self._book
        if not 1 <= units <= book.open or self._calls.units:
            return None
        self._is_wanted = True
        book.open -= units
        return Held(units)

    def try_settle(self, held: Held, cost: int) -> bool:
        """End a hold if that leaves nothing to do; False: nothing was done."""
        return self._book.try_settle(held, cost)

    def settle(
        self, held: Held, cost: int, *, now_s: float, withheld: int = 0
    ) -> Sequence[Effect]:
        """End a hold: the call cost that much.

        A second time it does nothing.  A cost above what was held is taken from
        what there is, and where that is not enough counted as overrun.  Of what
        comes back, ``withheld`` units are given up before anybody gets them.

        Raises:
            ValueError: ``cost`` is negative, or beyond 2**53.
        """
        check_units("settle(cost", cost, least=0)
        if not held.is_open or (not withheld and self.try_settle(held, cost)):
            return ()
        held.is_open = False
        self._book.give_back(max(0, held.units - cost), withheld)
        if cost > held.units:
            excess = cost - held.units
            uncovered = self._book.cover(excess)
            self._effects.append(Overran(self._budget.name, excess, uncovered))
        return self._work(now_s)

    def close(self, now_s: float) -> Sequence[Effect]:
        """Give back what is open, before a planned end; then wait for the disk."""
        if self._book.open:
            self._book.release(self._book.open)
        self._is_wanted = False
        return self._work(now_s)

    def recycle(
        self, units: int, now_s: float, *, withheld: int = 0
    ) -> Sequence[Effect]:
        """Let units be spent again, at least 1; give ``withheld`` of them up."""
        self._book.recycle(units, withheld)
        return self._work(now_s)

    def reconcile(self, spent: int, now_s: float) -> Sequence[Effect]:
        """Say what earlier lives of this ledger spent; the rest is given back.

        Args:
            spent: units, in total, with those of calls that may still be charged;
                at least 0.  Only the first time in a life counts.
            now_s: by the node's clock.

        Raises:
            ValueError: ``spent`` is negative, or beyond 2**53.
        """
        check_units("reconcile(spent", spent, least=0)
        self._book.reconcile(spent)
        return self._work(now_s)

    def reclaim(
        self, spent: Mapping[str, int], now_s: float, *, gone: Iterable[str] = ()
    ) -> Sequence[Effect]:
        """Inherit what ledgers held whose files are lost.

        It waits for all voters but those that are gone, asking again and again.

        Args:
            spent: what each lost ledger spent in total, by its id, from whatever
                keeps account of it; too little would be spent twice.
            now_s: by the node's clock.
            gone: nodes that will not come back; their ledgers must be lost ones.

        Raises:
            ValueError: a number is negative, or beyond 2**53.
        """
        for ledger, units in spent.items():
            check_units(f"reclaim({ledger!r}", units, least=0)
        asked = tuple(sorted({*self._peers.names}.difference(gone)))
        self._effects += self._reclaim.begin(spent, asked)
        self._next_ask_s = now_s
        return self._work(now_s)

    # --- events ---------------------------------------------------------------------

    @property
    def next_deadline_s(self) -> float | None:
        """When :meth:`advance` is due; None: not before something else happens."""
        due_s = min(self._work_s, self._calls.next_s)
        if self._reclaim.is_running or (self._calls.lacking and self._peers.names):
            due_s = min(due_s, self._next_ask_s)
        if self._tells:
            due_s = min(due_s, self._next_tell_s)
        return due_s if due_s < _NEVER else None

    def start(self, now_s: float) -> Sequence[Effect]:
        """Begin; called once, before all else."""
        return self._work(now_s)

    def advance(self, now_s: float) -> Sequence[Effect]:
        """Do what is due."""
        return self._work(now_s)

    def persisted(self, seq: int, now_s: float) -> Sequence[Effect]:
        """The record of that number is on the disk."""
        if self._book.persisted(seq):
            self._effects += self._answers.take_written()
            self._tells = _TOLD_TIMES
            self._next_tell_s = now_s
        return self._work(now_s)

    def receive(self, sender: str, frame: Frame, now_s: float) -> Sequence[Effect]:
        """Handle a frame of a voter; ``sender`` is who it is known to be."""
        if sender not in self._peers.names or frame.budget != self._budget.name:
            return ()
        match frame:
            case Rows():
                self._hear(sender, frame, now_s)
            case Need():
                self._lend(sender, frame)
            case Freeze():
                answer, facts = self._reclaim.asked(sender, frame)
                self._answers.add(answer)
                self._effects += facts
            case Frozen():
                self._hear(sender, frame, now_s)
                self._reclaim.agreed(sender, frame)
            case Objects():
                self._effects += self._reclaim.objected(frame)
        return self._work(now_s)

    def _hear(self, sender: str, frame: Rows | Frozen, now_s: float) -> None:
        ledger = frame.ledger
        self._peers.heard(sender, ledger, now_s)
        for row in self._book.news(frame.rows):
            if not self._book.merge(row):
                self._effects.append(RolledBack(self._budget.name, self.ledger))
            if row.ledger == ledger and row != self._book.matrix.rows.get(ledger):
                self._answers.owe(sender)  # we know more: its file may be an old copy

    def _lend(self, sender: str, need: Need) -> None:
        """Move what a peer needs, and of the rest half; tell it in any case."""
        self._book.lend(need, waiting=self._calls.units)
        self._answers.owe(sender)

    # --- work -----------------------------------------------------------------------

    def _work(self, now_s: float) -> Sequence[Effect]:
        """Answer, take, ask and tell, as far as anything is due."""
        self._work_s = _NEVER
        self._effects += self._reclaim.finish()
        if self._calls.units:
            self._effects += self._calls.answer(now_s)
        self._take()
        if self._calls.units:
            self._effects += self._calls.refuse(now_s, self.remaining, self._peers)
        if now_s >= self._next_ask_s:
            self._ask(now_s)
        self._write(now_s)
        self._set_band()
        effects, self._effects = self._effects, []
        return effects

    def _set_band(self) -> None:
        """Say how much may be open without anything to take, give back or ask for."""
        book = self._book
        book.low, book.high = _NEVER, -_NEVER
        if not self._calls.units and not self._reclaim.is_running:
            chunk = self._budget.chunk(book.matrix.remaining + book.open)
            if not self._peers.names or book.rights >= _LOW_CHUNKS * chunk:
                book.low, book.high = book.band(chunk)

    def _take(self) -> None:
        """Take half a chunk when less is left, or what those who wait lack.

        A crash makes all of it unavailable: what settled calls gave back is released,
        and beside what is being written it is a chunk at most.
        """
        book = self._book
        chunk = self._budget.chunk(book.matrix.remaining + book.open)
        half, quarter = parts_of(chunk)
        if not self._calls.units and book.open > half + quarter:
            book.release(book.open - half)
        short = self._calls.to_take(half)
        if self._is_wanted and short > -quarter:
            room = chunk - book.open - book.coming if book.coming else book.rights
            book.take(min(book.rights, room, max(short, half)))

    def _ask(self, now_s: float) -> None:
        """Ask for rights, and those who have not agreed to a reclaim."""
        if self._reclaim.is_running:
            self._effects += self._reclaim.ask()
            self._next_ask_s = now_s + self._budget.ask_s
        book = self._book
        chunk = self._budget.chunk(book.matrix.remaining)
        least = self._calls.lacking
        is_low = self._is_wanted and book.rights < _LOW_CHUNKS * chunk
        if not self._peers.names or (not least and not is_low):
            return
        amount = max(least, _ASKED_CHUNKS * chunk)
        self._effects.append(Send(*self._peers.need(least, amount, now_s)))
        self._next_ask_s = now_s + self._budget.ask_s
        self._is_wanted = self._calls.units > 0

    def _write(self, now_s: float) -> None:
        """Write what is new; tell it when it is on the disk."""
        book = self._book
        persist = book.next_persist()
        if persist is not None:
            self._effects.append(persist)
            self._answers.written_with()
        elif book.is_clean:
            self._effects += self._answers.take_owed()
        if self._tells and now_s >= self._next_tell_s:
            self._tells -= 1
            self._next_tell_s = now_s + self._budget.ask_s
            told = self._answers.told()
            self._effects += [Send(peer, told) for peer in self._peers.names]
