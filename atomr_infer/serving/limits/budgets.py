"""Budgets of a serving tree: which there are, and the gates that keep them.

Before a request is sent, the most that it may cost is reserved in the ledger of the
period that it is now; when it is over, the ledger is told what it did cost.  A period's
ledger is opened by the first request in it, on this node or on another one.

The ledgers are the cluster's (:mod:`atomr.cluster.budgets`): what is reserved on all
nodes together is never more than the budget, in a partition and after a crash too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from atomr import telemetry
from atomr.cluster.budgets import BudgetsError, BudgetService, BudgetTerms
from atomr_infer.errors import ModelNotFoundError
from atomr_infer.policy.limits.budget_period import ledger_name, owner_of, period_at
from atomr_infer.serving.limits.budget_gate import SETTLES_S, BudgetGate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr.cluster.budgets import Overran
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.budget import Budget, OwnedBudget
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.node import ServingNode
    from atomr_infer.serving.shared import Serving


class Budgets:
    """All budgets of a serving tree.

    Attributes:
        service: has their ledgers.
    """

    def __init__(self, serving: Serving, node: ServingNode) -> None:
        self.service = BudgetService(
            voters=node.voters, path=node.file("budgets.sqlite")
        )
        self.service.find = self._find
        self.service.on_overrun = self._overran
        node.add(self.service)
        self._serving = serving
        self._of_deployments: dict[str, tuple[BudgetGate, ...]] = {}
        self._of_owners: dict[str, tuple[BudgetGate, ...]] = {}
        self._of_keys: dict[str, tuple[BudgetGate, ...]] = {}
        self._is_passed = False
        self._began_s = time.monotonic()

    # --- which there are --------------------------------------------------------------

    def publish(self, deployments: Iterable[Deployment]) -> None:
        """Take the budgets of deployments, in place of those from before."""
        gates = self._serving.gates
        before, self._of_deployments = self._of_deployments, {}
        for deployment in deployments:
            known = before.pop(deployment.name, ())
            made = self._gates(owner_of(deployment.name), deployment.budget, known)
            for gate in set(known).difference(made):
                gates.remove_for_attempts(deployment.name, gate)
            for gate in made:
                if gate not in known:
                    gates.add_for_attempts(deployment.name, gate)
            if made:
                self._of_deployments[deployment.name] = made
        for name, gone in before.items():
            for gate in gone:
                gates.remove_for_attempts(name, gate)

    def take(self, owned: Iterable[OwnedBudget]) -> None:
        """Take the budgets of teams and virtual keys, in place of those from before."""
        owned = tuple(owned)
        self._serving.node.agreement.take_budgets(owned)
        by_owner: dict[str, list[Budget]] = {}
        for each in owned:
            by_owner.setdefault(each.owner, []).append(each.budget)
        before = self._of_owners
        self._of_owners = {
            owner: self._gates(owner, wanted, before.get(owner, ()))
            for owner, wanted in by_owner.items()
        }
        self._let_pass()

    def give(self, owner: str, budgets: Iterable[Budget]) -> None:
        """Take the budgets that a virtual key has of its own, in place of its last.

        Args:
            owner: whose they are, as ``key key_01ab...``: the same on all nodes.
            budgets: none: it has none any more.
        """
        made = self._gates(owner, budgets, self._of_keys.pop(owner, ()))
        if made:
            self._of_keys[owner] = made
            self._let_pass()

    def _let_pass(self) -> None:
        """Let requests pass these gates, from when there are some."""
        if not self._is_passed and (self._of_owners or self._of_keys):
            self._is_passed = True
            self._serving.gates.add_for_requests(self._of_asker)

    def _gates(
        self, owner: str, wanted: Iterable[Budget], known: Iterable[BudgetGate]
    ) -> tuple[BudgetGate, ...]:
        same = {gate.budget: gate for gate in known}
        return tuple(same.get(each) or self._made(owner, each) for each in wanted)

    def _made(self, owner: str, budget: Budget) -> BudgetGate:
        """Make a gate; where the period's ledger is open, it has these terms now."""
        names, called = self._serving_names, self._called
        gate = BudgetGate(self.service, owner, budget, serving=names, called=called)
        period = period_at(budget, self.service.wall_s())
        if self.service.is_open(ledger_name(owner, budget, period)):
            gate.ledger()
        return gate

    def _called(self, owner: str) -> str:
        return self._serving.key_ring.table.called(owner)

    def _of_asker(self, batch: ExecuteBatch) -> Iterable[BudgetGate]:
        """Return the budgets of who asks: its team's, and its key's."""
        asker = batch.asker
        if asker is None:
            return ()
        team = (
            () if asker.team is None else self._of_owners.get(f"team {asker.team}", ())
        )
        key = f"key {asker.key}"
        configured, own = self._of_owners.get(key, ()), self._of_keys.get(key, ())
        kinds = {gate.budget.kind for gate in configured}
        # Of the same kind they have the same ledger: the configuration's is the one.
        return (*team, *configured, *(g for g in own if g.budget.kind not in kinds))

    @property
    def gates(self) -> tuple[BudgetGate, ...]:
        """All of them: those of deployments, then those of teams and keys."""
        found: list[BudgetGate] = []
        for by_name in (self._of_deployments, self._of_owners, self._of_keys):
            for gates in by_name.values():
                found += gates
        return tuple(found)

    def _serving_names(self, model: str) -> frozenset[tuple[str, str]]:
        """Return who serves a public name, and as which model; none: nobody does."""
        try:
            route = self._serving.table.resolve(model)
        except ModelNotFoundError:
            return frozenset()
        return frozenset((each.deployment, each.model) for each in route.group)

    # --- what the service asks and tells ----------------------------------------------

    def _find(self, name: str) -> BudgetTerms | None:
        wall_s = self.service.wall_s()
        for gate in self.gates:
            if name.startswith(f"{gate.owner}/"):
                terms = gate.find(name, wall_s)
                if terms is not None:
                    return terms
        return None

    def _overran(self, fact: Overran) -> None:
        telemetry.emit(
            ("atomr_infer", "budget", "overrun"),
            {"excess": fact.excess, "uncovered": fact.uncovered},
            {"ledger": fact.budget},
        )

    def shown(self) -> list[Mapping[str, object]]:
        """Return all of them as operators look at them.

        What others have to be asked at a start is no problem before they had time to
        answer.
        """
        settled_s = time.monotonic() - self._began_s
        return [_shown(gate, is_new=settled_s < SETTLES_S) for gate in self.gates]


def _shown(gate: BudgetGate, *, is_new: bool) -> Mapping[str, object]:
    """Return one budget's present period."""
    shown: dict[str, object] = {"owner": gate.owner, "budget": str(gate.budget)}
    try:
        state = gate.service.state(gate.ledger())
    except BudgetsError as error:
        return {**shown, "problem": str(error)}
    unit = "microusd" if gate.budget.is_money else "tokens"
    return {
        **shown,
        "ledger": state.name,
        "unit": unit,
        "limit": state.units,
        "spent": state.spent,
        "remaining": state.remaining,
        "reserved": state.reserved,
        "set_aside": state.idle,
        "overrun": state.overrun,
        "problem": None if is_new else state.problem,
    }
