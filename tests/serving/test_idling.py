"""Engines that nobody asks are stopped, and started by the next request."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import (
    EngineCrashedError,
    EngineStartError,
    InferenceError,
    NotReadyError,
    OverloadedError,
)
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.model.failover import OnCapacity, Swap
from atomr_infer.serving.replicas.replica import Phase
from atomr_infer.testing.mock_script import MockScript
from tests.gateway.http import until as really_until
from tests.serving.conftest import Collected, until

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree, Tree

RESTS = Serving(idle_stop_s=60.0)
M = Deployment(
    name="m", runtime="lab", serving=RESTS, retry=RetryPolicy(max_attempts=1)
)


@pytest.fixture
def way() -> str:
    """The straight way where there is one: who finds no engine goes the other."""
    return "straight"


def phase(tree: Tree) -> str:
    """Return the deployment's phase, as operators see it."""
    return tree.serving.readiness().phases["m"]


async def asleep(tree: Tree) -> None:
    """Wait until the engine is stopped."""
    await until(lambda: phase(tree) == "asleep", within_s=1000, every_s=0.2)
    await until(lambda: tree.lab.closed == tree.lab.opened)


async def test_an_idle_engine_stops_and_the_next_request_starts_it(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await tree.ask()
        began = trio.current_time()
        await asleep(tree)
        assert 60 <= trio.current_time() - began <= 67
        assert (tree.lab.opened, tree.lab.closed) == (1, 1)
        assert tree.serving.readiness().ready
        tree.lab.plan = [MockScript(load_s=30.0)]
        began = trio.current_time()
        assert len((await tree.ask()).texts) > 0
        assert trio.current_time() - began >= 30
        assert (tree.lab.opened, phase(tree)) == (2, "serving")
        await asleep(tree)
        assert tree.lab.closed == 2


async def test_deaths_between_rests_do_not_add_up(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(load_s=40.0)] * 40
        await tree.serving.deploy(M)
        for _ in range(8):
            # It answers, and goes to rest; woken, it dies with nobody there.
            await tree.ask()
            await asleep(tree)
            with trio.move_on_after(20):
                await tree.ask()
            await until(lambda: phase(tree) == "serving", within_s=90)
            tree.lab.runners[-1].fail(EngineCrashedError("killed by SIGKILL (9)"))
            await trio.sleep(60)
        assert tree.serving.replicas("m") != ()


async def test_an_engine_in_use_does_not_stop(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        for _ in range(20):
            await tree.ask()
            await trio.sleep(50)
        assert tree.lab.opened == 1
        tree.lab.runners[0].script = MockScript(tokens=4, delay_s=50.0)
        await tree.ask()
        assert (tree.lab.opened, tree.lab.closed) == (1, 0)


async def test_requests_that_come_together_wake_it_once(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await asleep(tree)
        # Longer than a request waits in the queue of an engine that runs.
        tree.lab.plan = [MockScript(load_s=300.0)]
        sinks = [Collected() for _ in range(10)]
        async with trio.open_nursery() as nursery:
            for sink in sinks:
                nursery.start_soon(partial(tree.ask, sink=sink))
            await until(lambda: phase(tree) == "waking")
            assert tree.serving.readiness().ready
        assert all(sink.texts for sink in sinks)
        assert tree.lab.opened == 2


async def test_when_it_cannot_be_started_all_that_wait_are_told_why(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await asleep(tree)
        why = EngineStartError("9 MiB needed, 8 MiB free", code="out_of_memory")
        tree.lab.plan = [why]
        told: list[tuple[type, str, str | None]] = []

        async def ask() -> None:
            with pytest.raises(InferenceError) as caught:
                await tree.ask()
            error = caught.value
            told.append((type(error), error.message, error.code))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert told == [(type(why), why.message, why.code)] * 3
        assert phase(tree) == "asleep"
        assert tree.serving.replicas("m")[0].error is why
        # It is not loaded for each request that comes now.
        tree.lab.plan = [why]
        await ask()
        assert (len(told), len(tree.lab.plan)) == (4, 1)
        # And is tried again a little later, when there may be room.
        await trio.sleep(1)
        await ask()
        assert tree.lab.plan == []
        await trio.sleep(2)
        assert len((await tree.ask()).texts) > 0
        assert (await tree.replica()).error is None


@pytest.mark.parametrize(
    ("serving", "error"),
    [
        (attrs.evolve(RESTS, on_capacity_exhausted=OnCapacity.REJECT), NotReadyError),
        (attrs.evolve(RESTS, max_queue=0), OverloadedError),
    ],
)
async def test_who_may_not_wait_wakes_it_all_the_same(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    serving: Serving,
    error: type[InferenceError],
) -> None:
    async with open_tree(attrs.evolve(M, serving=serving)) as tree:
        await asleep(tree)
        with pytest.raises(error):
            await tree.ask()
        await until(lambda: phase(tree) == "serving")
        assert len((await tree.ask()).texts) > 0


async def test_a_client_that_leaves_while_it_starts_leaves_nothing(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await asleep(tree)
        tree.lab.plan = [MockScript(load_s=30.0)]
        with trio.move_on_after(10):
            await tree.ask()
        await tree.idle()
        await until(lambda: phase(tree) == "serving")
        await asleep(tree)


async def test_a_request_that_comes_while_it_stops_is_served(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.lab.close_s = 5.0
        await until(lambda: phase(tree) == "asleep", within_s=100)
        began = trio.current_time()
        assert len((await tree.ask()).texts) > 0
        # One engine at a time: there may be room for no more.
        assert trio.current_time() - began > 4
        assert tree.lab.opened == 2


@pytest.mark.parametrize("swap", list(Swap))
async def test_one_that_rests_can_be_replaced(
    open_tree: OpenTree, autojump_clock: MockClock, swap: Swap
) -> None:
    first = attrs.evolve(M, serving=attrs.evolve(RESTS, swap=swap))
    async with open_tree(first) as tree:
        await asleep(tree)
        await tree.serving.replace(attrs.evolve(first, options={"endpoint": "x"}))
        await until(lambda: phase(tree) == "serving")
        assert tree.lab.opened == 2
        assert len((await tree.ask()).texts) > 0
        await asleep(tree)
        # Nothing is left of the one before.
        assert len((await tree.ask()).texts) > 0
        assert tree.lab.opened == 3


async def test_it_rests_from_when_it_is_told_so_while_it_serves(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(attrs.evolve(M, serving=Serving())) as tree:
        await trio.sleep(200)
        assert phase(tree) == "serving"
        await tree.serving.replace(M)
        await asleep(tree)
        await tree.serving.replace(attrs.evolve(M, serving=Serving()))
        assert len((await tree.ask()).texts) > 0
        await trio.sleep(200)
        assert (tree.lab.opened, phase(tree)) == (2, "serving")


async def test_one_that_rests_is_taken_away(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await asleep(tree)
        assert await tree.serving.undeploy("m", drain_s=5)
        assert tree.serving.deployments == {}


async def test_a_second_replica_wakes_when_the_first_has_no_place(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    serving = attrs.evolve(RESTS, replicas=2, max_concurrency=1)
    async with open_tree(attrs.evolve(M, serving=serving)) as tree:
        await asleep(tree)
        tree.lab.plan = [MockScript(tokens=2, delay_s=20.0)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await until(lambda: tree.lab.opened == 3)
            await trio.sleep(1)
            phases = [replica.phase for replica in tree.serving.replicas("m")]
            assert sorted(p.value for p in phases) == ["asleep", "serving"]
            await tree.ask()
        assert tree.lab.opened == 4


async def test_a_real_engines_process_is_gone_while_it_rests(
    open_tree: OpenTree,
) -> None:
    others = _children()  # Of what else this interpreter runs.
    rests = Serving(idle_stop_s=0.2)
    deployment = Deployment(
        name="m", runtime="awkward", serving=rests, timeouts=Timeouts(load_s=60)
    )
    async with open_tree(deployment) as tree:
        replica = await tree.replica()
        await really_until(lambda: replica.phase is not Phase.SERVING, within_s=30)
        pids = _children() - others
        await really_until(lambda: not _children() - others, within_s=30)
        assert replica.engine_pid is None
        assert len((await tree.ask("count 2")).texts) == 2
        assert not pids & _children()


def _children() -> set[int]:
    """Return the pids of this process's children."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(map(int, file.read().split()))
