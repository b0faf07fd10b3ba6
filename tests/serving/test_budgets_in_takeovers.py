"""What a request that goes on elsewhere may cost is held before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.batch import Sampling
from atomr_infer.model.budget import Budget, OnExceeded, OwnedBudget, Per
from atomr_infer.model.deployment import RetryPolicy, Serving
from atomr_infer.model.failover import Fallback, FallbackReason, HedgePolicy
from atomr_infer.model.prices import Price, Rates
from tests.serving.acts import cut, fails, says
from tests.serving.test_groups_at_gates import DAY, PRICE, SHORT, WEB, answers, deploy

if TYPE_CHECKING:
    from tests.serving.conftest import OpenTree, Tree

DEAR = Price(rates=Rates(input=100, output=100))
FAILS = fails(errors.UpstreamError("500"))
SPARE = Serving(weight=0)
NOTHING = Price(rates=Rates(input=0, output=0))


def team(**more: Any) -> OwnedBudget:
    return OwnedBudget(team="web", budget=Budget(**{"per": Per.DAY, **more}))


def shown(tree: Tree) -> dict[str, object]:
    """Return the team's budget as it stands."""
    [budget] = (b for b in tree.serving.budgets.shown() if b["owner"] == "team web")
    return dict(budget)


async def test_a_fallback_without_a_price_is_not_asked(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "free", serves=["free"])
        to = (Fallback(to="free"),)
        await deploy(tree, "cheap", *[FAILS] * 10, price=PRICE, fallbacks=to)
        tree.serving.budgets.take([OwnedBudget(team="web", budget=DAY)])
        with pytest.raises(errors.UpstreamError) as refused:
            await answers(tree, 1, asker=WEB)
        assert refused.value.message == (
            "500; 'free' did not take over: team web has a budget of $0.01 per day, and"
            " nobody knows what 'x' costs; write [deployment.price] for 'free', or"
            " install 'atomr-infer[prices]', which has many"
        )
        assert await answers(tree, 1) == ["free"]
        tree.serving.budgets.take([team(usd="0.01", on_exceeded=OnExceeded.WARN)])
        assert await answers(tree, 1, asker=WEB) == ["free"]


async def test_of_who_is_not_written_for_a_failure_nothing_is_said(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "free", serves=["free"])
        to = (Fallback(to="free", on=frozenset({FallbackReason.TIMEOUT})),)
        await deploy(tree, "cheap", FAILS, price=PRICE, fallbacks=to)
        tree.serving.budgets.take([OwnedBudget(team="web", budget=DAY)])
        with pytest.raises(errors.UpstreamError) as refused:
            await answers(tree, 1, asker=WEB)
        assert refused.value.message == "500"


async def test_one_behind_an_unpriced_fallback_takes_over(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "free", serves=["free"])
        await deploy(tree, "b", serves=["b"], price=PRICE)
        to = (Fallback(to="free"), Fallback(to="b"))
        await deploy(tree, "cheap", FAILS, price=PRICE, fallbacks=to)
        tree.serving.budgets.take([OwnedBudget(team="web", budget=DAY)])
        assert await answers(tree, 1, asker=WEB) == ["b"]


async def test_many_that_go_on_to_a_dear_one_spend_no_more_than_the_budget(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "cheap", *[FAILS] * 100, price=PRICE)
        dear = [says("dear")] * 100
        await deploy(tree, "dear", *dear, price=DEAR, serving=SPARE)
        tree.serving.budgets.take([team(usd="0.02")])
        answered: list[str] = []
        refused: list[str] = []

        async def one() -> None:
            try:
                answered.extend(await answers(tree, 1, asker=WEB))
            except errors.InferenceError as error:
                refused.append(error.message)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)
        assert answered
        assert len(answered) + len(refused) == 100
        assert "'dear' did not take over: team web has a budget of" in refused[-1]
        budget = shown(tree)
        assert budget["overrun"] == 0
        assert budget["reserved"] == 0
        assert 0 < budget["spent"] <= 20_000  # type: ignore[operator]


