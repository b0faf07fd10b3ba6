"""What is kept per request goes with it, and what a coordinator knew stays."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.otp import ChildInfo, call, cast, which_children
from atomr.process import current_node, kill, spawn, wait_exit, whereis
from atomr.process.context import find_process
from atomr_infer.errors import EngineCrashedError, InferenceError, OverloadedError
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.serving.names import DEPLOYMENTS, coordinator_name, engine_core_name
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.engine_life import EngineLife
from atomr_infer.serving.replicas.replica import Lease, Phase
from atomr_infer.serving.replicas.routing_table import RoutingTable
from atomr_infer.serving.shared import Serving as Shared
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import forgotten, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from atomr.refs import Pid
from tests.serving.conftest import OpenTree

CRASH = EngineCrashedError("killed by SIGKILL (9)")
ONE = Deployment(
    name="m", runtime="lab", serving=Serving(max_concurrency=1, max_queue=1)
)
TWO = Deployment(name="m", runtime="lab", serving=Serving(replicas=2))


# --- errors that are kept -----------------------------------------------------


def from_the_table() -> Callable[[], object]:
    table = RoutingTable("m")
    table.note_error(CRASH)
    batch = ExecuteBatch(request_id="r", model="m", messages=())
    return partial(table.choose, frozenset(), ONE, batch)


def from_the_deployment() -> Callable[[], object]:
    serving = Shared(ServingNode())
    serving.fail("m", CRASH)
    return partial(serving.askable, "m")


def from_the_engines_life() -> Callable[[], object]:
    life = EngineLife()
    life.end(CRASH)

    def hold() -> None:
        with life.hold(trio.CancelScope()):
            raise AssertionError("it has ended")

    return hold


def frames(ask: Callable[[], object]) -> int:
    with pytest.raises(EngineCrashedError, match="SIGKILL") as caught:
        ask()
    return len(caught.traceback)


@pytest.mark.parametrize(
    "make", [from_the_table, from_the_deployment, from_the_engines_life]
)
def test_an_error_that_is_kept_does_not_grow_with_each_request(
    make: Callable[[], Callable[[], object]],
) -> None:
    ask = make()
    assert len({frames(ask) for _ in range(20)}) == 1


async def test_everyone_who_waits_for_a_deployment_gets_an_error_of_its_own(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    verdicts: list[InferenceError | None] = []

    async def wait() -> None:
        verdict = await call(coordinator_name("m"), messages.AwaitServing())
        verdicts.append(verdict)

    async with open_tree(ONE) as tree:
        tree.serving.routing("m").note_error(CRASH)
        (replica,) = tree.serving.replicas("m")
        cast(replica.core, messages.ContextFailed(CRASH))
        await trio.testing.wait_all_tasks_blocked()
        await wait()
        await wait()
    assert [str(verdict) for verdict in verdicts] == [str(CRASH)] * 2
    assert len({id(verdict) for verdict in [CRASH, *verdicts]}) == 3


# --- what an engine core keeps per request ------------------------------------


def monitors(pid: Pid) -> int:
    process = find_process(pid)
    assert process is not None
    return len(process.monitoring or ())


async def test_a_core_lets_go_of_a_process_that_asks_many_times(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(ONE) as tree:
        (replica,) = tree.serving.replicas("m")
        admit = messages.Admit(spawn(trio.sleep_forever))
        before = monitors(replica.core)
        for _ in range(3):
            lease = await call(replica.core, admit)
            assert isinstance(lease, Lease)
            cast(replica.core, messages.Release(lease.ref))
        await tree.idle()
        assert monitors(replica.core) == before


async def test_a_core_lets_go_of_a_process_that_it_refuses(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(ONE) as tree:
        (replica,) = tree.serving.replicas("m")
        admit = messages.Admit(spawn(trio.sleep_forever))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, replica.core, admit)
            nursery.start_soon(call, replica.core, admit)
            await trio.testing.wait_all_tasks_blocked()
            before = monitors(replica.core)
            for _ in range(3):
                assert isinstance(await call(replica.core, admit), OverloadedError)
            assert monitors(replica.core) == before
            nursery.cancel_scope.cancel()


async def test_the_timer_of_a_wait_ends_with_the_wait(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(ONE) as tree:
        (replica,) = tree.serving.replicas("m")
        admit = messages.Admit(spawn(trio.sleep_forever))
        first = await call(replica.core, admit)
        assert isinstance(first, Lease)
        before = current_node().timers.size
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(call, replica.core, admit, timeout_s=None))
            await trio.testing.wait_all_tasks_blocked()
            assert current_node().timers.size == before + 1
            cast(replica.core, messages.Release(first.ref))
        assert current_node().timers.size == before


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fail_after", [None, 0, 1])
async def test_a_request_leaves_nothing_to_the_garbage_collector(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    stream: bool,
    fail_after: int | None,
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(fail_after=fail_after)]
        # A retry is logged with its error, and this test's log keeps that.
        once = attrs.evolve(ONE, retry=RetryPolicy(max_attempts=1))
        await tree.serving.deploy(once)
        assert await forgotten(tree, stream=stream)


# --- what outlives a coordinator ----------------------------------------------


async def child(supervisor: Pid | str, name: str) -> Pid:
    found: list[ChildInfo] = [
        info for info in await which_children(supervisor) if info.id == name
    ]
    assert found[0].pid is not None
    return found[0].pid


async def new_coordinator() -> None:
    pid = whereis(coordinator_name("m"))
    assert pid is not None
    kill(pid)
    await until(lambda: whereis(coordinator_name("m")) not in (None, pid))


async def lose_replica() -> None:
    replicas = await child(await child(DEPLOYMENTS, "m"), "replicas")
    lost = await child(replicas, "replica-0")
    kill(lost)
    await wait_exit(lost)


async def test_a_new_coordinator_knows_which_replicas_are_gone(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(TWO) as tree:
        await lose_replica()
        await until(lambda: len(tree.serving.replicas("m")) == 1)
        await new_coordinator()
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            assert await call(coordinator_name("m"), messages.AwaitServing()) is None


async def test_a_new_coordinator_asks_for_the_replicas_that_it_does_not_know(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(TWO) as tree:
        core = whereis(engine_core_name("m", 1))
        assert core is not None
        tree.serving.routing("m").remove(core)
        await new_coordinator()
        await trio.testing.wait_all_tasks_blocked()
        assert [replica.number for replica in tree.serving.replicas("m")] == [0, 1]
        assert tree.serving.routing("m").gone == frozenset()


async def test_a_new_coordinator_reports_what_changed_meanwhile(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(ONE) as tree:
        tree.serving.enter("m", Phase.LOADING)
        await new_coordinator()
        assert tree.serving.readiness().phases == {"m": "serving"}
