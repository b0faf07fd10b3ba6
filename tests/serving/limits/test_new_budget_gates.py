"""A budget that is new on a node that runs: nobody is waited for who is not there."""

from __future__ import annotations

import pytest
import trio

from atomr_infer.errors import NotReadyError
from atomr_infer.model.budget import Budget, Per
from atomr_infer.policy.limits.demand import Demand
from atomr_infer.serving.limits.budget_gate import ASK_S, SETTLES_S, BudgetGate
from tests.atomr.cluster.budgets.lab import Lab, open_lab

MORE_THAN_ITS_PART = Demand(deployment="m", model="x", output_tokens=2_000)


async def waited_s(lab: Lab) -> float:
    """Return how long a request waits for what others have, who are not there."""
    with lab.here("a"):
        budget = Budget(per=Per.MONTH, tokens=3_000)
        gate = BudgetGate(lab["a"], "key k", budget, serving=lambda _: frozenset())
        before_s = trio.current_time()
        with pytest.raises(NotReadyError, match="out of reach of this node"):
            await gate.enter(MORE_THAN_ITS_PART, deadline_s=before_s + 60.0)
    return trio.current_time() - before_s


async def test_at_the_start_a_request_waits_for_those_who_start_too(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        await lab.start("a")
        assert await waited_s(lab) == pytest.approx(SETTLES_S, abs=0.5)


async def test_later_one_of_a_new_budget_waits_no_longer_than_any_other(
    autojump_clock: object,
) -> None:
    async with open_lab("a", "b", "c") as lab:
        await lab.start("a")
        await trio.sleep(3_600.0)
        assert await waited_s(lab) == pytest.approx(ASK_S, abs=0.5)
