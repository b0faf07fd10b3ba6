"""One budget on one node: its ledger, who waits for it, and what it made.

Pure: times are arguments; ``now_s`` is of the node's monotonic clock, ``wall_s`` is
Unix time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr.cluster.budgets.parts import BudgetState, beyond, minted, part_of
from atomr.cluster.budgets.terms import SLOTS
from atomr.gossip.ledger import (
    Answered,
    Budget,
    Held,
    Ledger,
    Overran,
    Refused,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr.cluster.budgets.kept import Kept
    from atomr.cluster.budgets.terms import BudgetTerms
    from atomr.gossip.ledger import Effect

_NEVER = float("inf")

REFUSED_S = 1.0
"""After a refusal nobody is asked again for so long for as much."""

AGAIN_S = 0.05
"""So long after a refusal it is asked again, while a part of it is not made yet."""

LOWER_S = 1.0
"""So often what a lowered budget has too much is asked for again."""

_LOWER_WAIT_S = 0.2
"""And so long it is waited for: who waits behind that is a request."""

_LOOK_S = 60.0
"""A rolling budget looks so often at the wall's clock."""


@attrs.define(eq=False)
class Reservation:
    """Units that are set aside for a call; settle or cancel it.

    Attributes:
        budget: its name.
        units: how many; the most that the call may cost.
    """

    budget: str
    units: int
    held: Held = attrs.field(repr=False)
    account: Account = attrs.field(repr=False)

    @property
    def is_open(self) -> bool:
        """Whether it was neither settled nor cancelled."""
        return self.held.is_open


Waiter: TypeAlias = "Callable[[Reservation | Refused], None]"


@attrs.frozen
class _Asked:
    """Somebody who waits for units, until a deadline."""

    units: int
    deadline_s: float
    waiter: Waiter


