"""A deployment is changed while it serves, in what is looked up for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import ConfigError, ModelNotFoundError, NotReadyError
from atomr_infer.errors import UpstreamError as Failed
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.failover import Fallback, HedgePolicy
from atomr_infer.testing.mock_script import MockScript
from tests.serving.acts import Player, fails, says

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree

ONCE = RetryPolicy(max_attempts=1)
M = Deployment(name="m", runtime="lab", retry=ONCE)
OTHER = Deployment(name="o", runtime="lab")


async def test_the_next_request_is_made_as_it_says_now(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        broken = Failed("no")
        tree.lab.plan = [Player([fails(broken), fails(broken)]), Player([says("o")])]
        await tree.serving.deploy(M)
        await tree.serving.deploy(OTHER)
        with pytest.raises(ModelNotFoundError):
            await tree.ask(model="alias")
        with pytest.raises(Failed):
            await tree.ask()
        changed = attrs.evolve(
            M, serves=("m", "alias"), fallbacks=(Fallback(to="o", model="o"),)
        )
        await tree.serving.change(changed)
        answer = await tree.ask(model="alias")
        assert answer.texts == ["o"]
        assert answer.result is not None
        assert answer.result.deployment == "o"
        assert tree.serving.deployments["m"] is changed
        assert tree.lab.opened == 2, "no engine was started for it"


async def test_a_request_that_runs_keeps_what_it_began_with(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [Player([says("m", before_s=5)])]
        await tree.serving.deploy(attrs.evolve(M, serves=("m", "old")))
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert (await tree.ask(model="old")).texts == ["m"]

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await tree.serving.change(M)
            with pytest.raises(ModelNotFoundError):
                await tree.ask(model="old")


async def test_a_hedge_is_paid_by_its_new_budget(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        for fraction in (0.0, 0.5):
            hedge = HedgePolicy(after_s=1, max_fraction=fraction)
            wanted = attrs.evolve(M, hedge=hedge)
            await tree.serving.change(wanted)
            budget = tree.serving.hedge_budget(wanted)
            for _ in range(10):
                budget.request()
            assert budget.take() is (fraction > 0)


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (attrs.evolve(M, model="other"), "cannot become that one while it serves"),
        (attrs.evolve(M, name="none"), "there is no deployment 'none'"),
        (attrs.evolve(M, fallbacks=("none",)), "cannot fall back to 'none'"),
        (
            attrs.evolve(M, retry=attrs.evolve(ONCE, idempotent=False)),
            "cannot become that one while it serves",
        ),
    ],
    ids=["model", "name", "fallback", "retry"],
)
async def test_what_cannot_be_changes_nothing(
    open_tree: OpenTree, autojump_clock: MockClock, wanted: Deployment, problem: str
) -> None:
    async with open_tree(M) as tree:
        with pytest.raises(ConfigError, match=problem):
            await tree.serving.change(wanted)
        assert tree.serving.deployments == {"m": M}
        assert (await tree.ask()).result is not None


async def test_two_that_would_fall_back_to_each_other_are_refused(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M, attrs.evolve(OTHER, fallbacks=("m",))) as tree:
        with pytest.raises(ConfigError, match="circle"):
            await tree.serving.change(attrs.evolve(M, fallbacks=("o",)))


async def test_one_that_loads_is_changed_when_it_serves(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree, trio.open_nursery() as nursery:
        tree.lab.plan = [MockScript(load_s=5)]
        nursery.start_soon(tree.serving.deploy, M)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NotReadyError, match="m is loading"):
            await tree.serving.change(attrs.evolve(M, on_cut=M.on_cut))
