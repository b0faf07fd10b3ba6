"""Nodes place, start, drain and take over, in virtual time."""

from __future__ import annotations

from typing import Any

import trio

from atomr_infer.model.deployment import Deployment, Serving
from tests.serving.placing.world import open_places

REMOTE: dict[str, Any] = {
    "runtime": "openai",
    "model": "gpt",
    "options": {"endpoint": "http://127.0.0.1:9/v1"},
}


def local(name: str = "tiny", replicas: int = 1, **more: Any) -> Deployment:
    serving = Serving(replicas=replicas)
    return Deployment(**{"name": name, "runtime": "mock", "serving": serving, **more})


def remote(name: str = "gpt", **more: Any) -> Deployment:
    return Deployment(**{"name": name, **REMOTE, **more})


async def test_a_local_engine_runs_once_whoever_asks(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["b"].orders.deploy(local())
        [(node, runs)] = places.runs.items()
        assert runs == {"tiny": 1}
        for place in places.all.values():
            assert place.state("tiny") == "serving"
            assert place.serving.table.resolve("tiny").deployment == "tiny"
        others = [p for p in places.all.values() if p.name != node]
        assert [p.serving.is_elsewhere("tiny") for p in others] == [True, True]


async def test_a_provider_is_asked_from_every_node_with_egress(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places.start("inner", roles=("gpu",))
        await places["inner"].orders.deploy(remote())
        assert places.runs == {"a": {"gpt": 1}, "b": {"gpt": 1}}
        await places.start("c")
        await places.until(lambda: "c" in places.runs, within_s=10)


async def test_replicas_of_a_lost_node_run_elsewhere_after_a_while(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        [lost] = places.runs
        places.kill(lost)
        await trio.sleep(29)
        assert places.runs == {}
        await places.until(lambda: bool(places.runs), within_s=5)
        [taker] = places.runs
        await places.start(lost)
        await trio.sleep(60)
        assert places.runs == {taker: {"tiny": 1}}


async def test_a_node_that_is_back_in_time_has_its_replica_and_nobody_else(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        [lost] = places.runs
        places.kill(lost)
        await trio.sleep(20)
        await places.start(lost)
        await places.until(lambda: bool(places.runs), within_s=10)
        await trio.sleep(60)
        assert sum(runs["tiny"] for runs in places.runs.values()) == 1


async def test_a_short_cut_moves_nothing(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        before = places.runs
        places.world.cut(*before)
        await trio.sleep(25)
        places.world.heal()
        await trio.sleep(120)
        assert places.runs == before


async def test_each_side_of_a_long_cut_serves_and_one_is_left_when_it_heals(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        [first] = places.runs
        places.world.cut(first)
        await places.until(lambda: len(places.runs) == 2, within_s=40)
        places.world.heal()
        await places.until(lambda: len(places.runs) == 1, within_s=10)
        await trio.sleep(60)
        [(_, runs)] = places.runs.items()
        assert runs == {"tiny": 1}


async def test_what_both_sides_of_a_cut_deploy_is_there_when_it_heals(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c", "d") as places:
        places.world.cut("a", "b")
        await places["a"].orders.deploy(local("left"))
        await places["d"].orders.deploy(local("right"))
        places.world.heal()
        await trio.sleep(5)
        for place in places.all.values():
            assert set(place.orders.picture().catalogue) == {"left", "right"}


async def test_a_restarted_node_starts_nothing_twice_before_it_has_met_others(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(local("one"))
        await places["a"].orders.deploy(local("two"))
        before = places.runs
        # It has read the catalogue from its disk, and sees nobody yet.
        places.world.cut("a", "b")
        await places.start("c")
        for write in places.world.log:
            write.known_to.add("c")
        await trio.sleep(4)
        assert places.runs == before
        places.world.heal()
        await trio.sleep(60)
        assert places.runs == before


async def test_scaling_out_and_in_goes_over_the_nodes(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b", "c") as places:
        await places["a"].orders.deploy(local())
        await places["b"].orders.scale("tiny", 4)
        assert sorted(runs["tiny"] for runs in places.runs.values()) == [1, 1, 2]
        await places["c"].orders.scale("tiny", 2)
        await places.until(
            lambda: [r["tiny"] for r in places.runs.values()] == [1, 1], within_s=10
        )


async def test_a_removed_deployment_ends_everywhere(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(remote())
        assert await places["b"].orders.undeploy("gpt")
        assert places.runs == {}
        assert places["a"].serving.table.names() == ()
        assert not await places["b"].orders.undeploy("gpt")


async def test_a_change_reaches_all_nodes_and_can_be_undone(
    autojump_clock: object,
) -> None:
    async with open_places("a", "b") as places:
        await places["a"].orders.deploy(remote())
        wider = remote(serves=("gpt", "gpt-*"))
        await places["b"].orders.change(wider)
        assert [p.serving.table.names() for p in places.all.values()] == [
            ("gpt", "gpt-*"),
            ("gpt", "gpt-*"),
        ]
        await places["a"].orders.change(remote())
        entry = places["b"].orders.picture().catalogue["gpt"].entry
        assert (entry.revision, entry.by) == (3, "a")