async def test_a_single_one_does_not_go_on_where_there_is_no_room(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "cheap", *[FAILS] * 2, price=PRICE)
        await deploy(tree, "dear", price=DEAR, serving=SPARE)
        small, large = team(usd="0.0005"), team(usd="1", per=Per.HOUR)
        # Of the larger one nothing stays held when the smaller has no room.
        tree.serving.budgets.take([large, small])
        with pytest.raises(errors.UpstreamError, match="'dear' did not take over"):
            await answers(tree, 1, asker=WEB)
        for budget in tree.serving.budgets.shown():
            assert budget["reserved"] == budget["spent"] == 0
        tree.serving.budgets.take([large])
        assert await answers(tree, 1, asker=WEB) == ["dear"]
        assert shown(tree)["overrun"] == 0


async def test_what_costs_nothing_first_is_charged_where_it_goes_on(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "own", *[FAILS] * 2, price=NOTHING)
        await deploy(tree, "dear", price=DEAR, serving=SPARE)
        tree.serving.budgets.take([team(usd="1")])
        assert await answers(tree, 1, asker=WEB) == ["dear"]
        budget = shown(tree)
        assert budget["spent"] > 0  # type: ignore[operator]
        assert budget["reserved"] == 0
        tree.serving.budgets.take([team(usd="0.001")])
        with pytest.raises(errors.UpstreamError, match="'dear' did not take over"):
            await answers(tree, 1, asker=WEB)


async def test_a_budget_that_only_warns_lets_a_dear_one_take_over(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "cheap", FAILS, price=PRICE)
        await deploy(tree, "dear", price=DEAR, serving=SPARE)
        tree.serving.budgets.take([team(usd="0.0003", on_exceeded=OnExceeded.WARN)])
        assert await answers(tree, 1, asker=WEB) == ["dear"]
        assert shown(tree)["reserved"] == 0


@pytest.mark.parametrize(
    ("usd", "who"), [("0.003", "cheap"), ("10", "dear")], ids=["no room", "room"]
)
async def test_a_hedge_is_made_where_the_budget_has_room_for_both(
    open_tree: OpenTree, autojump_clock: object, usd: str, who: str
) -> None:
    late = says("cheap", before_s=9.0)
    hedge = HedgePolicy(after_s=2.0, max_fraction=1.0)
    to = (Fallback(to="dear"),)
    async with open_tree() as tree:
        await deploy(tree, "dear", serves=["dear"], price=DEAR)
        await deploy(tree, "cheap", late, price=PRICE, hedge=hedge, fallbacks=to)
        tree.serving.budgets.take([team(usd=usd)])
        await tree.ask(model="dear", sampling=Sampling(max_tokens=1), asker=WEB)
        assert await answers(tree, 1, asker=WEB) == [who]
        assert shown(tree)["reserved"] == shown(tree)["overrun"] == 0


@pytest.mark.parametrize(("usd", "is_made"), [("0.009", False), ("1", True)])
async def test_what_was_used_before_it_was_cut_is_held_beside_the_next_try(
    open_tree: OpenTree, autojump_clock: object, usd: str, is_made: bool
) -> None:
    async with open_tree() as tree:
        again = RetryPolicy(max_attempts=2)
        acts = cut("a word " * 40, error=errors.StreamCutError("cut")), says("whole")
        await deploy(tree, "m", *acts, price=DEAR, retry=again)
        tree.serving.budgets.take([team(usd=usd)])
        if is_made:
            asked = await tree.ask(model="x", sampling=SHORT, asker=WEB, stream=False)
            assert asked.texts[-1] == "whole"
        else:
            with pytest.raises(errors.BudgetExceededError):
                await tree.ask(model="x", sampling=SHORT, asker=WEB, stream=False)
        assert shown(tree)["overrun"] == shown(tree)["reserved"] == 0
