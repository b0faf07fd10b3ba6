"""A node without others counts its GPUs, too."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError, InferenceError, NotReadyError
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.placement import Placement
from atomr_infer.model.ray import RayHost
from atomr_infer.serving.deployments.deploying import keeps_all
from atomr_infer.serving.inventory import Gpu
from atomr_infer.serving.placing.alone import LocalOrders
from atomr_infer.serving.placing.seating import NoRoomError, Seating, Taken, counts
from tests.serving.test_inventory import Recorded

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
T4 = Gpu("GPU-1", "T4", 16 * GIB)

CODE = """
import os
from atomr_infer_python import Request

async def answer(request: Request) -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all of them")
"""


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded(T4)
    monkeypatch.setitem(sys.modules, "pynvml", recorded)
    return recorded


def wanting(name: str, gpus: int = 1, **more: Any) -> Deployment:
    placement = Placement(gpus=gpus, **more)
    return Deployment(name=name, runtime="mock", placement=placement)


async def test_the_second_of_two_that_need_the_one_gpu_is_refused() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        await cluster.deploy(wanting("a"))
        with pytest.raises(ConfigError) as refused:
            await cluster.deploy(wanting("b"))
        assert refused.value.message == (
            "deployment 'b' cannot be placed: this machine: has 0 of 1 GPUs with all "
            "memory free, for 1 of its replicas (GPUs here: T4 with 16 GiB; the NVIDIA "
            "driver); ask for fewer in [deployment.placement], or say with "
            "gpu_memory_gib how much of one each takes; what goes has its GPUs until "
            "what comes in its place serves"
        )
        assert [each.name for each in cluster.deployments()] == ["a"]
        # What needs none is not concerned; what has ended gives its own back.
        await cluster.deploy(wanting("c", 0))
        await cluster.undeploy("a")
        await cluster.deploy(wanting("b"))


async def test_of_two_that_come_at_once_one_is_refused() -> None:
    refused: list[str] = []

    async def deploy(cluster: Cluster, name: str) -> None:
        try:
            await cluster.deploy(wanting(name))
        except ConfigError as error:
            refused.append(error.message)

    async with Cluster.connect("inproc://n", environ={}) as cluster:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deploy, cluster, "a")
            nursery.start_soon(deploy, cluster, "b")
        assert len(refused) == len(cluster.deployments()) == 1


async def test_what_is_on_its_way_has_its_gpu_already() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        orders = cluster._serving.orders
        assert isinstance(orders, LocalOrders)
        seating, one, two = orders._seating, wanting("a"), wanting("b")
        await seating.look([one])
        with seating.seated(one):
            with pytest.raises(ConfigError, match="'b' cannot be placed"):
                seating.seated(two).__enter__()
            assert cluster._serving.gpu_seats.given == {"a": ((0,),)}
        with seating.seated(two):  # the other one never came
            assert cluster._serving.gpu_seats.given == {"b": ((0,),)}


async def test_what_says_how_much_it_takes_shares_a_gpu() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        for name in ("a", "b"):
            await cluster.deploy(wanting(name, gpu_memory_gib=7.0))
        with pytest.raises(ConfigError, match="0 of 1 GPUs with 7 GiB free"):
            await cluster.deploy(wanting("c", gpu_memory_gib=7.0))


async def test_what_cannot_become_another_one_keeps_what_it_has(
    driver: Recorded,
) -> None:
    driver.gpus = (T4, attrs.evolve(T4, uuid="GPU-2"))
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        await cluster.deploy(wanting("a"))
        seats = cluster._serving.gpu_seats
        with pytest.raises(ConfigError, match="has 2 GPUs, not 3"):
            await cluster.replace(wanting("a", 3))
        broken = attrs.evolve(wanting("a", 2), options={"weights": "none"})
        with pytest.raises((ConfigError, InferenceError)):
            await cluster.replace(broken)
        assert seats.given == {"a": ((0,),)}
        scaled = attrs.evolve(wanting("a"), serving=Serving(replicas=2))
        await cluster.replace(scaled)
        assert seats.given == {"a": ((0,), (1,))}
        # In one step one may take what the other one leaves.
        await cluster.replace(wanting("a"))
        await cluster.deploy(wanting("b"))
        await cluster.replace(wanting("a", 0), wanting("b", 2))
        assert seats.given == {"b": ((0, 1),)}


async def test_each_engine_sees_the_gpu_that_it_was_given(
    driver: Recorded, tmp_path: Path
) -> None:
    driver.gpus = (T4, attrs.evolve(T4, uuid="GPU-2"))
    file = tmp_path / "own.py"
    file.write_text(CODE)
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        seen = []
        for name in ("a", "b"):
            one = attrs.evolve(wanting(name), runtime=f"python:{file}:answer")
            await cluster.deploy(one)
            seen.append((await cluster.chat(name, "hello")).text)
        assert sorted(seen) == ["GPU-1", "GPU-2"]


async def test_a_machine_without_gpus_says_so(driver: Recorded) -> None:
    driver.gpus = ()
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        with pytest.raises(ConfigError, match=r"has 0 GPUs, not 1, .*here: none"):
            await cluster.deploy(wanting("a"))


def test_an_engine_on_ray_is_rays_affair() -> None:
    one = wanting("a")
    assert counts(one)
    assert not counts(attrs.evolve(one, ray=RayHost()))


async def test_where_nobody_can_ask_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        await cluster.deploy(wanting("a"))
        await cluster.deploy(wanting("b"))
    told = [each for each in caplog.messages if "not counted" in each]
    assert told == [
        "GPUs are not counted: nvidia-ml-py is not installed: "
        "pip install 'atomr-infer[gpu]'"
    ]


async def test_a_driver_that_does_not_answer_keeps_nobody_from_starting(
    driver: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    driver.problem = "Driver/library version mismatch"
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        await cluster.deploy(wanting("a"))
        await cluster.deploy(wanting("b"))
    told = [each for each in caplog.messages if "not counted" in each]
    assert told == [
        "GPUs are not counted: the NVIDIA driver says: Driver/library version mismatch"
    ]


async def deploy_at_once(cluster: Cluster, *wanted: Deployment) -> list[str]:
    """Return what was said to those that were refused."""
    refused: list[str] = []

    async def deploy(each: Deployment) -> None:
        try:
            await cluster.deploy(each)
        except ConfigError as error:
            refused.append(error.message)

    async with trio.open_nursery() as nursery:
        for each in wanted:
            nursery.start_soon(deploy, each)
    return refused


async def test_many_that_share_one_gpu_may_come_at_once() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        # What is on its way takes its share, not the whole of it.
        six = [wanting(f"d{n}", gpu_memory_gib=2.0) for n in range(6)]
        assert await deploy_at_once(cluster, *six) == []
        three = [wanting(f"e{n}", gpu_memory_gib=2.0) for n in range(3)]
        [refused] = await deploy_at_once(cluster, *three)
        assert "has 0 of 1 GPUs with 2 GiB free" in refused


async def test_what_drains_has_its_share_and_not_the_whole_gpu() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        one, two = (wanting(name, gpu_memory_gib=8.0) for name in "ab")
        await cluster.deploy(one)
        serving, seating = cluster._serving, seating_of(cluster)
        await cluster.undeploy("a")
        serving.draining = frozenset({"a"})  # as while its last request runs
        seating._give("a", Taken(one, ((0,),)))
        await cluster.deploy(two)
        with pytest.raises(NoRoomError):
            await cluster.deploy(wanting("c", gpu_memory_gib=1.0))
        serving.draining = frozenset()
        await cluster.deploy(wanting("c", gpu_memory_gib=1.0))


async def test_what_stays_after_its_first_failure_keeps_its_gpu(
    driver: Recorded, tmp_path: Path
) -> None:
    driver.gpus = (T4, attrs.evolve(T4, uuid="GPU-2"))
    file = tmp_path / "own.py"
    file.write_text(f"{CODE}\nraise RuntimeError('not yet')")
    bad = attrs.evolve(wanting("bad"), runtime=f"python:{file}:answer")
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        seats = cluster._serving.gpu_seats
        orders = cluster._serving.orders
        assert isinstance(orders, LocalOrders)
        with cluster.at_home(), pytest.raises(InferenceError):
            await orders.deploy(bad, keeps=keeps_all)
        await cluster.deploy(wanting("good"))
        assert seats.given == {"bad": ((0,),), "good": ((1,),)}
        with pytest.raises(NoRoomError):
            await cluster.deploy(wanting("third"))
        # What does not stay has none.
        await cluster.undeploy("bad")
        with pytest.raises(InferenceError):
            await cluster.deploy(bad)
        assert seats.given == {"good": ((1,),)}


async def test_nobody_gets_the_gpu_of_an_engine_that_is_being_replaced() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        await cluster.deploy(wanting("a"))
        seating = seating_of(cluster)
        with pytest.raises(LookupError), seating.seated(wanting("a", 0)):
            assert seating._serving.gpu_seats.given == {}
            with pytest.raises(NoRoomError):
                seating.seated(wanting("b")).__enter__()
            raise LookupError  # the other one did not come
        assert seating._serving.gpu_seats.given == {"a": ((0,),)}
        await cluster.replace(wanting("a", 0))
        await cluster.deploy(wanting("b"))


async def test_what_is_replaced_with_the_same_share_has_it_once() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        await cluster.deploy(wanting("a", gpu_memory_gib=7.0))
        seating = seating_of(cluster)
        other = attrs.evolve(wanting("a", gpu_memory_gib=7.0), options={"reply": "b"})
        with seating.seated(other):
            await cluster.deploy(wanting("b", gpu_memory_gib=7.0))


async def test_what_asks_for_more_of_its_gpu_than_is_free_is_refused() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        for name in ("a", "b"):
            await cluster.deploy(wanting(name, gpu_memory_gib=7.0))
        with pytest.raises(NoRoomError, match="its engine keeps its GPUs"):
            await cluster.replace(wanting("a", gpu_memory_gib=14.0))
        with pytest.raises(NoRoomError, match="its engine keeps its GPUs"):
            await cluster.replace(wanting("a"))
        await cluster.replace(wanting("a", gpu_memory_gib=9.0))
        with pytest.raises(NoRoomError):
            await cluster.deploy(wanting("c", gpu_memory_gib=1.0))
        # Together they may: what one leaves the other one takes.
        await cluster.replace(
            wanting("a", gpu_memory_gib=2.0), wanting("b", gpu_memory_gib=14.0)
        )


async def test_another_engine_that_takes_more_may_have_another_gpu(
    driver: Recorded,
) -> None:
    driver.gpus = (T4, attrs.evolve(T4, uuid="GPU-2"))
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        for name in ("a", "b"):
            await cluster.deploy(wanting(name, gpu_memory_gib=7.0))
        other = attrs.evolve(
            wanting("a", gpu_memory_gib=14.0), options={"reply": "more"}
        )
        await cluster.replace(other)
        given = cluster._serving.gpu_seats.given
        assert given == {"a": ((1,),), "b": ((0,),)}


async def test_all_of_a_start_have_what_a_plan_of_all_gives_them(
    driver: Recorded,
) -> None:
    driver.gpus = (T4, attrs.evolve(T4, uuid="GPU-2"))
    shares = {"a": 6.0, "b": 10.0, "c": 10.0, "d": 6.0}
    all_four = [wanting(name, gpu_memory_gib=gib) for name, gib in shares.items()]
    # One after the other, "a" and "d" take one GPU and "c" has no room.
    order = sorted(all_four, key=lambda each: each.placement.gpu_memory_gib or 0.0)
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        orders = cluster._serving.orders
        assert isinstance(orders, LocalOrders)
        with cluster.at_home():
            async with orders.seated(order):
                for each in order:
                    await orders.deploy(each)
        given = cluster._serving.gpu_seats.given
        assert given["a"] == given["b"] != given["c"] == given["d"]
        other = attrs.evolve(wanting("e", gpu_memory_gib=1.0))
        with cluster.at_home(), pytest.raises(NoRoomError):
            async with orders.seated([other]):
                raise AssertionError


async def test_of_two_of_one_name_the_second_waits() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        seating = seating_of(cluster)
        await seating.look([wanting("a")])
        with seating.seated(wanting("a")):
            with seating.seated(wanting("a")):
                pass
            assert cluster._serving.gpu_seats.given == {"a": ((0,),)}
            other = wanting("a", gpu_memory_gib=1.0)
            with pytest.raises(NotReadyError, match="another a is on its way"):
                seating.seated(other).__enter__()


async def test_what_has_no_room_is_explained_so() -> None:
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        name = cluster._serving.node.name
        assert cluster.explain(wanting("a", 5)).nodes == {name: ((),)}  # nobody looked
        await cluster.deploy(wanting("a"))
        told = cluster.explain(wanting("b", 5))
        assert (told.missing, told.nodes) == (1, {})
        assert told.obstacles == f"{name}: has 1 GPU, not 5"
        assert cluster.explain(wanting("a")).nodes == {name: ((0,),)}
        assert cluster.explain(wanting("c", 0)).nodes == {name: ((),)}
        assert cluster._serving.gpu_seats.given == {"a": ((0,),)}


def seating_of(cluster: Cluster) -> Seating:
    orders = cluster._serving.orders
    assert isinstance(orders, LocalOrders)
    return orders._seating
