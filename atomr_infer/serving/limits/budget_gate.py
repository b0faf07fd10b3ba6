"""The gate that keeps one budget: reserves before a request, settles behind it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr.cluster.budgets import BudgetsError, BudgetTerms, Refused, Reservation
from atomr_infer.errors import BudgetExceededError, NotReadyError
from atomr_infer.model.budget import OnExceeded
from atomr_infer.policy.limits import budget_period as periods
from atomr_infer.policy.limits.budget_charge import (
    AlertLevels,
    Charges,
    UnknownCostError,
    most,
)
from atomr_infer.serving.limits.budget_holds import Beyond, Exempt, Reserved
from atomr_infer.serving.limits.gates import Outlook

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster.budgets import BudgetService
    from atomr_infer.model.budget import Budget
    from atomr_infer.policy.limits.demand import Demand
    from atomr_infer.serving.limits.gates import Hold

log = logging.getLogger(__name__)

UNKNOWN_COST = "unknown_cost"
"""The code of a request whose cost would have to be known."""

ASK_S = 2.0
"""How long a request waits for the disk and for other nodes, at most."""

SETTLES_S = 10.0
"""So long after the start others are waited for, that have to say what they know."""

WARN_ASK_S = 0.25
"""How long a request waits for a budget that only warns."""

LOOKS = 200
"""So often in a budget a node looks whether there is something to tell."""

THROTTLED_EVERY_S = 1.0
"""So often a budget that throttles lets a request through, on each node."""

AHEAD_S = 60.0
"""Another node's clock may be so far ahead, and its period is opened here too."""


