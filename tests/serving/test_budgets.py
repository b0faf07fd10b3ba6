"""What a budget lets through, and what becomes of what it does not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.errors import (
    BudgetExceededError,
    EndpointUnsupportedError,
    NotReadyError,
)
from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.budget import Budget, OnExceeded, OwnedBudget, Per, Window
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.prices import Price, Rates
from atomr_infer.serving.requests.whole_calls import count_tokens
from atomr_infer.testing.mock_script import MockScript

if TYPE_CHECKING:
    from tests.serving.conftest import OpenTree, Tree

# A microdollar for each token.
PRICE = Price(rates=Rates(input=1, output=1))
SHORT = Sampling(max_tokens=50)


def deployment(name: str = "m", **more: Any) -> Deployment:
    return Deployment(name=name, runtime="lab", price=PRICE, **more)


def budget(**more: Any) -> Budget:
    given: dict[str, Any] = {"per": Per.DAY, "usd": "0.0002", **more}
    return Budget(**given)


def shown(tree: Tree) -> dict[str, Any]:
    [found] = tree.serving.budgets.shown()
    return dict(found)


async def test_a_request_is_charged_at_what_it_cost(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment(budget=budget()))
        asked = await tree.ask(sampling=SHORT)
        assert asked.result is not None
        assert asked.result.cost is not None
        cost = asked.result.cost.pico_usd // 1_000_000
        found = shown(tree)
        assert cost > 0
        assert (found["spent"], found["reserved"]) == (cost, 0)
        assert found["remaining"] == 200 - cost


async def test_what_may_cost_more_than_is_left_is_refused(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment(budget=budget()))
        with pytest.raises(BudgetExceededError) as refused:
            await tree.ask(sampling=Sampling(max_tokens=500))
        assert refused.value.code == "budget_exceeded"
        assert "deployment m has a budget of $0.0002 per day" in refused.value.message
        # What it asked for may be had by others.
        assert shown(tree)["remaining"] == 200
        await tree.ask(sampling=SHORT)


async def test_requests_at_once_do_not_overspend_together(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    refused = 0

    async def ask() -> None:
        nonlocal refused
        try:
            await tree.ask(sampling=SHORT)
        except BudgetExceededError:
            refused += 1

    async with open_tree() as tree:
        tree.lab.plan = [MockScript(delay_s=1.0)]
        await tree.serving.deploy(deployment(budget=budget()))
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        found = shown(tree)
        assert refused > 0
        assert found["spent"] + found["remaining"] == 200
        assert (found["reserved"], found["overrun"]) == (0, 0)


async def test_tokens_are_a_budget_too(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        wanted = Budget(per=Per.HOUR, tokens=100)
        await tree.serving.deploy(Deployment(name="m", runtime="lab", budget=wanted))
        asked = await tree.ask(sampling=SHORT)
        assert asked.result is not None
        tokens = sum(spent.usage.total_tokens for spent in asked.result.spent)
        assert shown(tree)["spent"] == tokens
        with pytest.raises(BudgetExceededError, match="100 tokens per hour"):
            await tree.ask(sampling=Sampling(max_tokens=100))


async def test_what_has_no_price_is_refused_and_says_what_to_write(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        unpriced = attrs.evolve(deployment(budget=budget()), price=None)
        await tree.serving.deploy(unpriced)
        with pytest.raises(BudgetExceededError, match=r"\[deployment.price\]"):
            await tree.ask(sampling=SHORT)


async def test_an_answer_without_a_bound_is_refused_and_says_what_to_send(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment(budget=budget()))
        with pytest.raises(BudgetExceededError, match="send max_tokens"):
            await tree.ask()


async def test_warn_lets_it_through_and_says_so_once(
    open_tree: OpenTree, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_tree() as tree:
        wanted = budget(on_exceeded=OnExceeded.WARN)
        await tree.serving.deploy(deployment(budget=wanted))
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                await tree.ask(sampling=Sampling(max_tokens=500))
        told = [
            r for r in caplog.records if "requests are made all the same" in r.message
        ]
        assert len(told) == 1
        assert shown(tree)["spent"] > 0


async def test_a_budget_that_warns_needs_no_bound_of_an_answer(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        wanted = budget(on_exceeded=OnExceeded.WARN)
        await tree.serving.deploy(deployment(budget=wanted))
        await tree.ask()
        assert shown(tree)["spent"] > 0


async def test_a_rolling_budget_tells_anew_after_a_window(
    open_tree: OpenTree, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_tree() as tree:
        set_clock(tree, 1_800_000_000.0)
        wanted = budget(on_exceeded=OnExceeded.WARN, window=Window.ROLLING)
        await tree.serving.deploy(deployment(budget=wanted))
        with caplog.at_level(logging.WARNING):
            for day in (0, 0, 1, 1):
                set_clock(tree, 1_800_000_000.0 + day * DAY_S)
                await tree.ask(sampling=Sampling(max_tokens=500))
        told = [r for r in caplog.records if "is spent but for" in r.message]
        assert len(told) == 2


async def test_throttle_lets_one_through_each_second(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        wanted = budget(on_exceeded=OnExceeded.THROTTLE)
        await tree.serving.deploy(deployment(budget=wanted))
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: tree.ask(sampling=Sampling(max_tokens=500)))
        assert 5.0 <= trio.current_time() - began_s <= 6.0


async def test_throttle_refuses_whose_turn_comes_too_late(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        wanted = budget(on_exceeded=OnExceeded.THROTTLE)
        await tree.serving.deploy(deployment(budget=wanted))
        for_long = Sampling(max_tokens=500)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: tree.ask(sampling=for_long))
            await trio.sleep(0.01)
            with pytest.raises(BudgetExceededError):
                await tree.ask(sampling=for_long, timeout_s=2.0)


async def test_downgrade_asks_the_other_model_and_says_so(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment("small"))
        wanted = budget(on_exceeded=OnExceeded.DOWNGRADE, downgrade_to="small")
        await tree.serving.deploy(deployment(budget=wanted))
        asked = await tree.ask(sampling=Sampling(max_tokens=500))
        assert asked.result is not None
        assert asked.result.deployment == "small"
        assert "deployment m has a budget of $0.0002 per day" in asked.result.downgraded
        assert shown(tree)["spent"] == 0
        near = await tree.ask(sampling=SHORT)
        assert near.result is not None
        assert (near.result.deployment, near.result.downgraded) == ("m", "")


async def test_a_teams_budget_is_that_of_all_its_keys(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment())
        tree.serving.budgets.take([OwnedBudget(team="web", budget=budget())])
        one, other = Asker("key_1", team="web"), Asker("key_2", team="web")
        await tree.ask(sampling=SHORT, asker=one)
        before = shown(tree)["spent"]
        await tree.ask(sampling=SHORT, asker=other)
        assert shown(tree)["spent"] == 2 * before
        with pytest.raises(BudgetExceededError, match="team web"):
            await tree.ask(sampling=Sampling(max_tokens=200), asker=one)
        # Nobody else's affair.
        await tree.ask(sampling=Sampling(max_tokens=200), asker=Asker("key_3"))
        await tree.ask(sampling=Sampling(max_tokens=200))


async def test_a_teams_downgrade_asks_the_other_model(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment("small"))
        await tree.serving.deploy(deployment())
        wanted = budget(on_exceeded=OnExceeded.DOWNGRADE, downgrade_to="small")
        tree.serving.budgets.take([OwnedBudget(team="web", budget=wanted)])
        asker = Asker("key_1", team="web")
        asked = await tree.ask(sampling=Sampling(max_tokens=500), asker=asker)
        assert asked.result is not None
        assert asked.result.deployment == "small"
        assert asked.result.downgraded.startswith("team web has a budget")


async def test_a_teams_downgrade_may_be_another_model_of_the_same_deployment(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment("all", serves=("big", "small")))
        wanted = budget(on_exceeded=OnExceeded.DOWNGRADE, downgrade_to="small")
        tree.serving.budgets.take([OwnedBudget(team="web", budget=wanted)])
        asker = Asker("key_1", team="web")
        asked = await tree.ask(sampling=SHORT, asker=asker, model="big")
        assert asked.result is not None
        assert asked.result.downgraded == ""
        assert shown(tree)["spent"] > 0
        for_long = Sampling(max_tokens=500)
        asked = await tree.ask(sampling=for_long, asker=asker, model="big")
        assert asked.result is not None
        [spent] = asked.result.spent
        assert (spent.deployment, spent.model) == ("all", "small")
        assert asked.result.downgraded.startswith("team web has a budget")


async def test_a_client_that_leaves_pays_for_what_was_made(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(delay_s=1.0)]
        await tree.serving.deploy(deployment(budget=budget()))
        with trio.move_on_after(1.5):
            await tree.ask(sampling=SHORT)
        await tree.idle()
        found = shown(tree)
        assert found["reserved"] == 0
        assert 0 < found["spent"] < 50


async def test_an_alert_is_told_once(
    open_tree: OpenTree, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment(budget=budget(alert_at=[0.01, 0.02])))
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                await tree.ask(sampling=SHORT)
        told = [r.message for r in caplog.records if "% of it is spent" in r.message]
        assert told == [
            "the budget of deployment m, $0.0002 per day: 2 % of it is spent"
        ]


async def test_a_budget_that_is_taken_away_holds_nobody_back(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment(budget=budget()))
        await tree.serving.change(deployment())
        await tree.ask(sampling=Sampling(max_tokens=500))
        assert tree.serving.budgets.shown() == []


async def test_counting_tokens_costs_nothing(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        unpriced = attrs.evolve(deployment(budget=budget()), price=None)
        await tree.serving.deploy(unpriced)
        asked = ExecuteBatch(
            request_id="r", model="m", messages=(Message(Role.USER, "one two"),)
        )
        # The lab's runtime cannot count: it was asked, all the same.
        with pytest.raises(EndpointUnsupportedError):
            await count_tokens(tree.serving, asked)
        assert shown(tree)["spent"] == 0


async def test_what_cannot_be_kept_is_refused_for_now_or_only_told(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        # As on a node that is none of the voters.
        tree.serving.budgets.service._server.core.voters = ("x",)  # type: ignore[union-attr]
        await tree.serving.deploy(deployment(budget=budget()))
        with pytest.raises(NotReadyError, match="is none of the voters"):
            await tree.ask(sampling=SHORT, timeout_s=5.0)
        told = budget(on_exceeded=OnExceeded.WARN)
        await tree.serving.change(deployment(budget=told))
        await tree.ask(sampling=SHORT)


async def test_what_is_only_told_is_charged_to_its_own_day_once_that_can_be_opened(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        set_clock(tree, 1_800_000_000.0)
        told = budget(on_exceeded=OnExceeded.WARN)
        await tree.serving.deploy(deployment(budget=told))
        await tree.ask(sampling=SHORT)
        cost = spent_in(tree, "2027-01-15")
        core = tree.serving.budgets.service._server.core  # type: ignore[union-attr]
        voters, core.voters = core.voters, ("x",)
        set_clock(tree, 1_800_000_000.0 + DAY_S)
        for _ in range(2):
            await tree.ask(sampling=SHORT)
        assert spent_in(tree, "2027-01-15") == cost
        core.voters = voters
        assert shown(tree)["ledger"].endswith("2027-01-16")
        assert shown(tree)["spent"] == 2 * cost


# --- periods --------------------------------------------------------------------------

DAY_S = 86_400.0


def set_clock(tree: Tree, wall_s: float) -> None:
    """Set the wall's clock; it stands still then."""
    tree.serving.budgets.service.wall_s = lambda: wall_s