class Account:
    """A budget that is open on this node.

    Attributes:
        terms: what it is.
        ledger: this node's part of it.
        heard: voters that have said what they know of it, in this life.
        reserved: units that calls hold.
        settled: units that calls of this life cost, and that there were rights for.
        spent: of a rolling budget, units by slot that are not to be spent again yet.
    """

    __slots__ = (
        "_again",
        "_again_s",
        "_is_over",
        "_lower_s",
        "_lower_units",
        "_part",
        "_pulled",
        "_recycle_s",
        "_refused_s",
        "_waiting",
        "heard",
        "ledger",
        "reserved",
        "settled",
        "spent",
        "terms",
    )

    def __init__(
        self,
        terms: BudgetTerms,
        *,
        name: str,
        voters: Sequence[str],
        ledger: str,
        kept: Kept | None,
    ) -> None:
        """Open it, from the file of an earlier life or as a new one.

        Raises:
            msgspec.DecodeError: the file is damaged.
        """
        self.terms = terms
        self.ledger = Ledger(
            Budget(terms.name, tuple(voters)),
            name=name,
            ledger=ledger,
            record=None if kept is None else kept.record,
        )
        self.spent: dict[int, int] = {} if kept is None else dict(kept.spent)
        self.heard: set[str] = set()
        self.reserved = self.settled = 0
        self._recycle_s = self._lower_s = _NEVER
        self._lower_units = self._part = 0
        self._is_over = False
        self._pulled: Reservation | None = None
        self._waiting: dict[int, _Asked] = {}
        self._again: list[_Asked] = []
        self._again_s = _NEVER
        self._refused_s = -_NEVER

    # --- what is known ----------------------------------------------------------------

    @property
    def next_s(self) -> float:
        """When it is due; infinite: not before something else happens."""
        at_s = self.ledger.next_deadline_s
        own_s = min(self._recycle_s, self._again_s, self._lower_s)
        return own_s if at_s is None else min(at_s, own_s)

    @property
    def minted(self) -> int:
        """Units that were made and not given up, as far as is known."""
        return minted(self.ledger.rows)

    @property
    def own_minted(self) -> int:
        """Of those, the ones made here."""
        mine = self.ledger.ledger
        return sum(row.minted for row in self.ledger.rows if row.ledger == mine)

    @property
    def _own_part(self) -> int:
        """Units that were made here, but for those that were given up here."""
        return part_of(self.ledger.rows, self.ledger.ledger)

    def state(self, problem: str | None) -> BudgetState:
        """Return what is known of it."""
        ledger, balance = self.ledger, self.ledger.balance
        return BudgetState(
            name=self.terms.name,
            units=self.terms.units,
            minted=self.minted,
            remaining=ledger.remaining,
            reserved=self.reserved,
            here=balance.rights + balance.idle,
            idle=balance.idle,
            overrun=ledger.overrun,
            problem=problem,
        )

    # --- more or less of it -----------------------------------------------------------

    def level(self, part: int, now_s: float) -> Sequence[Effect]:
        """Make what is missing of this node's part, or give up what is too much.

        Other voters than before may have made more than their part of today, so it is
        never more than what is missing of all, or too much.
        """
        self._part = part
        effects: list[Effect] = []
        pulled, self._pulled = self._pulled, None
        if pulled is not None:
            effects += self.settle(pulled.held, 0, now_s=now_s, wall_s=0.0)
        room = self.terms.units - self.minted
        self._is_over = room < 0
        missing = min(part - self._own_part, room)
        if missing > 0:
            effects += self.ledger.mint(missing, now_s)
        else:
            effects += self._lower(min(self._own_part - part, -room), now_s)
        return effects

    def _lower(self, units: int, now_s: float) -> Sequence[Effect]:
        """Give up units: those that are here now, and what others can give of the rest.

        What nobody has any more is spent, held, or out of reach: it is asked for again.
        What calls hold is given up when it comes back (:meth:`_beyond`).
        """
        if units <= 0:
            self._lower_s, self._lower_units = _NEVER, 0
            return ()
        before = self._own_part
        effects = [*self.ledger.withhold(units, now_s)]
        left = units - (before - self._own_part)
        self._lower_s = _NEVER if left <= 0 else now_s + LOWER_S
        wanted = min(left, self.ledger.remaining, self._lower_units or left)
        if wanted > 0 and not self._waiting:
            self._lower_units = wanted
            self._ask(_Asked(wanted, now_s + _LOWER_WAIT_S, self._take_pulled), now_s)
        return effects

    @property
    def _beyond(self) -> int:
        """Units that are given up when they come back, before anybody gets them."""
        if not self._is_over:
            return 0
        rows, mine = self.ledger.rows, self.ledger.ledger
        return beyond(rows, mine, part=self._part, units=self.terms.units)

    def _take_pulled(self, outcome: Reservation | Refused) -> None:
        """Take note of what others gave; of less than was asked for, half may do."""
        if isinstance(outcome, Reservation):
            self._pulled, self._lower_s, self._lower_units = outcome, -_NEVER, 0
        else:
            self._lower_units = (self._lower_units + 1) // 2

    # --- use --------------------------------------------------------------------------

    def take(self, units: int, now_s: float) -> Reservation | Refused | None:
        """Reserve what is at hand; None: others, or the disk, have to be asked."""
        outcome = self.ledger.hold(units, deadline_s=now_s, now_s=now_s)
        if isinstance(outcome, Held):
            return self._reserved(outcome)
        if now_s < self._refused_s and units > self.ledger.remaining:
            return Refused(self.ledger.remaining)
        return None

    def try_take(self, units: int) -> Reservation | None:
        """Reserve what is at hand; None: :meth:`take` says more."""
        held = self.ledger.try_hold(units)
        if held is None:
            return None
        self.reserved += units
        return Reservation(self.terms.name, units, held, self)

    def ask(
        self, units: int, *, deadline_s: float, now_s: float, waiter: Waiter
    ) -> None:
        """Reserve, and tell the waiter what became of it, perhaps at once."""
        self._ask(_Asked(units, deadline_s, waiter), now_s)

    def _ask(self, asked: _Asked, now_s: float) -> None:
        outcome = self.ledger.hold(
            asked.units, deadline_s=asked.deadline_s, now_s=now_s
        )
        if isinstance(outcome, Waiting):
            self._waiting[outcome.ticket] = asked
        else:
            self._tell(asked, outcome, now_s)

    def answered(self, fact: Answered, now_s: float) -> None:
        """Tell who waited."""
        self._tell(self._waiting.pop(fact.ticket), fact.outcome, now_s)

    def _tell(self, asked: _Asked, outcome: Held | Refused, now_s: float) -> None:
        again_s = now_s + AGAIN_S
        is_made = self.minted >= self.terms.units
        if isinstance(outcome, Held) or is_made or again_s > asked.deadline_s:
            asked.waiter(self._judge(outcome, now_s))
            return
        # All voters have nothing, but one has not made its part yet.
        self._again.append(asked)
        self._again_s = min(self._again_s, again_s)

    def ask_again(self, now_s: float) -> None:
        """Ask for those who were refused while a part of it was not made yet."""
        if now_s < self._again_s:
            return
        again, self._again, self._again_s = self._again, [], _NEVER
        for asked in again:
            self._ask(asked, now_s)

    def _judge(self, outcome: Held | Refused, now_s: float) -> Reservation | Refused:
        if isinstance(outcome, Held):
            return self._reserved(outcome)
        self._refused_s = now_s + REFUSED_S
        return outcome

    def _reserved(self, held: Held) -> Reservation:
        self.reserved += held.units
        return Reservation(self.terms.name, held.units, held, self)

    def try_settle(self, held: Held, cost: int, wall_s: float) -> bool:
        """End a reservation if that leaves nothing to do.

        Returns:
            False: nothing was done; :meth:`settle` does what is to be done.
        """
        slot = None if self.terms.window_s is None else int(wall_s // self._slot_s)
        if slot is not None and cost and slot not in self.spent:
            return False  # it is to be planned when that comes back
        if self._is_over:
            return False  # of what comes back some is nobody's
        if not (held.is_open and self.ledger.try_settle(held, cost)):
            return False
        self.reserved -= held.units
        self.settled += cost
        if slot is not None and cost:
            self.spent[slot] += cost
        return True

    def settle(
        self, held: Held, cost: int, *, now_s: float, wall_s: float
    ) -> Sequence[Effect]:
        """End a reservation; a second time it does nothing."""
        if not held.is_open:
            return ()
        self.reserved -= held.units
        withheld = self._beyond
        effects = self.ledger.settle(held, cost, now_s=now_s, withheld=withheld)
        facts = [fact for fact in effects if isinstance(fact, Overran)]
        covered = cost - sum(fact.uncovered for fact in facts)
        self.settled += covered
        self._note(covered, now_s, wall_s)
        return effects

    # --- a rolling window -------------------------------------------------------------

    @property
    def _slot_s(self) -> float:
        assert self.terms.window_s is not None
        return self.terms.window_s / SLOTS

    def _note(self, units: int, now_s: float, wall_s: float) -> None:
        if self.terms.window_s is not None and units:
            slot = int(wall_s // self._slot_s)
            self.spent[slot] = self.spent.get(slot, 0) + units
            self._plan(now_s, wall_s)

    def note_past(self, now_s: float, wall_s: float) -> None:
        """Take what earlier lives took, and nobody gave account of, for spent now."""
        past = self.ledger.balance.taken - sum(self.spent.values())
        self._note(past, now_s, wall_s)
        self._plan(now_s, wall_s)

    def recycle(self, now_s: float, wall_s: float) -> Sequence[Effect]:
        """Let what was spent a window ago be spent again."""
        window_s = self.terms.window_s
        if window_s is None:
            return ()
        over = [s for s in self.spent if (s + 1) * self._slot_s + window_s <= wall_s]
        units = sum(self.spent.pop(slot) for slot in over)
        self._plan(now_s, wall_s)
        if not units:
            return ()
        return self.ledger.recycle(units, now_s, withheld=self._beyond)

    def _plan(self, now_s: float, wall_s: float) -> None:
        """Set when something comes back; the wall's clock may be set meanwhile."""
        self._recycle_s = _NEVER
        if self.terms.window_s is not None and self.spent:
            back_at_s = (min(self.spent) + 1) * self._slot_s + self.terms.window_s
            wait_s = min(max(back_at_s - wall_s, 0.001), _LOOK_S)
            self._recycle_s = now_s + wait_s
