"""What a node's part in budgets decides: accounts, the file, and who makes what.

All accounts are written together, when the file is free: one sync serves them all.

A voter makes its part of a budget once.  What it made is in its file; a budget that
began after the file was made is made without asking anybody.  For one that was running
by then, a majority of the voters has to have heard of no earlier file of this node: or
its part may have been made, and spent, by a life whose file is lost.

Pure: times are arguments; ``now_s`` is a monotonic clock's, ``wall_s`` is Unix time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from atomr.cluster.budgets.account import Account, Reservation
from atomr.cluster.budgets.closing import to_close
from atomr.cluster.budgets.errors import (
    BudgetsError,
    ClosedBudgetError,
    DamagedBudgetError,
    NoVoterError,
    ReclaimError,
    UnknownBudgetError,
)
from atomr.cluster.budgets.frames import Carried, Hello, Message
from atomr.cluster.budgets.kept import Kept, Stored, Write
from atomr.cluster.budgets.vouching import Vouching
from atomr.gossip.ledger import (
    Answered,
    Effect,
    Held,
    Need,
    Overran,
    Persist,
    Reclaimed,
    ReclaimFailed,
    Refused,
    RolledBack,
    Rows,
    Send,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from atomr.cluster.budgets.account import Waiter
    from atomr.cluster.budgets.parts import BudgetState
    from atomr.cluster.budgets.terms import BudgetTerms

_NEVER = float("inf")

LOOK_S = 3_600.0
"""So often it is looked for budgets that are to be closed."""

MARGIN_S = 600.0
"""A budget that begins so shortly after a file was made may be older: clocks differ."""

Fact: TypeAlias = Overran | RolledBack | Reclaimed | ReclaimFailed


class Core:
    """All budgets of one life of a node.

    Attributes:
        accounts: those that are open, by name.
        find: says the terms of a budget that a peer names and nobody here opened;
            None: it is unknown.
        facts: what is to be told, for the shell to take.
        sends: frames that are to be sent, and to whom.
        problem: why the file cannot be written; None: it can.
        next_deadline_s: when :meth:`advance` is due, or earlier; infinite: not before
            something else happens.
    """

    def __init__(self, stored: Stored, *, name: str, voters: Iterable[str]) -> None:
        self.name = name
        self.voters = tuple(sorted(voters))
        self.accounts: dict[str, Account] = {}
        self.find: Callable[[str], BudgetTerms | None] = lambda _: None
        self.facts: list[Fact] = []
        self.sends: list[tuple[str, Message]] = []
        self.problem: str | None = None
        self.next_deadline_s = _NEVER
        self._stored = stored
        self._kept = dict(stored.budgets)
        self._armed: dict[str, Account] = {}
        self._look_at_s = 0.0
        self._vouching = Vouching(stored, len(self.voters))
        self._closed_at_s = stored.closed_at_s
        self._closing: list[str] = []
        self._records: dict[str, tuple[int, Kept]] = {}
        self._is_dirty = False
        self._is_writing = False

    # --- what there is ----------------------------------------------------------------

    def account(self, name: str) -> Account:
        """Return an open one.

        Raises:
            UnknownBudgetError: there is none.
        """
        found = self.accounts.get(name)
        if found is None:
            raise UnknownBudgetError(name)
        return found

    def state(self, name: str) -> BudgetState:
        """Return what is known of a budget.

        Raises:
            UnknownBudgetError: it is not open.
        """
        account = self.account(name)
        return account.state(self.problem or self._missing(account))

    def _missing(self, account: Account) -> str | None:
        """Return why this node's part was not made; None: it was."""
        if account.own_minted or not account.terms.units or self._may_mint(account):
            return None
        known = account.heard if self._vouching.is_vouched else self._vouching.vouchers
        awaited = [v for v in self.voters if v != self.name and v not in known]
        return self._vouching.why(self.name, awaited)

    def open(
        self, terms: BudgetTerms, *, now_s: float, wall_s: float
    ) -> tuple[str, ...]:
        """Open a budget, or change one that is.

        Returns:
            Those that were closed for good instead, as their time is over.

        Raises:
            NoVoterError: this node has no part in budgets.
            ClosedBudgetError: its time has been over for long.
            DamagedBudgetError: what the file holds of it cannot be read.
        """
        if self.name not in self.voters:
            raise NoVoterError(self.name, self.voters)
        account = self.accounts.get(terms.name)
        if account is not None:
            account.terms = terms
            self._mint(account, now_s)
            return ()
        if terms.ends_at_s is not None and terms.ends_at_s <= self._closed_at_s:
            raise ClosedBudgetError(terms.name)
        if terms.name in self._stored.damaged:
            raise DamagedBudgetError(terms.name, self._stored.damaged[terms.name])
        closed = self._close_old(wall_s) if wall_s >= self._look_at_s else ()
        account = Account(
            terms,
            name=self.name,
            voters=self.voters,
            ledger=f"{self.name}/{self._stored.file}",
            kept=self._kept.get(terms.name),
        )
        account.note_past(now_s, wall_s)
        self.accounts[terms.name] = account
        self._do(account, account.ledger.start(now_s), now_s)
        self._mint(account, now_s)
        for peer in self.voters:
            self._ask_what_is_made(account, peer)
        return closed

    def _close_old(self, wall_s: float) -> tuple[str, ...]:
        """Keep nothing more of budgets that ended long ago."""
        self._look_at_s = wall_s + LOOK_S
        closed = to_close(self._kept, self.accounts, wall_s)
        for name, ends_at_s in closed.items():
            self._closed_at_s = max(self._closed_at_s, ends_at_s)
            for held in (self.accounts, self._armed, self._kept, self._records):
                held.pop(name, None)
        self._closing += closed
        self._is_dirty = self._is_dirty or bool(closed)
        return tuple(closed)

    # --- who makes what ---------------------------------------------------------------

    def _may_mint(self, account: Account) -> bool:
        """Whether it is certain that no lost file made this node's part."""
        stored = self._stored
        is_younger = account.terms.begins_at_s >= stored.made_at_s + MARGIN_S
        if is_younger or account.own_minted:
            return True
        # Voters of before may have made all of it: they say so.
        is_heard = 2 * (len(account.heard) + 1) > len(self.voters)
        return self._vouching.is_vouched and is_heard

    def _mint(self, account: Account, now_s: float) -> None:
        """Make this node's part as large as it is to be."""
        if self._may_mint(account):
            part = account.terms.share(self.name, self.voters)
            self._do(account, account.level(part, now_s), now_s)

    def peer_up(self, name: str) -> None:
        """Say hello to a node."""
        if name in self.voters and name != self.name:
            self.sends.append((name, self._vouching.hello))
            for account in self.accounts.values():
                self._ask_what_is_made(account, name)

    def _ask_what_is_made(self, account: Account, peer: str) -> None:
        """Ask a voter for nothing: the answer is all that it knows."""
        is_over = account.minted > account.terms.units  # others may have given it up
        if peer != self.name and (is_over or not self._may_mint(account)):
            ledger = account.ledger.ledger
            nothing = Need(account.terms.name, ledger, seen=0, least=0, amount=0)
            self.sends.append((peer, Carried(nothing)))

    def peer_down(self, name: str) -> None:
        """Take note that a node is out of reach."""
        self._vouching.present.pop(name, None)

    def _greeted(self, sender: str, hello: Hello, now_s: float) -> None:
        if self._vouching.greeted(sender, hello):
            for account in list(self.accounts.values()):
                self._mint(account, now_s)
        if self._vouching.asks_again(sender, hello):
            self.peer_up(sender)
        self._answer_hellos()

    def _answer_hellos(self) -> None:
        """Answer once the disk knows who said hello: it may be lost the next moment."""
        if not (self.wants_write or self._is_writing):
            self.sends += self._vouching.take_answers()

    # --- use --------------------------------------------------------------------------

    def take(self, name: str, units: int, now_s: float) -> Reservation | Refused | None:
        """Reserve what is at hand; None: others, or the disk, have to be asked.

        It raises as :meth:`ask` does.
        """
        account = self.account(name)
        found = account.take(units, now_s)
        self._arm(account)
        return found

    def ask(
        self,
        name: str,
        units: int,
        *,
        deadline_s: float,
        now_s: float,
        waiter: Waiter,
    ) -> None:
        """Reserve, and tell the waiter what became of it, by the deadline.

        Raises:
            UnknownBudgetError: the budget is not open.
            ValueError: ``units`` is not from 1 to 2**53.
        """
        account = self.account(name)
        account.ask(units, deadline_s=deadline_s, now_s=now_s, waiter=waiter)
        self._do(account, account.ledger.advance(now_s), now_s)

    def settle(
        self, account: Account, held: Held, cost: int, *, now_s: float, wall_s: float
    ) -> None:
        """End a reservation of this life; it raises as ``Ledger.settle`` does."""
        effects = account.settle(held, cost, now_s=now_s, wall_s=wall_s)
        self._do(account, effects, now_s)

    def reclaim(
        self, name: str, spent: Mapping[str, int], *, gone: Iterable[str], now_s: float
    ) -> None:
        """Begin to inherit from lost ledgers; a fact says what became of it.

        Raises:
            ReclaimError: one of them is in use.
            UnknownBudgetError: the budget is not open.
            ValueError: a number is negative, or beyond 2**53.
        """
        account = self.account(name)
        # Whoever began would believe nothing that it says any more.
        for ledger in self._vouching.in_use(self.name).intersection(spent):
            raise ReclaimError(name, ledger, "alive")
        effects = account.ledger.reclaim(spent, now_s, gone=gone)
        self._do(account, effects, now_s)

    def close(self, now_s: float) -> None:
        """Give back what is open, before a planned end; then it is to be written."""
        for account in self.accounts.values():
            self._do(account, account.ledger.close(now_s), now_s)

    # --- events -----------------------------------------------------------------------

    def receive(
        self, sender: str, message: Message, *, now_s: float, wall_s: float
    ) -> None:
        """Handle what a node said."""
        if sender not in self.voters or sender == self.name:
            return
        if isinstance(message, Hello):
            self._greeted(sender, message, now_s)
            return
        name = message.frame.budget
        account = self.accounts.get(name)
        if account is None:
            account = self._found(name, now_s=now_s, wall_s=wall_s)
        if account is not None:
            effects = account.ledger.receive(sender, message.frame, now_s)
            self._do(account, effects, now_s)
            if isinstance(message.frame, Rows):
                account.heard.add(sender)
                self._mint(account, now_s)

    def _found(self, name: str, *, now_s: float, wall_s: float) -> Account | None:
        """Open a budget that a peer is the first to use."""
        terms = self.find(name)
        if terms is None or terms.name != name:
            return None
        try:
            self.open(terms, now_s=now_s, wall_s=wall_s)
        except BudgetsError:
            return None
        return self.accounts[name]

    def advance(self, *, now_s: float, wall_s: float) -> None:
        """Do what is due."""
        for account in list(self._armed.values()):
            if account.next_s <= now_s:
                self._do(account, account.recycle(now_s, wall_s), now_s)
                account.ask_again(now_s)
                self._mint(account, now_s)
                self._do(account, account.ledger.advance(now_s), now_s)
        armed = [a for a in self._armed.values() if a.next_s < _NEVER]
        self._armed = {account.terms.name: account for account in armed}
        self.next_deadline_s = min((a.next_s for a in armed), default=_NEVER)

    def _do(self, account: Account, effects: Sequence[Effect], now_s: float) -> None:
        for effect in effects:
            match effect:
                case Send(to, frame):
                    self.sends.append((to, Carried(frame)))
                case Persist(seq, record):
                    ends_at_s = account.terms.ends_at_s
                    kept = Kept(record, ends_at_s, dict(account.spent))
                    self._records[account.terms.name] = seq, kept
                case Answered():
                    account.answered(effect, now_s)
                case _:
                    self.facts.append(effect)
        self._arm(account)

    def _arm(self, account: Account) -> None:
        next_s = account.next_s
        if next_s < _NEVER:
            self._armed[account.terms.name] = account
            # Too early does no harm: all that are armed are looked at then.
            self.next_deadline_s = min(self.next_deadline_s, next_s)

    # --- the file ---------------------------------------------------------------------

    @property
    def wants_write(self) -> bool:
        """Whether there is something to write."""
        return self._is_dirty or self._vouching.is_dirty or bool(self._records)

    def take_write(self) -> Write | None:
        """Return what is to be written now; None: nothing, or something is."""
        if self._is_writing or not self.wants_write:
            return None
        self._is_writing, self._is_dirty = True, False
        self._vouching.is_dirty = False
        records, self._records = self._records, {}
        closed, self._closing = tuple(self._closing), []
        return Write(
            is_vouched=self._vouching.is_vouched,
            closed_at_s=self._closed_at_s,
            heard=dict(self._vouching.heard),
            budgets={name: kept for name, (_, kept) in records.items()},
            closed=closed,
            numbers={name: seq for name, (seq, _) in records.items()},
        )

    def written(self, write: Write, now_s: float) -> None:
        """Take note that it is on the disk."""
        self._is_writing = False
        self.problem = None
        for name, seq in write.numbers.items():
            self._kept[name] = write.budgets[name]
            account = self.accounts.get(name)
            if account is not None:
                self._do(account, account.ledger.persisted(seq, now_s), now_s)
        self._answer_hellos()

    def not_written(self, write: Write, problem: str) -> None:
        """Take note that it is not; it is to be written again."""
        self._is_writing = False
        self._is_dirty = True
        self.problem = problem
        self._closing += write.closed
        for name in write.budgets.keys() - self._closing:
            self._records.setdefault(name, (write.numbers[name], write.budgets[name]))
