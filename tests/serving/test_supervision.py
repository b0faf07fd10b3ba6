"""Killing the processes of the tree themselves, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr.process import kill, wait_exit, whereis
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.serving.names import MANAGER, coordinator_name, engine_core_name
from tests.serving.conftest import until

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree

M = Deployment(name="m", runtime="lab")


async def kill_name(name: str) -> None:
    pid = whereis(name)
    assert pid is not None, f"{name} runs"
    kill(pid)
    await until(lambda: whereis(name) not in (None, pid))


async def test_a_coordinator_that_dies_comes_back_without_touching_the_engine(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    two = Deployment(name="m", runtime="lab", serving=Serving(replicas=2))
    async with open_tree(two) as tree:
        await kill_name(coordinator_name("m"))
        await trio.sleep(0.1)
        assert (await tree.ask()).texts == ["one", " two"]
        assert len(tree.serving.replicas("m")) == 2
        assert tree.lab.opened == 2


async def test_an_engine_core_that_dies_takes_its_context_along(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await kill_name(engine_core_name("m", 0))
        await trio.sleep(0.1)
        assert (await tree.ask()).texts == ["one", " two"]
        assert (tree.lab.opened, tree.lab.closed) == (2, 1)


async def test_a_manager_that_dies_knows_its_deployments_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await kill_name(MANAGER)
        assert (await tree.ask()).texts == ["one", " two"]
        assert tree.lab.opened == 1
        assert await tree.serving.undeploy("m")
        assert tree.serving.table.names() == ()
        assert tree.lab.closed == 1


async def test_leaving_the_tree_closes_every_engine_and_ends_every_process(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        core = whereis(engine_core_name("m", 0))
    assert core is not None
    assert tree.lab.closed == 1
    with trio.fail_after(1):
        await wait_exit(core)


@pytest.mark.parametrize("replicas", [1, 3])
async def test_load_spreads_over_the_replicas(
    open_tree: OpenTree, autojump_clock: MockClock, replicas: int
) -> None:
    many = Deployment(
        name="m", runtime="lab", serving=Serving(replicas=replicas, max_concurrency=8)
    )
    async with open_tree(many) as tree:
        for runner in tree.lab.runners:
            object.__setattr__(runner.script, "delay_s", 1.0)
        async with trio.open_nursery() as nursery:
            for _ in range(3 * replicas):
                nursery.start_soon(tree.ask)
        assert [r.peak_active for r in tree.lab.runners] == [3] * replicas
