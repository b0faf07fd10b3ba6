"""Two replicas of one node do not take the same GPU."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.placement import Placement
from atomr_infer.serving.inventory import Gpu
from tests.serving.placing.real import open_fleet, until
from tests.serving.test_inventory import Recorded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving.placing.real import Node

GIB = 1 << 30
DRIVER = Recorded(Gpu("GPU-1", "T4", 16 * GIB), Gpu("GPU-2", "T4", 16 * GIB))

CODE = """
import os
import trio
from atomr_infer_python import Request

async def answer(request: Request) -> str:
    await trio.sleep(0.1)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all of them")
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "pynvml", DRIVER)
    file = tmp_path / "own.py"
    file.write_text(CODE)
    return f"python:{file}:answer"


async def seen(node: Node) -> set[str]:
    """Which GPUs the replicas see, each of them."""
    told: set[str] = set()

    async def ask() -> None:
        answer = await node.chat(model="m")
        told.add(answer.json["choices"][0]["message"]["content"])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    return told


async def test_each_replica_sees_the_gpus_that_it_was_given(
    tmp_path: Path, code: str
) -> None:
    one = Deployment(
        name="m",
        runtime=code,
        placement=Placement(gpus=1),
        serving=Serving(replicas=2),
    )
    async with open_fleet(tmp_path, "a") as fleet:
        node = fleet.nodes["a"]
        await node.cluster.deploy(one)
        assert await seen(node) == {"GPU-1", "GPU-2"}
        both = attrs.evolve(
            one, placement=Placement(gpus=2), serving=Serving(replicas=1)
        )
        await node.cluster.replace(both)
        assert await seen(node) == {"GPU-1,GPU-2"}
        await node.cluster.replace(attrs.evolve(both, placement=Placement()))
        assert await seen(node) == {"all of them"}


@pytest.mark.slow
async def test_what_has_ended_gives_its_gpus_back(tmp_path: Path, code: str) -> None:
    one = Deployment(name="m", runtime=code, placement=Placement(gpus=2))
    async with open_fleet(tmp_path, "a") as fleet:
        cluster = fleet.nodes["a"].cluster
        await cluster.deploy(one)
        await cluster.undeploy("m")
        await cluster.deploy(attrs.evolve(one, name="n"))
        await until(lambda: fleet.nodes["a"].runs() == {"n": 1})
