"""A swap holds on all nodes, whoever leads it, and ends when that node is lost."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.errors import NotReadyError
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.placement import Placement
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from tests.serving.placing.real import open_fleet, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.serving.placing.real import Node

pytestmark = pytest.mark.slow

PLAN = SwapPlan(steps=(0.5,), step_s=0.2, min_requests=4, patience_s=20.0, probe=None)
FOR_LONG = attrs.evolve(PLAN, step_s=600.0, patience_s=600.0)


def mock(reply: str, **options: Any) -> Deployment:
    return Deployment(
        name="m",
        runtime="mock",
        options={"reply": reply, **options},
        placement=Placement(everywhere=True),
        retry=RetryPolicy(max_attempts=1),
    )


OLD, NEW, BROKEN = mock("old"), mock("new"), mock("new", fail_after=0)


@attrs.define
class Load:
    """What clients of some nodes are answered."""

    texts: list[tuple[str, str]] = attrs.field(factory=list)
    failed: list[str] = attrs.field(factory=list)

    def heard(self, node: str) -> set[str]:
        return {text for name, text in self.texts if name == node}


@asynccontextmanager
async def loaded(*nodes: Node) -> AsyncIterator[Load]:
    """Ask one request after the other at each of these nodes."""
    load = Load()

    async def ask(node: Node) -> None:
        while True:
            answer = await node.chat(model="m")
            if answer.status == 200:
                text = answer.json["choices"][0]["message"]["content"]
                load.texts.append((node.name, text))
            else:
                load.failed.append(f"{node.name}: {json.dumps(answer.json)}")
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
        yield load
        nursery.cancel_scope.cancel()


def phases(node: Node) -> list[Phase]:
    return [each.phase for each in node.cluster.hot_swaps.statuses()]


async def all_serve(*nodes: Node) -> None:
    for node in nodes:
        await until(lambda node=node: node.runs() == {"m": 1}, "it serves")  # type: ignore[misc]


async def test_what_comes_takes_over_on_all_nodes_and_nothing_is_dropped(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path, "a", "b") as fleet:
        a, b = fleet.nodes["a"], fleet.nodes["b"]
        await a.cluster.deploy(OLD)
        await all_serve(a, b)
        async with loaded(a, b) as load:
            with a.cluster.at_home():
                ended = await a.cluster.hot_swaps.swap(NEW, PLAN)
            await until(lambda: phases(b) == [Phase.SWAPPED], "b knows")
            swapped_at = len(load.texts)
            await until(lambda: len(load.texts) > swapped_at + 10)
            last = load.texts[-6:]
        assert load.failed == []
        assert (ended.phase, ended.node, ended.reason) == (Phase.SWAPPED, "a", "")
        assert b.cluster.hot_swaps.statuses() == (ended,)
        assert load.heard("a") == load.heard("b") == {"old", "new"}
        assert {text for _, text in last} == {"new"}
        assert [each.name for each in b.cluster.deployments()] == ["m"]


async def test_failures_on_one_node_have_all_nodes_go_back(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, "a", "b") as fleet:
        a, b = fleet.nodes["a"], fleet.nodes["b"]
        await a.cluster.deploy(OLD)
        await all_serve(a, b)
        # Who leads it is asked nothing itself.
        async with loaded(b) as load:
            with a.cluster.at_home():
                ended = await a.cluster.hot_swaps.swap(BROKEN, PLAN)
            await until(lambda: phases(b) == [Phase.ROLLED_BACK], "b knows")
        assert (load.failed, load.heard("b")) == ([], {"old"})
        assert ended.reason.endswith("requests failed")
        with b.cluster.at_home():
            assert (await b.cluster.chat("m", "hello")).text == "old"


async def test_another_node_has_it_go_back_and_knows_of_it_before(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path, "a", "b") as fleet:
        a, b = fleet.nodes["a"], fleet.nodes["b"]
        await a.cluster.deploy(OLD)
        with a.cluster.at_home():
            swap = await a.cluster.hot_swaps.begin(NEW, FOR_LONG, None)
        await until(lambda: phases(b) == [Phase.SHIFTING], "b knows")
        with b.cluster.at_home(), pytest.raises(NotReadyError, match="being swapped"):
            await b.cluster.hot_swaps.swap(NEW, PLAN)
        assert b.cluster.hot_swaps.cancel("m")
        with trio.fail_after(30):
            await swap.ended.wait()
        assert swap.status.phase is Phase.ROLLED_BACK
        await until(lambda: phases(b) == [Phase.ROLLED_BACK], "b knows")
        assert not b.cluster.hot_swaps.cancel("m")


async def test_a_swap_whose_leader_is_lost_is_taken_back_by_another_node(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path, "a", "b", replace_after_s=0.5) as fleet:
        a, b = fleet.nodes["a"], fleet.nodes["b"]
        await a.cluster.deploy(OLD)
        await all_serve(a, b)
        with a.cluster.at_home():
            await a.cluster.hot_swaps.begin(NEW, FOR_LONG, None)
        await until(lambda: phases(b) == [Phase.SHIFTING], "b knows")
        async with loaded(b) as load:
            await fleet.kill("a")
            await until(lambda: phases(b) == [Phase.ROLLED_BACK], "b takes it back")
            last = len(load.texts)
            await until(lambda: len(load.texts) > last + 10)
            heard = {text for _, text in load.texts[last + 5 :]}
        assert (load.failed, heard) == ([], {"old"})
        [ended] = b.cluster.hot_swaps.statuses()
        assert ended.reason == "a, which led it, ended in the middle of it"
        assert ended.node == "b"
        assert [each.name for each in b.cluster.deployments()] == ["m"]
        # And again, from the beginning.
        with b.cluster.at_home():
            ended = await b.cluster.hot_swaps.swap(
                NEW, attrs.evolve(PLAN, min_requests=0)
            )
        assert ended.phase is Phase.SWAPPED
