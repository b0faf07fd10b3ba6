"""A node without others counts its GPUs, too."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError, InferenceError
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.placement import Placement
from atomr_infer.model.ray import RayHost
from atomr_infer.serving.inventory import Gpu
from atomr_infer.serving.placing.alone import LocalOrders
from atomr_infer.serving.placing.seating import counts
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
            "gpu_memory_gib how much of one each takes"
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
