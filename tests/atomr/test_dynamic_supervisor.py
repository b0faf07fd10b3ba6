"""DynamicSupervisor: children that come and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.supervision import GaveUp
from atomr.errors import (
    ChildError,
    ChildNotFoundError,
    MaxChildrenError,
    RootExitError,
    StartError,
)
from atomr.otp import (
    ChildCounts,
    ChildInfo,
    ChildKind,
    ChildState,
    DynamicSupervisor,
    GenServer,
    Restart,
    Stop,
    Supervisor,
    call,
    cast,
    child,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from atomr.process import Node, kill, open_node, wait_exit, whereis

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")


class Session(GenServer):
    """Ends as it is told; takes a second to close."""

    def handle_cast(self, reason: ExitReason) -> Stop:
        return Stop(reason)

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(1.0)


@pytest.mark.parametrize("kind", [DynamicSupervisor, Supervisor])
async def test_a_child_that_is_terminated_is_two_events_of_its_supervisor(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    kind: type[DynamicSupervisor | Supervisor],
) -> None:
    seen: list[tuple[str, object]] = []

    def handler(
        event: telemetry.Event, _: object, metadata: Mapping[str, object]
    ) -> None:
        seen.append((event[-1], dict(metadata)))

    async with clean_node() as node:
        top = await node.start(child(kind))
        telemetry.attach("events", ("atomr", "supervisor"), handler)
        try:
            pid = await start_child(top, child(Session))
            await terminate_child(top, pid)
        finally:
            telemetry.detach("events")

    about = {"supervisor": top, "child": "Session", "pid": pid}
    assert seen == [("child_start", about), ("child_terminate", about)]


async def test_children_are_started_known_by_pid_and_counted(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        first = await start_child(top, child(Session))
        second = await start_child(top, child(Session))
        assert await which_children(top) == tuple(
            ChildInfo("Session", pid, ChildKind.WORKER, ChildState.RUNNING)
            for pid in (first, second)
        )
        assert await count_children(top) == ChildCounts(2, 2, 0, 2)
        await terminate_child(top, first)
        assert await count_children(top) == ChildCounts(1, 1, 0, 1)
        with pytest.raises(ChildNotFoundError):
            await terminate_child(top, first)


async def test_the_failure_of_a_start_is_the_callers(clean_node: CleanNode) -> None:
    class Fails(GenServer):
        def init(self) -> None:
            raise CRASH

    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        with pytest.raises(StartError) as caught:
            await start_child(top, child(Fails))
        assert caught.value.__cause__ is CRASH
        assert await which_children(top) == ()


@pytest.mark.parametrize(
    ("restart", "reason", "children"),
    [
        (Restart.PERMANENT, NORMAL, 1),
        (Restart.TRANSIENT, NORMAL, 0),
        (Restart.TRANSIENT, CRASH, 1),
        (Restart.TEMPORARY, CRASH, 0),
    ],
)
async def test_a_child_is_restarted_by_its_type_and_reason(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    restart: Restart,
    reason: ExitReason,
    children: int,
) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        pid = await start_child(top, child(Session, restart=restart))
        cast(pid, reason)
        await wait_exit(pid)
        await settle()
        infos = await which_children(top)
        assert len(infos) == children
        assert all(info.pid not in (None, pid) for info in infos)


async def test_one_window_counts_the_restarts_of_all_children(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(RootExitError) as caught:
        async with open_node() as node:
            top = await node.start(DynamicSupervisor(max_restarts=2))
            for number in range(3):
                kill(await start_child(top, child(Session, id=f"s{number}")))
                await settle()
            await trio.sleep_forever()

    assert caught.value.reason == Shutdown(GaveUp("s2", KILLED, 2, 5.0))


async def test_a_backoff_is_seen_and_keeps_its_place(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor(backoff_s=3.0, max_children=1))
        kill(await start_child(top, child(Session, name="it")))
        await settle()
        assert [i.state for i in await which_children(top)] == [ChildState.RESTARTING]
        with pytest.raises(MaxChildrenError, match="has 1 children already"):
            await start_child(top, child(Session))
        await trio.sleep(3.1)
        assert whereis("it") is not None


async def test_children_that_cannot_start_again_use_the_intensity_up(
    clean_node: CleanNode,
) -> None:
    starts = 0

    class FailsLater(GenServer):
        def init(self) -> None:
            nonlocal starts
            starts += 1
            if starts > 1:
                raise CRASH

    async with clean_node() as node:
        spec = child(DynamicSupervisor, restart=Restart.TEMPORARY)
        top = await node.start(spec)
        kill(await start_child(top, child(FailsLater)))
        reason = await wait_exit(top)

    assert starts == 4
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)
    assert isinstance(reason.detail.reason, StartError)
    assert reason.detail.reason.reason is CRASH


async def test_all_children_stop_at_the_same_time(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        for _ in range(100):
            await start_child(top, child(Session))
        began = trio.current_time()
        await node.stop()
        assert trio.current_time() - began == 1.0


async def test_operations_that_need_an_id_are_refused(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: restart_child(top, "a"),
            lambda: delete_child(top, "a"),
            lambda: call(top, "what?"),
        ]
        for use in uses:
            with pytest.raises(ChildError, match="knows no such request"):
                await use()
        with pytest.raises(ChildError, match="knows its children by pid"):
            await terminate_child(top, "a")


async def test_a_kill_of_the_supervisor_takes_its_children_along(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    async with clean_node() as node:
        top = await node.start(child(DynamicSupervisor, restart=Restart.TEMPORARY))
        process = node.processes[(await start_child(top, child(Session))).number]
        kill(top)
        assert await wait_exit(top) is KILLED
        assert (process.reason, node.processes) == (SHUTDOWN, {})