def spent_in(tree: Tree, day: str) -> int:
    return tree.serving.budgets.service.state(f"deployment m/usd/day/{day}").spent


async def test_a_request_counts_where_it_began(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(delay_s=1.0)]
        set_clock(tree, 1_800_057_599.0)  # a second before midnight
        await tree.serving.deploy(deployment(budget=budget()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: tree.ask(sampling=SHORT))
            await trio.sleep(0.5)
            set_clock(tree, 1_800_057_601.0)
            await tree.ask(sampling=Sampling(max_tokens=150))
        days = spent_in(tree, "2027-01-15"), spent_in(tree, "2027-01-16")
        assert days[0] > 0
        assert days[1] > 0
        # All of the new day was there, while the old one's request was under way.
        assert shown(tree)["ledger"].endswith("2027-01-16")


async def test_a_clock_that_jumps_gives_no_day_twice(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        set_clock(tree, 1_800_000_000.0)
        await tree.serving.deploy(deployment(budget=budget()))
        await tree.ask(sampling=SHORT)
        today = shown(tree)["spent"]
        set_clock(tree, 1_800_000_000.0 + DAY_S)
        await tree.ask(sampling=SHORT)
        assert shown(tree)["spent"] == today
        set_clock(tree, 1_800_000_000.0)
        assert shown(tree)["spent"] == today
        await tree.ask(sampling=SHORT)
        assert shown(tree)["spent"] == 2 * today
        # Back in what was tomorrow, what was spent of it is.
        set_clock(tree, 1_800_000_000.0 + DAY_S)
        assert shown(tree)["spent"] == today


async def test_a_clock_that_is_set_far_back_opens_nothing_anew(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        set_clock(tree, 1_800_000_000.0)
        await tree.serving.deploy(deployment(budget=budget()))
        await tree.ask(sampling=SHORT)
        set_clock(tree, 1_800_000_000.0 + 30 * DAY_S)
        await tree.ask(sampling=SHORT)
        set_clock(tree, 1_800_000_000.0)
        with pytest.raises(NotReadyError, match="this machine's clock is behind"):
            await tree.ask(sampling=SHORT, timeout_s=2.0)


async def test_a_period_of_another_node_is_opened_if_it_is_near(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        set_clock(tree, 1_800_057_599.0)
        await tree.serving.deploy(deployment(budget=budget()))
        find = tree.serving.budgets.service.find
        near = find("deployment m/usd/day/2027-01-16")
        assert near is not None
        assert (near.units, near.begins_at_s) == (200, 1_800_057_600.0)
        assert find("deployment m/usd/day/2027-01-17") is None
        assert find("deployment other/usd/day/2027-01-16") is None


async def test_a_raised_budget_has_more_at_once(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment(budget=budget()))
        await tree.ask(sampling=SHORT)
        before = shown(tree)
        await tree.serving.change(deployment(budget=budget(usd="0.001")))
        await tree.ask(sampling=Sampling(max_tokens=500))
        now = shown(tree)
        assert (now["ledger"], now["limit"]) == (before["ledger"], 1_000)
        assert now["spent"] > before["spent"]


async def test_a_lowered_budget_holds_at_once_and_what_was_spent_counts(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        await tree.serving.deploy(deployment(budget=budget(usd="0.001")))
        await tree.ask(sampling=SHORT)
        before = shown(tree)
        spent = int(str(before["spent"]))
        await tree.serving.change(deployment(budget=budget(usd="0.0001")))
        now = shown(tree)
        assert (now["ledger"], now["limit"]) == (before["ledger"], 100)
        assert (now["spent"], now["remaining"]) == (spent, 100 - spent)
        with pytest.raises(BudgetExceededError, match=f"0.0000{100 - spent} of it"):
            await tree.ask(sampling=Sampling(max_tokens=500))


async def test_retries_and_fallbacks_are_charged_where_they_were_made(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(fail_after=1), MockScript()]
        once = RetryPolicy(max_attempts=1)
        failing = deployment(fallbacks=["other"], retry=once, budget=budget())
        await tree.serving.deploy(failing, expected=["other"])
        await tree.serving.deploy(deployment("other", budget=budget()))
        asked = await tree.ask(sampling=SHORT, stream=False)
        assert asked.result is not None
        assert asked.result.deployment == "other"
        found: list[Any] = tree.serving.budgets.shown()
        costs = {each["owner"]: each["spent"] for each in found}
        assert costs["deployment m"] > 0
        assert costs["deployment other"] > 0
        assert all(each["reserved"] == 0 for each in found)
