"""What the gate of a budget gives: units of its ledger, until the request has ended.

A request that goes on elsewhere may cost more than it would have where it began: what
it holds grows before the next deployment is asked.  What is added is a reservation of
its own, of the same ledger, that ends together with the first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr.cluster.budgets import BudgetsError, Reservation
from atomr_infer.errors import InferenceError
from atomr_infer.policy.limits.budget_charge import UnknownCostError, at_least, most

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr_infer.policy.limits.demand import Demand, Used
    from atomr_infer.serving.limits.budget_gate import BudgetGate
    from atomr_infer.serving.limits.gates import Hold

    Undo = Callable[[], None]


log = logging.getLogger(__name__)


def _nothing() -> None:
    """Undo what was not done."""


class Exempt:
    """A request that costs the budget nothing where it is asked now."""

    __slots__ = ("_gate", "_hold")

    def __init__(self, gate: BudgetGate) -> None:
        self._gate = gate
        self._hold: Hold | None = None

    def settle(self, used: Used) -> None:
        """Take what was used, if it went on where that costs something."""
        if self._hold is not None:
            self._hold.settle(used)

    def cancel(self) -> None:
        """Give back what it holds, if it does."""
        if self._hold is not None:
            self._hold.cancel()

    def try_grow(self, demand: Demand) -> Undo | None:
        """Hold what a second attempt may cost, in place; see :class:`Reserved`."""
        if self._hold is None:
            return self._take(self._gate.try_enter(demand))
        hold = self._hold
        return hold.try_grow(demand) if isinstance(hold, Reserved) else _nothing

    async def grow(self, demand: Demand, used: Used, *, deadline_s: float) -> Undo:
        """Hold what the next attempt may cost; see :class:`Reserved`."""
        undo = _nothing
        if self._hold is None:
            hold = self._gate.try_enter(demand)
            if hold is None:
                hold = await self._gate.enter(demand, deadline_s=deadline_s)
            taken = self._take(hold)
            assert taken is not None, "it was entered"
            undo = taken
        if isinstance(self._hold, Reserved):
            try:
                more = await self._hold.grow(demand, used, deadline_s=deadline_s)
            except BaseException:
                undo()
                raise
            return undo if undo is not _nothing else more
        return undo

    def _take(self, hold: Hold | None) -> Undo | None:
        if hold is None:
            return None
        if isinstance(hold, Exempt):
            return _nothing
        self._hold = hold

        def undo() -> None:
            self.cancel()
            self._hold = None

        return undo


class Reserved:
    """Units of a ledger that a request holds.

    Attributes:
        reservation: those that it began with.
    """

    __slots__ = ("_gate", "_more", "reservation")

    def __init__(self, gate: BudgetGate, reservation: Reservation) -> None:
        self._gate = gate
        self.reservation = reservation
        self._more: list[Reservation] | None = None

    @property
    def units(self) -> int:
        """How many it holds."""
        return self.reservation.units + sum(each.units for each in self._more or ())

    def settle(self, used: Used) -> None:
        """Take what was used; where nobody knows, all that was reserved."""
        gate, reservation = self._gate, self.reservation
        units = gate.charges.units(reservation.budget, used)
        if units is None:
            units = self.units
        left = units
        if self._more is not None:
            for more in self._more:
                part = min(more.units, left)
                gate.service.settle(more, part)
                left -= part
        gate.service.settle(reservation, left)
        gate.unseen += units
        if gate.unseen >= gate.look_at:  # to look costs more than to reserve
            gate.spent(reservation.budget)

    def cancel(self) -> None:
        """Give all back."""
        for more in self._more or ():
            self._gate.service.cancel(more)
        self._gate.service.cancel(self.reservation)

    # --- more of it -------------------------------------------------------------------

    def try_grow(self, demand: Demand) -> Undo | None:
        """Hold what a second attempt may cost beside the first, if it is at hand.

        Returns:
            What gives it back; None: it is not at hand, or there is not enough.

        Raises:
            BudgetExceededError: nobody knows what it may cost.
        """
        gate = self._gate
        units = self._most(demand)
        if not units:
            return _nothing
        try:
            found = gate.service.try_reserve(self.reservation.budget, units)
        except BudgetsError:
            return None  # a request can do without a second attempt
        return self._add(found) if isinstance(found, Reservation) else None

    async def grow(self, demand: Demand, used: Used, *, deadline_s: float) -> Undo:
        """Hold what the next attempt may cost, beside what was used so far.

        Args:
            demand: the most that the next attempt may use.
            used: by those before it; where its cost is not known, it may be all that
                is held.
            deadline_s: when waiting is over, in trio's clock.

        Returns:
            What gives back what was added.

        Raises:
            BudgetExceededError: there is not enough, or nobody knows what it may cost.
            NotReadyError: the ledger cannot be used now.

        Cancellation: nothing is added.
        """
        gate, held = self._gate, self.units
        units = self._most(demand)
        if not units:
            return _nothing
        spent = at_least(gate.budget, used)
        whole = units + (held if spent is None else spent)
        if whole <= held:
            return _nothing
        ledger = self.reservation.budget
        hold = await gate.hold(ledger, whole - held, whole, deadline_s=deadline_s)
        # What a budget lets through beyond it is charged at the end, as an overrun.
        return self._add(hold.reservation) if isinstance(hold, Reserved) else _nothing

    def _most(self, demand: Demand) -> int:
        """Return what an attempt may take; 0: nothing, or nobody has to know."""
        try:
            return most(self._gate.budget, demand)
        except UnknownCostError as error:
            self._gate.see_unknown(error)
            return 0

    def _add(self, reservation: Reservation) -> Undo:
        if self._more is None:
            self._more = []
        more = self._more
        more.append(reservation)

        def undo() -> None:
            more.remove(reservation)
            self._gate.service.cancel(reservation)

        return undo


class Beyond:
    """A request that is made though there is nothing left: it is charged at its end."""

    __slots__ = ("_gate", "_ledger")

    def __init__(self, gate: BudgetGate, ledger: str) -> None:
        self._gate = gate
        self._ledger = ledger

    def settle(self, used: Used) -> None:
        """Take what was used."""
        units = self._gate.charges.units(self._ledger, used)
        if units:
            self._gate.service.charge(self._ledger, units)

    def cancel(self) -> None:
        """Do nothing: nobody was asked."""


async def grow_all(
    holds: Iterable[Hold], demand: Demand, used: Used, *, deadline_s: float
) -> None:
    """Let all budgets among some holds hold what the next attempt may cost, or none.

    Args:
        holds: what the gates of a request gave.
        demand: the most that the next attempt may use.
        used: by those before it.
        deadline_s: when waiting is over, in trio's clock.

    Raises:
        BudgetExceededError: a budget has not enough, or nobody knows the cost.
        NotReadyError: a ledger cannot be used now.

    Cancellation: nothing is added.
    """
    undos: list[Undo] = []
    try:
        for hold in holds:
            if isinstance(hold, Reserved | Exempt):
                undo = await hold.grow(demand, used, deadline_s=deadline_s)
                undos.append(undo)
    except BaseException:
        for undo in undos:
            undo()
        raise


def try_grow_all(holds: Iterable[Hold], demand: Demand) -> bool:
    """Let all budgets hold what a second attempt may cost beside the first, or none.

    Returns:
        False where one of them has not enough at hand.
    """
    undos: list[Undo] = []
    try:
        for hold in holds:
            if isinstance(hold, Reserved | Exempt):
                undo = hold.try_grow(demand)
                if undo is None:
                    break
                undos.append(undo)
        else:
            return True
    except InferenceError as error:
        log.debug("no second attempt: %s", error)
    for undo in undos:
        undo()
    return False
