"""What the gate of a budget gives: units of its ledger, until the request has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr.cluster.budgets import Reservation
    from atomr_infer.policy.limits.demand import Used
    from atomr_infer.serving.limits.budget_gate import BudgetGate


class Free:
    """A hold on nothing."""

    def settle(self, used: Used) -> None:
        """Do nothing."""

    def cancel(self) -> None:
        """Do nothing."""


FREE = Free()


class Reserved:
    """Units of a ledger that a request holds."""

    __slots__ = ("_gate", "_reservation")

    def __init__(self, gate: BudgetGate, reservation: Reservation) -> None:
        self._gate = gate
        self._reservation = reservation

    def settle(self, used: Used) -> None:
        """Take what was used; where nobody knows, all that was reserved."""
        gate, reservation = self._gate, self._reservation
        units = gate.charges.units(reservation.budget, used)
        if units is None:
            units = reservation.units
        gate.service.settle(reservation, units)
        gate.unseen += units
        if gate.unseen >= gate.look_at:  # to look costs more than to reserve
            gate.spent(reservation.budget)

    def cancel(self) -> None:
        """Give all back."""
        self._gate.service.cancel(self._reservation)


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