class BudgetGate:
    """Keeps one budget of one owner.

    Attributes:
        owner: whose it is, as its ledgers are called.
        budget: how much it is.
        service: has the ledgers.
        charges: what requests are charged.
        unseen: units that were spent since it was looked last whether there is
            something to tell.
        look_at: with so many of them it is looked again.
    """

    is_timed = False

    def __init__(
        self,
        service: BudgetService,
        owner: str,
        budget: Budget,
        *,
        serving: Callable[[str], frozenset[tuple[str, str]]],
        called: Callable[[str], str] = str,
    ) -> None:
        """Make a gate; its first ledger is opened when it is passed.

        Args:
            service: has the ledgers.
            owner: whose it is, as its ledgers are called.
            budget: how much it is.
            serving: says which deployments serve a public name, and as which model.
            called: says what people call an owner.
        """
        self.owner = owner
        self.budget = budget
        self.service = service
        self.charges = Charges(budget)
        self._serving = serving
        self._called = called
        self._period = periods.Period("", 0.0, 0.0)
        self._ledger = ""
        self._alerts = AlertLevels(budget.alert_at)
        self._is_exceeded = False
        self._anew_at_s = float("inf")
        self._next_s = 0.0
        self._downgrades = budget.downgrade_to is not None
        self.unseen = 0
        self.look_at = budget.units / LOOKS

    @property
    def called(self) -> str:
        """Whose it is, as people are told."""
        return self._called(self.owner)

    # --- the period -------------------------------------------------------------------

    def ledger(self) -> str:
        """Return the ledger of the period that it is now, which is open.

        Raises:
            BudgetsError: it cannot be opened.
        """
        wall_s = self.service.wall_s()
        period = self._period
        is_now = period.ends_at_s is None or (
            period.begins_at_s <= wall_s < period.ends_at_s
        )
        if not (self._ledger and is_now):
            period = periods.period_at(self.budget, wall_s)
            name = periods.ledger_name(self.owner, self.budget, period)
            self.service.open(self.terms(name, period))
            if name != self._ledger:
                self._tell_anew(wall_s)
            self._period, self._ledger = period, name
        elif wall_s >= self._anew_at_s:
            self._tell_anew(wall_s)
        return self._ledger

    def _tell_anew(self, wall_s: float) -> None:
        """Forget what was told: another period has begun, or a whole window passed."""
        self._alerts = AlertLevels(self.budget.alert_at)
        self._is_exceeded = False
        rolls_s = periods.window_s(self.budget)
        self._anew_at_s = float("inf") if rolls_s is None else wall_s + rolls_s

    def terms(self, name: str, period: periods.Period) -> BudgetTerms:
        """Return the terms of a period's ledger."""
        return BudgetTerms(
            name=name,
            units=self.budget.units,
            begins_at_s=period.begins_at_s,
            ends_at_s=period.ends_at_s,
            window_s=periods.window_s(self.budget),
        )

    def find(self, name: str, wall_s: float) -> BudgetTerms | None:
        """Return the terms of a ledger that another node has opened.

        Its clock may be a little ahead or behind; one that is far off opens nothing.
        """
        for at_s in (wall_s, wall_s + AHEAD_S, wall_s - AHEAD_S):
            period = periods.period_at(self.budget, at_s)
            if periods.ledger_name(self.owner, self.budget, period) == name:
                return self.terms(name, period)
        return None

    # --- the gate ---------------------------------------------------------------------

    def outlook(self, demand: Demand) -> Outlook:
        """Say whether it can be kept to: whether anybody knows what it may cost."""
        try:
            most(self.budget, demand)
        except UnknownCostError:
            warns = self.budget.on_exceeded is OnExceeded.WARN
            return Outlook.OPEN if warns else Outlook.SHUT
        return Outlook.OPEN

    def try_enter(self, demand: Demand) -> Hold | None:
        """Reserve the most that a request may cost, if it is at hand.

        Raises:
            BudgetExceededError: there is not enough, or nobody knows what it costs.
            NotReadyError: the ledger cannot be used now.
        """
        units: int | None
        try:
            units = most(self.budget, demand)
        except UnknownCostError as error:
            self.see_unknown(error)
            units = None
        if units == 0 or (self._downgrades and self._is_other_model(demand)):
            return Exempt(self)
        try:
            ledger = self.ledger()
            if units is None:
                return Beyond(self, ledger)
            found = self.service.try_reserve(ledger, units)
        except BudgetsError as error:
            return self._unusable(error)
        if isinstance(found, Reservation):
            return Reserved(self, found)
        return None if found is None else self._exceeded(ledger, units, found)

    async def enter(self, demand: Demand, *, deadline_s: float) -> Hold:
        """Reserve the most that a request may cost; ask for it if need be.

        Raises:
            BudgetExceededError: there is not enough.
            NotReadyError: the ledger cannot be used now.

        Cancellation: nothing is held.
        """
        units = most(self.budget, demand)  # what is not known was let through in place
        try:
            ledger = self.ledger()
        except BudgetsError as error:
            return self._unusable(error)
        return await self.hold(ledger, units, units, deadline_s=deadline_s)

    async def hold(
        self, ledger: str, units: int, whole: int, *, deadline_s: float
    ) -> Hold:
        """Reserve units of a ledger; ask for them if need be.

        Args:
            ledger: of which period.
            units: how many.
            whole: the most that the request may cost, with what it holds already.
            deadline_s: when waiting is over, in trio's clock.

        Raises:
            BudgetExceededError: there is not enough.
            NotReadyError: the ledger cannot be used now.

        Cancellation: nothing is held.
        """
        wait_s = max(0.0, min(self._ask_s, deadline_s - trio.current_time()))
        try:
            found = await self.service.reserve(ledger, units, wait_s=wait_s)
        except BudgetsError as error:
            return self._unusable(error)
        if isinstance(found, Reservation):
            return Reserved(self, found)
        if found.remaining >= units or self._problem(ledger):
            return self._out_of_reach(ledger, found)
        hold = self._exceeded(ledger, whole, found)
        if hold is None:
            await self._throttled(ledger, whole, found, deadline_s)
            hold = Beyond(self, ledger)
        return hold

    def see_unknown(self, error: UnknownCostError) -> None:
        """Let through what is charged when its cost is known, as a budget may do.

        Raises:
            BudgetExceededError: it would have to be kept to.
        """
        if self.budget.on_exceeded is not OnExceeded.WARN:
            text = f"{self.called} has a budget of {self.budget}, and {error}"
            raise BudgetExceededError(text, code=UNKNOWN_COST) from error

    def _is_other_model(self, demand: Demand) -> bool:
        """Whether it is what the budget sends requests to when it is spent."""
        to = self.budget.downgrade_to
        asked = demand.deployment, demand.model
        return to is not None and asked in self._serving(to)

    @property
    def _ask_s(self) -> float:
        """How long a request may wait; at the start for a voter that starts, too."""
        if self.budget.on_exceeded is OnExceeded.WARN:
            return WARN_ASK_S
        return max(ASK_S, self.service.began_s + SETTLES_S - trio.current_time())

    def _problem(self, ledger: str) -> str | None:
        is_known = self.service.is_running and self.service.is_open(ledger)
        return self.service.state(ledger).problem if is_known else None

    def _unusable(self, error: BudgetsError) -> Hold:
        """Let a request through that is only to be told of, or refuse it for now."""
        if self.budget.on_exceeded is OnExceeded.WARN:
            # The one that it is now: the last one that was open may be another day's.
            period = periods.period_at(self.budget, self.service.wall_s())
            return Beyond(self, periods.ledger_name(self.owner, self.budget, period))
        text = f"the budget of {self.called} cannot be kept: {error}"
        raise NotReadyError(text) from error

    def _out_of_reach(self, ledger: str, refused: Refused) -> Hold:
        """Do the same where others hold what is left."""
        if self.budget.on_exceeded is OnExceeded.WARN:
            return Beyond(self, ledger)
        left = self.budget.said(refused.remaining)
        why = self._problem(ledger) or "other nodes hold it, and do not answer"
        raise NotReadyError(
            f"the budget of {self.called}, {self.budget}, has {left} left, out of reach"
            f" of this node: {why}"
        )

    # --- when there is nothing left ---------------------------------------------------

    def _exceeded(self, ledger: str, units: int, refused: Refused) -> Hold | None:
        """Do what the budget says; None: it is to be waited for.

        Raises:
            BudgetExceededError: it is refused, or another model is to be asked.
        """
        self._tell_once(refused)
        match self.budget.on_exceeded:
            case OnExceeded.WARN:
                return Beyond(self, ledger)
            case OnExceeded.THROTTLE:
                return None
            case _:
                raise self._error(units, refused)

    def _error(self, units: int, refused: Refused) -> BudgetExceededError:
        budget = self.budget
        text = (
            f"{self.called} has a budget of {budget}; {budget.said(refused.remaining)}"
            f" of it is left, and the request may cost {budget.said(units)}"
        )
        error = BudgetExceededError(text, code="budget_exceeded")
        error.downgrade_to = budget.downgrade_to
        return error

    async def _throttled(
        self, ledger: str, units: int, refused: Refused, deadline_s: float
    ) -> None:
        """Wait for a turn.

        Raises:
            BudgetExceededError: it does not come in time.
        """
        turn_s = max(trio.current_time(), self._next_s)
        if turn_s >= deadline_s:
            raise self._error(units, refused)
        self._next_s = turn_s + THROTTLED_EVERY_S
        await trio.sleep_until(turn_s + THROTTLED_EVERY_S)

    def _tell_once(self, refused: Refused) -> None:
        """Tell that it is spent; once in each period."""
        if self._is_exceeded:
            return
        self._is_exceeded = True
        log.warning(
            "the budget of %s, %s, is spent but for %s: %s",
            self.called,
            self.budget,
            self.budget.said(refused.remaining),
            _SAID[self.budget.on_exceeded],
        )
        self._emit("exceeded", remaining=refused.remaining)

    def spent(self, ledger: str) -> None:
        """Tell when a share of it is spent that the operator wants to hear of."""
        self.unseen = 0
        is_known = self.service.is_running and ledger == self._ledger
        if not (is_known and self._alerts.left):
            return
        state = self.service.state(ledger)
        share = 1.0 - state.remaining / self.budget.units if state.minted else 0.0
        level = self._alerts.passed(share)
        if level is not None:
            log.warning(
                "the budget of %s, %s: %.0f %% of it is spent",
                self.called,
                self.budget,
                100.0 * level,
            )
            self._emit("alert", share=level)

    def _emit(self, what: str, **measured: float) -> None:
        telemetry.emit(
            ("atomr_infer", "budget", what),
            measured,
            {"owner": self.owner, "budget": self.budget.kind, "ledger": self._ledger},
        )


_SAID = {
    OnExceeded.REJECT: "requests are refused",
    OnExceeded.WARN: "requests are made all the same",
    OnExceeded.THROTTLE: "requests are made one a second",
    OnExceeded.DOWNGRADE: "another model is asked",
}
