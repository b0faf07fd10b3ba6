"""A deployment is taken over step by step, and no request is dropped on any way."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
import trio
import trio.testing

from atomr.otp import which_children
from atomr_infer.config.node import NodeConfig
from atomr_infer.errors import (
    ConfigError,
    EngineStartError,
    InferenceError,
    NotReadyError,
)
from atomr_infer.model.deployment import Deployment, OptionValue, RetryPolicy, Serving
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.model.validation import InvalidValueError
from atomr_infer.policy.lifecycle.hot_swap import Phase, Tally, Turn, turn, wait_s
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.names import HOT_SWAPS
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.swapping.records import SwapStatus
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree, Tree

PLAN = SwapPlan(steps=(0.25, 0.5), step_s=10.0, min_requests=4, max_error_rate=0.1)


def mock(reply: str, *, weight: float = 1.0, **options: Any) -> Deployment:
    return Deployment(
        name="m",
        runtime="mock",
        serves=("m", "chat"),
        options={"reply": reply, **options},
        serving=Serving(weight=weight),
        retry=RetryPolicy(max_attempts=1),
    )


OLD, NEW = mock("old"), mock("new")


def lab(version: int) -> Deployment:
    options: dict[str, OptionValue] = {"version": version}
    return Deployment(name="m", runtime="lab", serves=("m", "chat"), options=options)


@attrs.define
class Load:
    """What clients see that ask all the time."""

    texts: list[str] = attrs.field(factory=list)
    errors: list[InferenceError] = attrs.field(factory=list)

    def shares(self) -> tuple[int, int]:
        return self.texts.count("old"), self.texts.count("new")


@asynccontextmanager
async def loaded(tree: Tree, *, every_s: float = 0.5) -> AsyncIterator[Load]:
    """Ask twice a second, by both names, while the block runs."""
    load = Load()

    async def one(model: str) -> None:
        try:
            heard = await tree.ask(model=model)
            load.texts.append("".join(heard.texts))
        except InferenceError as error:
            load.errors.append(error)

    async def many(nursery: trio.Nursery) -> None:
        number = 0
        while True:
            nursery.start_soon(one, ("m", "chat")[number % 2])
            number += 1
            await trio.sleep(every_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(many, nursery)
        yield load
        nursery.cancel_scope.cancel()


async def test_what_comes_takes_over_step_by_step_and_nothing_is_dropped(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "atomr_infer.serving.swapping.hot_swap")
    async with open_tree(OLD) as tree, loaded(tree) as load:
        began_at = trio.current_time()
        ended = await tree.serving.hot_swaps.swap(NEW, PLAN)
        took_s = trio.current_time() - began_at
        during = load.shares()
        await trio.sleep(5)
        assert load.errors == []
        assert load.shares()[0] == during[0]
        assert ended == SwapStatus(
            deployment="m",
            phase=Phase.SWAPPED,
            share=1.0,
            requests=20,
            node=tree.serving.node.name,
            id=ended.id,
        )
        assert tree.serving.deployments == {"m": NEW}
    assert 30 <= took_s < 31
    # A quarter of the first ten seconds, half of the next ones, all of the last.
    assert during == pytest.approx((25, 35), abs=3)
    told = [line for line in caplog.messages if line.startswith("swap of m: ")]
    assert told[-4:-2] == [
        "swap of m: shifting, 50% of the requests",
        "swap of m: shifting, 100% of the requests",
    ]


async def test_too_many_failures_have_all_go_back_and_clients_see_none(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    broken = mock("new", fail_after=0)
    plan = attrs.evolve(PLAN, probe=None)
    async with open_tree(OLD) as tree, loaded(tree) as load:
        ended = await tree.serving.hot_swaps.swap(broken, plan)
        await trio.sleep(5)
        # What it failed to answer, the other one did.
        assert load.errors == []
        assert set(load.texts) == {"old"}
        assert tree.serving.deployments == {"m": OLD}
        assert tree.serving.hot_swaps.statuses() == (ended,)
    assert (ended.phase, ended.share) == (Phase.ROLLED_BACK, 0.0)
    assert ended.reason == "1 of 1 requests failed"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fail_after": 0}, "UpstreamError: "),
        ({"hang_after": 0}, "DeadlineError: "),
    ],
)
async def test_what_does_not_answer_gets_no_request(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    options: dict[str, Any],
    reason: str,
) -> None:
    async with open_tree(OLD) as tree, loaded(tree) as load:
        ended = await tree.serving.hot_swaps.swap(mock("new", **options), PLAN)
        assert (load.errors, set(load.texts)) == ([], {"old"})
        assert tree.serving.deployments == {"m": OLD}
    assert (ended.phase, ended.requests) == (Phase.ROLLED_BACK, 0)
    assert ended.reason.startswith(reason)


async def test_what_cannot_be_deployed_leaves_all_as_it_is(
    open_tree: OpenTree,
) -> None:
    wrong = attrs.evolve(NEW, options={"replies": "new"})
    async with open_tree(OLD) as tree:
        ended = await tree.serving.hot_swaps.swap(wrong, PLAN)
        assert tree.serving.deployments == {"m": OLD}
        assert "".join((await tree.ask()).texts) == "old"
    assert ended.phase is Phase.ROLLED_BACK
    assert "replies" in ended.reason


async def test_a_check_of_ones_own_judges_what_comes(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OLD) as tree:
        said: list[str] = []

        async def check(model: str) -> bool:
            said.append("".join((await tree.ask(model=model)).texts))
            return False

        ended = await tree.serving.hot_swaps.swap(NEW, PLAN, check=check)

        async def crash(_: str) -> None:
            raise KeyError("x")

        crashed = await tree.serving.hot_swaps.swap(NEW, PLAN, check=crash)
        assert tree.serving.deployments == {"m": OLD}
    assert said == ["new"]
    assert (ended.phase, ended.reason) == (Phase.ROLLED_BACK, "the check says no")
    assert crashed.reason == "the check failed: KeyError('x')"


async def test_who_cancels_it_finds_all_as_it_was(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OLD) as tree, loaded(tree) as load:
        with trio.move_on_after(12):
            await tree.serving.hot_swaps.swap(NEW, PLAN)
        (ended,) = tree.serving.hot_swaps.statuses()
        assert tree.serving.deployments == {"m": OLD}
        assert load.errors == []
        assert await which_children(HOT_SWAPS) == ()
    assert (ended.phase, ended.reason) == (Phase.ROLLED_BACK, "it was cancelled")


async def test_a_deployment_that_has_the_name_of_what_comes_stays(
    open_tree: OpenTree,
) -> None:
    other = Deployment(name="m:next", runtime="mock", options={"reply": "other"})
    async with open_tree(OLD, other) as tree:
        ended = await tree.serving.hot_swaps.swap(NEW, PLAN)
        assert tree.serving.deployments == {"m": OLD, "m:next": other}
        assert "".join((await tree.ask(model="m:next")).texts) == "other"
    assert ended.phase is Phase.ROLLED_BACK


async def test_who_cancels_it_in_the_end_drops_no_request(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow = mock("new and slow", delay_s=8.0)
    plan = SwapPlan(steps=(), step_s=10.0, min_requests=0, probe=None)
    async with open_tree(OLD) as tree, loaded(tree, every_s=1.0) as load:
        swap = await tree.serving.hot_swaps.begin(slow, plan, None)
        await trio.sleep(15)
        assert tree.serving.deployments == {"m": slow}
        # Its first requests are still answered by the copy.
        assert not tree.serving.hot_swaps.cancel("m")
        await swap.ended.wait()
        await trio.sleep(40)
        assert load.errors == []
        assert tree.serving.deployments == {"m": slow}
    assert swap.status.phase is Phase.SWAPPED


async def test_who_leaves_as_it_begins_finds_all_as_it_was(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OLD) as tree:
        with trio.CancelScope() as scope:
            scope.cancel()
            await tree.serving.hot_swaps.swap(NEW, PLAN)
        (ended,) = tree.serving.hot_swaps.statuses()
        assert ended.phase is Phase.ROLLED_BACK
        assert tree.serving.deployments == {"m": OLD}
        assert await which_children(HOT_SWAPS) == ()


async def test_an_operator_has_it_go_back(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OLD) as tree:
        swaps = tree.serving.hot_swaps
        swap = await swaps.begin(NEW, PLAN, None)
        await trio.sleep(5)
        assert swaps.statuses() == (
            SwapStatus(
                deployment="m",
                phase=Phase.SHIFTING,
                share=0.25,
                node=tree.serving.node.name,
                id=swap.id,
            ),
        )
        with pytest.raises(NotReadyError, match="m is being swapped"):
            await swaps.swap(NEW, PLAN)
        assert swaps.cancel("m")
        await swap.ended.wait()
        assert not swaps.cancel("m")
        assert tree.serving.deployments == {"m": OLD}
        # And again, from the beginning.
        ended = await swaps.swap(NEW, attrs.evolve(PLAN, min_requests=0))
    assert ended.phase is Phase.SWAPPED


async def test_a_deployment_that_somebody_changes_meanwhile_stays_as_they_want(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    other = mock("other")
    async with open_tree(OLD) as tree, loaded(tree) as load:
        swap = await tree.serving.hot_swaps.begin(NEW, PLAN, None)
        await trio.sleep(5)
        await tree.serving.replace(other)
        await swap.ended.wait()
        assert tree.serving.deployments == {"m": other}
        assert load.errors == []
    assert swap.status.phase is Phase.ROLLED_BACK
    assert "somebody else has changed it" in swap.status.reason


async def test_a_deployment_that_gets_no_requests_is_swapped_without_steps(
    open_tree: OpenTree,
) -> None:
    async with open_tree(mock("old", weight=0.0)) as tree:
        ended = await tree.serving.hot_swaps.swap(NEW, PLAN)
        assert tree.serving.deployments == {"m": NEW}
    assert ended.phase is Phase.SWAPPED


async def test_what_is_not_there_cannot_be_swapped(open_tree: OpenTree) -> None:
    async with open_tree() as tree:
        with pytest.raises(ConfigError, match="there is no deployment 'm'"):
            await tree.serving.hot_swaps.swap(NEW)


async def test_a_tree_ends_in_the_middle_of_a_swap(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OLD) as tree:
        await tree.serving.hot_swaps.begin(NEW, PLAN, None)
        await trio.sleep(5)
    assert trio.current_time() < 100


async def test_no_third_engine_is_open_at_any_time(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    old, new = lab(1), lab(2)
    plan = attrs.evolve(PLAN, min_requests=0)
    async with open_tree(old) as tree, loaded(tree) as load:
        tree.lab.plan += [MockScript(load_s=7.0), MockScript(load_s=7.0)]
        open_at_once = set()

        async def look() -> None:
            while True:
                open_at_once.add(tree.lab.opened - tree.lab.closed)
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            ended = await tree.serving.hot_swaps.swap(new, plan)
            nursery.cancel_scope.cancel()
        assert (ended.phase, load.errors) == (Phase.SWAPPED, [])
        assert tree.serving.deployments == {"m": new}
    assert open_at_once == {1, 2}


async def test_what_cannot_be_opened_again_has_all_go_back(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    old, new = lab(1), lab(2)
    async with open_tree(old) as tree, loaded(tree) as load:
        tree.lab.plan += [MockScript(), EngineStartError("no room for it")]
        ended = await tree.serving.hot_swaps.swap(
            new, attrs.evolve(PLAN, min_requests=0)
        )
        await trio.sleep(5)
        assert load.errors == []
        assert tree.serving.deployments == {"m": old}
        assert tree.lab.opened - tree.lab.closed == 1
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.reason.endswith("no room for it")


async def test_what_is_served_already_is_not_swapped(open_tree: OpenTree) -> None:
    async with open_tree(OLD) as tree:
        with pytest.raises(ConfigError, match="m is served so already"):
            await tree.serving.hot_swaps.swap(OLD)


async def test_a_node_that_ended_in_the_middle_says_so_after_its_restart(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    config = NodeConfig(name="a", state_dir=str(tmp_path))
    async with open_serving(environ={}, node=ServingNode(config)) as serving:
        await serving.deploy(OLD)
        begun = await serving.hot_swaps.begin(NEW, PLAN, None)
        await trio.sleep(5)
    async with open_serving(environ={}, node=ServingNode(config)) as serving:
        await serving.deploy(OLD)
        await until(lambda: serving.hot_swaps.statuses()[0].has_ended)
        assert serving.hot_swaps.statuses() == (
            SwapStatus(
                deployment="m",
                phase=Phase.ROLLED_BACK,
                reason="a, which led it, ended in the middle of it",
                node="a",
                id=begun.id,
            ),
        )
        # And it can be swapped again.
        plan = SwapPlan(steps=(), step_s=0.0, min_requests=0)
        ended = await serving.hot_swaps.swap(NEW, plan)
    assert ended.phase is Phase.SWAPPED


async def test_an_end_that_was_not_told_is_told_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OLD) as tree:
        swaps = tree.serving.hot_swaps
        await swaps.swap(NEW, SwapPlan(steps=(), step_s=0.0, min_requests=0))
        board = swaps._board
        ended = board.records()["m"]
        assert ended.phase is Phase.SWAPPED
        # As the others know it whose leader's replicator was away in the end.
        board.put("m", msgspec.structs.replace(ended, phase=Phase.PROMOTING))
        await until(lambda: board.records() == {"m": ended})


# --- the plan --------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(0.5, 0.2), (0.0, 1.0), (0.5, 0.5), (1.5,)])
def test_steps_rise_to_all_requests(steps: tuple[float, ...]) -> None:
    with pytest.raises(InvalidValueError, match="must rise"):
        SwapPlan(steps=steps)


def test_the_last_step_is_all_requests() -> None:
    assert SwapPlan(steps=(0.1,)).steps == (0.1, 1.0)
    assert SwapPlan(steps=()).steps == (1.0,)


def test_a_step_with_few_requests_is_over_when_patience_is() -> None:
    plan = SwapPlan(step_s=10, patience_s=40, min_requests=5)
    assert turn(plan, Tally(4, 0), 39.9) is Turn.WAIT
    assert turn(plan, Tally(4, 0), 40.0) is Turn.GO_ON
    assert [wait_s(plan, lasted_s) for lasted_s in (0, 10, 40)] == [10, 30, 0]
