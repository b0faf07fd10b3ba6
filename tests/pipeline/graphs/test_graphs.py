"""The hybrid agent and the tiers of a price: who is asked, and who is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    BudgetExceededError,
    ConfigError,
    ContentFilterError,
    UpstreamError,
)
from atomr_infer.model.batch import Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.pipeline.graphs.plugins import HYBRID, TIERS
from tests.pipeline.conftest import Heard, OpenTree, model

if TYPE_CHECKING:
    from trio.testing import MockClock

PLANS = model("router", reply="Plan, I think.")
ANSWERS = model("router", reply="answer")
EXECUTOR = model("executor", reply="done as planned")
PLANNER = model("planner", reply="1. look 2. leap")
SECOND = model("second", reply="1. only look")


def hybrid(**options: Any) -> Deployment:
    parts: dict[str, Any] = {
        "router": "router",
        "executor": "executor",
        "planner": "planner",
        "fallbacks": ["second"],
    }
    return Deployment(name="auto", runtime="hybrid", options=parts | options)


def tiers(*models: Any, **options: Any) -> Deployment:
    given = {"tiers": list(models), **options}
    return Deployment(name="auto", runtime="tiers", options=given)


# --- the hybrid agent ------------------------------------------------------------


async def test_what_is_easy_is_answered_at_once(open_tree: OpenTree) -> None:
    async with open_tree(ANSWERS, EXECUTOR, PLANNER, SECOND, hybrid()) as tree:
        heard = await tree.ask("one two three")
        assert tree.runners["planner"].batches == ()
        asked = tree.runners["executor"].batches[0]
        paid = [name for name, _ in tree.ledger()]
    assert heard.text == "done as planned"
    assert heard.verdicts == ["router (router: answer)", "executor"]
    assert [message.text for message in asked.messages] == ["one two three"]
    assert paid == ["router", "executor"]


async def test_what_is_hard_is_planned_first_and_each_stage_is_paid_and_traced(
    open_tree: OpenTree,
) -> None:
    async with open_tree(PLANS, EXECUTOR, PLANNER, SECOND, hybrid()) as tree:
        heard = await tree.ask("one two three")
        asked = tree.runners["executor"].batches[0]
        plan_asked = tree.runners["planner"].batches[0]
        paid = [name for name, _ in tree.ledger()]
        assert tree.runners["second"].batches == ()
    assert heard.text == "done as planned"
    assert heard.verdicts == ["router (router: plan)", "planner (planned)", "executor"]
    assert [(m.role, m.text) for m in asked.messages] == [
        (Role.SYSTEM, "Answer by following this plan:\n1. look 2. leap"),
        (Role.USER, "one two three"),
    ]
    assert plan_asked.messages[0].text.endswith("Request:\none two three")
    assert paid == ["router", "planner", "executor"]
    # Who it was, on what, how long it took, and what it cost.
    assert heard.done is not None
    assert all(
        stage.startswith(f"{name} seen ") and "s $" in stage
        for name, stage in zip(paid, heard.done.stages, strict=True)
    )


async def test_bare_text_is_continued_behind_its_plan(open_tree: OpenTree) -> None:
    async with open_tree(PLANS, EXECUTOR, PLANNER, SECOND, hybrid()) as tree:
        await tree.ask("Once upon a time", prompt="Once upon a time")
        asked = tree.runners["executor"].batches[0]
        plan_asked = tree.runners["planner"].batches[0]
    told = "Answer by following this plan:\n1. look 2. leap\n\nOnce upon a time"
    assert asked.prompt == told
    assert [(m.role, m.text) for m in asked.messages] == [(Role.USER, told)]
    assert plan_asked.prompt is None
    assert plan_asked.messages[0].text.endswith("Request:\nOnce upon a time")


@pytest.mark.parametrize(
    "broken",
    [
        {"fail_after": 0, "fail_kind": "overloaded"},
        {"fail_after": 0, "fail_kind": "circuit_open"},
        {"fail_after": 0, "fail_kind": "rate_limited"},
        {"fail_after": 2, "fail_kind": "stream_cut"},
        {"tokens": 0},
        {"hang_after": 1},
        {"tokens": 9},
    ],
    ids=["saturated", "open", "limited", "cut mid-plan", "empty", "hangs", "long"],
)
async def test_a_planner_that_fails_is_followed_by_the_next(
    open_tree: OpenTree, autojump_clock: MockClock, broken: dict[str, Any]
) -> None:
    planner = model("planner", **{"reply": "1. look 2. leap", **broken})
    agent = hybrid(plan_timeout_s=5.0, max_plan_tokens=8)
    async with open_tree(PLANS, EXECUTOR, planner, SECOND, agent) as tree:
        heard = await tree.ask()
        asked = tree.runners["executor"].batches[0]
        assert tree.runners["planner"].active == 0
    assert heard.text == "done as planned"
    assert [each.split()[0] for each in heard.verdicts] == [
        "router",
        "planner",
        "second",
        "executor",
    ]
    assert heard.verdicts[1].startswith("planner (no plan: ")
    assert asked.messages[0].text.endswith("1. only look")


async def test_what_is_withheld_for_its_content_is_asked_of_nobody_else(
    open_tree: OpenTree,
) -> None:
    planner = model("planner", fail_after=0, fail_kind="content_filter")
    async with open_tree(PLANS, EXECUTOR, planner, SECOND, hybrid()) as tree:
        with pytest.raises(ContentFilterError):
            await tree.ask()
        asked = [len(tree.runners[n].batches) for n in ("second", "executor")]
    assert asked == [0, 0]


async def test_a_plan_that_nobody_makes_is_an_error(open_tree: OpenTree) -> None:
    broken = [model(name, fail_after=0) for name in ("planner", "second")]
    async with open_tree(PLANS, EXECUTOR, *broken, hybrid()) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask()
        # Not made again from the beginning, either.
        assert len(tree.runners["router"].batches) == 1
        assert tree.runners["executor"].batches == ()


async def test_an_executor_that_fails_is_followed_by_a_fallback_with_the_plan(
    open_tree: OpenTree,
) -> None:
    executor = model("executor", fail_after=0, fail_kind="engine")
    async with open_tree(PLANS, executor, PLANNER, SECOND, hybrid()) as tree:
        heard = await tree.ask()
        asked = tree.runners["second"].batches[0]
    assert heard.text == "1. only look"
    assert asked.messages[0].text.endswith("1. look 2. leap")
    assert heard.verdicts[2:] == ["executor (failed)", "second"]


async def test_an_answer_that_breaks_when_the_client_has_some_is_an_error(
    open_tree: OpenTree,
) -> None:
    executor = model("executor", reply="one two three", fail_after=2)
    heard = Heard()
    async with open_tree(ANSWERS, executor, PLANNER, SECOND, hybrid()) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask(heard=heard)
        assert tree.runners["second"].batches == ()
    assert heard.text == "one two"


async def test_a_router_that_fails_plans_nothing(open_tree: OpenTree) -> None:
    router = model("router", fail_after=0)
    async with open_tree(router, EXECUTOR, PLANNER, SECOND, hybrid()) as tree:
        heard = await tree.ask()
    assert heard.verdicts == ["router (router failed)", "executor"]


@pytest.mark.parametrize("where", ["router", "planner", "executor"])
async def test_a_client_that_leaves_ends_what_is_asked_and_it_is_paid(
    open_tree: OpenTree, autojump_clock: MockClock, where: str
) -> None:
    order = ["router", "planner", "executor"]
    models = [
        model(
            name,
            reply="plan it in many words",
            hang_after=1 if name == where else None,
        )
        for name in order
    ]
    agent = hybrid(router={"model": "router", "timeout_s": 99.0}, plan_timeout_s=99.0)
    async with open_tree(*models, SECOND, agent) as tree:
        with trio.move_on_after(5.0) as scope:
            await tree.ask()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert all(runner.active == 0 for runner in tree.runners.values())
        paid = [name for name, _ in tree.ledger()]
    assert paid == order[: order.index(where) + 1]


# --- tiers -----------------------------------------------------------------------

# Three tokens are read at a tenth of a cent each, and each written costs two.
PREMIUM = model("premium", reply="the best answer", price=None)
STANDARD = model("standard", reply="a good answer")
CHEAP = model("cheap", reply="an answer")
SHORT = Sampling(max_tokens=10)


async def test_the_best_tier_that_a_request_can_pay_answers(
    open_tree: OpenTree,
) -> None:
    auto = tiers({"model": "standard"}, "cheap", budget_usd=1.0)
    async with open_tree(STANDARD, CHEAP, auto) as tree:
        heard = await tree.ask(sampling=SHORT)
        assert tree.runners["cheap"].batches == ()
    assert heard.text == "a good answer"


async def test_a_tier_that_may_cost_more_is_passed_over_and_why_is_told(
    open_tree: OpenTree,
) -> None:
    auto = tiers({"model": "standard", "max_usd": 0.001}, "cheap", budget_usd=1.0)
    async with open_tree(STANDARD, CHEAP, auto) as tree:
        heard = await tree.ask(sampling=SHORT)
        assert tree.runners["standard"].batches == ()
    assert heard.text == "an answer"
    assert heard.verdicts[0].startswith("standard (passed over: it may cost $0.0")
    assert heard.verdicts[1] == "cheap"


async def test_a_tier_of_unknown_price_is_passed_over(open_tree: OpenTree) -> None:
    auto = tiers("premium", "cheap", budget_usd=1.0)
    async with open_tree(PREMIUM, CHEAP, auto) as tree:
        heard = await tree.ask(sampling=SHORT)
    assert heard.verdicts == ["premium (passed over: its cost is not known)", "cheap"]


async def test_a_tier_that_fails_is_followed_by_the_next_below(
    open_tree: OpenTree,
) -> None:
    broken = model("standard", fail_after=0, fail_kind="overloaded")
    async with open_tree(broken, CHEAP, tiers("standard", "cheap", budget_usd=1)) as t:
        heard = await t.ask(sampling=SHORT)
    assert heard.verdicts == ["standard (failed)", "cheap"]


async def test_a_model_of_two_tiers_that_fails_is_asked_once(
    open_tree: OpenTree,
) -> None:
    broken = model("standard", fail_after=0, fail_kind="overloaded")
    auto = tiers("standard", "cheap", "standard", budget_usd=1)
    async with open_tree(broken, CHEAP, auto) as tree:
        heard = await tree.ask(sampling=SHORT)
    assert heard.verdicts == ["standard (failed)", "cheap"]


@pytest.mark.parametrize("exhausted", ["cheapest", "error"])
async def test_when_no_tier_is_cheap_enough_the_last_answers_or_it_is_refused(
    open_tree: OpenTree, exhausted: str
) -> None:
    auto = tiers("standard", "cheap", budget_usd=0.0001, exhausted=exhausted)
    async with open_tree(STANDARD, CHEAP, auto) as tree:
        if exhausted == "cheapest":
            assert (await tree.ask(sampling=SHORT)).text == "an answer"
            return
        with pytest.raises(BudgetExceededError, match=r"for \$0.0001") as raised:
            await tree.ask(sampling=SHORT)
        assert raised.value.code == "request_budget"
        assert tree.ledger() == []


# --- options ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deployment", "problem"),
    [
        (hybrid(planer="x"), "did you mean 'planner'"),
        (hybrid(plan_prompt="plan it"), "plan_prompt has no {question} in it"),
        (hybrid(execute_prompt="do it"), "execute_prompt has no {plan} in it"),
        (hybrid(router={"prompt": "x"}), "router lacks 'model'"),
        (tiers("one", budget_usd=1.0), "tiers must be two at least"),
        (tiers("one", "two"), "options lacks 'budget_usd'"),
        (tiers("one", "two", budget_usd=0), "budget_usd"),
        (tiers("a", "b", budget_usd=1, exhausted="x"), "is none of 'cheapest'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    deployment: Deployment, problem: str
) -> None:
    plugin = HYBRID if deployment.runtime == "hybrid" else TIERS
    with pytest.raises(ConfigError) as raised:
        plugin.validate(deployment)
    assert problem in str(raised.value)


def test_who_may_be_asked_is_told_once_each() -> None:
    agent = hybrid(executor="router", fallbacks=["second", "planner"])
    assert HYBRID.asks(agent) == ("router", "planner", "second")
    assert TIERS.asks(tiers("a", "b", "a", budget_usd=1)) == ("a", "b")
