"""Which deployment of a group is asked, where limits or budgets keep some from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.cluster.permits import UNKNOWN
from atomr_infer import errors
from atomr_infer.errors import BudgetExceededError
from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import Sampling
from atomr_infer.model.budget import Budget, OnExceeded, OwnedBudget, Per
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.rate_limits import LimitMode, OnLimit, RateLimits
from tests.serving.acts import Act, Player, fails, says

if TYPE_CHECKING:
    from tests.serving.conftest import OpenTree, Tree

PRICE = Price(rates=Rates(input=1, output=1))
SHORT = Sampling(max_tokens=50)
WEB = Asker("key_1", team="web")
DAY = Budget(per=Per.DAY, usd="0.01")
ONCE = RateLimits(requests_per_minute=1)


async def deploy(tree: Tree, name: str, *acts: Act, **more: Any) -> None:
    once = RetryPolicy(max_attempts=1)
    given: dict[str, Any] = {"serves": ["x"], "retry": once, **more}
    tree.lab.plan = [Player(list(acts) or [says(name)] * 10)]
    deployment = Deployment(
        name=name,
        runtime="lab",
        options={"endpoint": name},
        **given,
    )
    await tree.serving.deploy(deployment)


async def answers(tree: Tree, count: int, **more: Any) -> list[str]:
    """Ask the group as often, and return who answered."""
    asked = [await tree.ask(model="x", sampling=SHORT, **more) for _ in range(count)]
    return ["".join(each.texts) for each in asked]


# --- a budget that has to know what a request may cost --------------------------------


async def test_a_budget_sends_requests_to_those_whose_price_is_known(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "free")
        await deploy(tree, "a", price=PRICE)
        await deploy(tree, "b", price=PRICE)
        tree.serving.budgets.take([OwnedBudget(team="web", budget=DAY)])
        assert sorted(await answers(tree, 4, asker=WEB)) == ["a", "a", "b", "b"]
        # It is of the budget's requests alone that somebody is left out.
        assert "free" in await answers(tree, 3)


async def test_what_has_no_price_takes_over_from_nobody(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "a", fails(errors.UpstreamError("500")), price=PRICE)
        await deploy(tree, "free")
        tree.serving.budgets.take([OwnedBudget(team="web", budget=DAY)])
        with pytest.raises(errors.UpstreamError):
            await answers(tree, 1, asker=WEB)


async def test_a_group_without_a_price_is_refused_with_all_its_names(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "a")
        await deploy(tree, "b")
        tree.serving.budgets.take([OwnedBudget(team="web", budget=DAY)])
        with pytest.raises(BudgetExceededError) as refused:
            await answers(tree, 1, asker=WEB)
        assert refused.value.code == "unknown_cost"
        assert refused.value.message == (
            "team web has a budget of $0.01 per day, and nobody knows what 'x' costs;"
            " write [deployment.price] for 'a', or install 'atomr-infer[prices]', which"
            " has many; the same is so of 'b', beside it"
        )


async def test_a_budget_that_only_warns_asks_those_without_a_price_too(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    warns = Budget(per=Per.DAY, usd="0.01", on_exceeded=OnExceeded.WARN)
    async with open_tree() as tree:
        await deploy(tree, "a", price=PRICE)
        await deploy(tree, "free")
        tree.serving.budgets.take([OwnedBudget(team="web", budget=warns)])
        assert sorted(await answers(tree, 2, asker=WEB)) == ["a", "free"]


async def test_a_downgrade_asks_those_whose_price_is_known(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    cheaper = Budget(
        per=Per.DAY,
        usd="0.00001",
        on_exceeded=OnExceeded.DOWNGRADE,
        downgrade_to="x",
    )
    async with open_tree() as tree:
        await deploy(tree, "free")
        await deploy(tree, "a", price=PRICE)
        await deploy(tree, "dear", serves=["dear"], price=PRICE)
        tree.serving.budgets.take([OwnedBudget(team="web", budget=cheaper)])
        for _ in range(2):
            asked = await tree.ask(model="dear", sampling=SHORT, asker=WEB)
            assert asked.texts == ["a"]


# --- a rate limit that has no room ----------------------------------------------------


@pytest.mark.parametrize("mode", list(LimitMode))
async def test_one_whose_limit_is_used_up_is_asked_when_all_are(
    open_tree: OpenTree, autojump_clock: object, mode: LimitMode
) -> None:
    limits = RateLimits(requests_per_minute=1, mode=mode)
    async with open_tree() as tree:
        await deploy(tree, "a", rate_limits=limits)
        await deploy(tree, "b", rate_limits=RateLimits(requests_per_minute=3))
        began_s = trio.current_time()
        assert await answers(tree, 4) == ["a", "b", "b", "b"]
        assert trio.current_time() == began_s
        await answers(tree, 1)
        assert trio.current_time() - began_s > 60.0


async def test_a_window_that_is_withheld_after_a_crash_is_not_waited_for(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        tree.serving.limits.announced.past = UNKNOWN
        await deploy(tree, "a", rate_limits=RateLimits(requests_per_minute=100))
        await deploy(tree, "b")
        began_s = trio.current_time()
        assert await answers(tree, 3) == ["b"] * 3
        assert trio.current_time() == began_s
        await trio.sleep(61.0)
        assert await answers(tree, 1) == ["a"]


async def test_tokens_that_are_left_are_enough_for_small_requests_only(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "a", rate_limits=RateLimits(output_tokens_per_minute=51))
        await deploy(tree, "b", serving=Serving(weight=0.0001))
        assert await answers(tree, 2) == ["a", "b"]
        small = await tree.ask(model="x", sampling=Sampling(max_tokens=5))
        assert small.texts == ["a"]


async def test_a_spare_one_is_not_asked_for_a_limit(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "a", rate_limits=ONCE, serving=Serving(weight=1))
        await deploy(tree, "spare", serving=Serving(weight=0))
        assert await answers(tree, 2) == ["a", "a"]


async def test_where_one_waits_already_another_is_asked(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await deploy(tree, "a", serves=["x", "only a"], rate_limits=ONCE)
        await deploy(tree, "b")
        await tree.ask(model="only a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: tree.ask(model="only a"))
            await trio.sleep(60.0)
            assert await answers(tree, 2) == ["b", "b"]


async def test_a_limit_that_is_a_shadow_keeps_nobody_away(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    limits = RateLimits(requests_per_minute=1, on_exceeded=OnLimit.REJECT, shadow=True)
    async with open_tree() as tree:
        await deploy(tree, "a", rate_limits=limits)
        await deploy(tree, "b")
        assert await answers(tree, 4) == ["a", "b", "a", "b"]
