"""What a reload gives the new deployments of its file, on a node without others."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.cli.plan import ServePlan, plan_serving
from atomr_infer.cli.serving.reload import Reloader
from atomr_infer.cluster import Cluster
from tests.cli.serving.test_gpus_at_start import FOUR, T4, one
from tests.serving.test_inventory import Recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment

NOTHING = '[[deployment]]\nname = "m"\nruntime = "mock"\n'


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded(T4)
    monkeypatch.setitem(sys.modules, "pynvml", recorded)
    return recorded


@attrs.frozen
class Served:
    """What serves, and what reads its file again."""

    cluster: Cluster
    reloader: Reloader


@asynccontextmanager
async def serving(path: Path, more: str) -> AsyncIterator[Served]:
    """Serve a deployment without a GPU, to whose file more was added."""

    def again() -> ServePlan:
        return plan_serving(config_path=path, bind=None)

    async with Cluster.connect("inproc://n", environ={}) as cluster:
        file = trio.Path(path)
        await file.write_text(NOTHING)
        plan = await trio.to_thread.run_sync(again)
        await file.write_text(NOTHING + more)
        await cluster.deploy(*plan.deployments)
        gateway = await cluster.serve("127.0.0.1:0")
        async with trio.open_nursery() as nursery:
            yield Served(cluster, Reloader(cluster, gateway, plan, again, nursery))
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("names", "line"), [("ab", 13), ("ba", 7)])
async def test_of_two_that_need_the_one_gpu_none_begins_in_either_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, line: int
) -> None:
    path = tmp_path / "atomr.toml"
    begun: list[str] = []
    deploy = Cluster.deploy

    async def note(
        self: Cluster, *deployments: Deployment, expected: Iterable[str] = ()
    ) -> None:
        begun.extend(deployment.name for deployment in deployments)
        await deploy(self, *deployments, expected=expected)

    async with serving(path, "".join(one(name, 10) for name in names)) as served:
        monkeypatch.setattr(Cluster, "deploy", note)
        found = await served.reloader.reload("test")

        assert found.refused is not None
        assert found.refused.startswith(
            f"{path}:{line}: deployment 'b' cannot be placed"
        )
        assert [status.name for status in served.cluster.deployments()] == ["m"]
    assert begun == []


async def test_all_that_is_new_is_planned_together(
    tmp_path: Path, driver: Recorded
) -> None:
    driver.gpus = (T4, attrs.evolve(T4, uuid="GPU-2"))
    path = tmp_path / "atomr.toml"
    for _ in range(3):
        async with serving(path, FOUR) as served:
            assert (await served.reloader.reload("test")).refused is None

            given = served.cluster._serving.gpu_seats.given
            assert given["a"] == given["b"] != given["c"] == given["d"]


@pytest.mark.parametrize("gib", [6, 20])
async def test_what_a_program_deployed_keeps_its_gpus_while_the_file_names_it(
    tmp_path: Path, driver: Recorded, monkeypatch: pytest.MonkeyPatch, gib: float
) -> None:
    driver.gpus = (T4, attrs.evolve(T4, uuid="GPU-2"))
    path, other = tmp_path / "atomr.toml", tmp_path / "program.toml"
    other.write_text(one("x", 10) + one("y", 10))
    async with serving(path, one("x", gib)) as served:
        by_program = await trio.to_thread.run_sync(
            lambda: plan_serving(config_path=other, bind=None)
        )
        for deployment in by_program.deployments:
            await served.cluster.deploy(deployment)
        seats = served.cluster._serving.gpu_seats
        given, changes = dict(seats.given), []
        monkeypatch.setattr(seats, "give", lambda *args: changes.append(args))

        found = await served.reloader.reload("test")

        assert found.refused == "deployment 'x' exists already; names are unique"
        assert (changes, seats.given) == ([], given)
        assert given.keys() == {"x", "y"}
