"""TaskSupervisor: tasks that are seen, bounded, restarted and stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.child_spec import BRUTAL_KILL
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.supervision import GaveUp
from atomr.errors import (
    ChildNotFoundError,
    MaxChildrenError,
    NoProcessError,
    ProcessKilledError,
    StartError,
)
from atomr.otp import (
    ChildCounts,
    ChildInfo,
    ChildKind,
    ChildState,
    Done,
    DynamicSupervisor,
    Exited,
    OnTimeout,
    Restart,
    Supervisor,
    Task,
    TaskSupervisor,
    async_,
    async_nolink,
    await_many,
    callers,
    child,
    count_children,
    start_task,
    supervision_tree,
    sys,
    task_children,
    terminate_child,
    which_children,
    yield_many,
)
from atomr.process import (
    Node,
    attached,
    exit_process,
    is_alive,
    kill,
    receive,
    self_pid,
    spawn,
    trap_exit,
    wait_exit,
    whereis,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")


async def open_tasks(
    node: Node,
    *,
    max_children: int | None = None,
    max_restarts: int = 3,
    backoff_s: float = 0.0,
) -> Pid:
    """Start a supervisor of tasks that may end without ending the node."""
    spec = child(
        lambda: TaskSupervisor(
            max_children=max_children, max_restarts=max_restarts, backoff_s=backoff_s
        ),
        id="tasks",
        name="tasks",
        restart=Restart.TEMPORARY,
    )
    return await node.start(spec)


async def crash() -> int:
    raise CRASH


async def forever() -> None:
    await trio.sleep_forever()


async def give(value: int) -> int:
    return value


async def slow_to_close(close_s: float) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(close_s)


# --- children ------------------------------------------------------------------


async def test_tasks_are_children_while_they_run(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.Supervisor.children/1] The pids of all tasks that run.
    [Task.Supervisor.terminate_child/2] Stops the one with that pid; for any other it is
      an error.
    """
    async with clean_node() as node:
        top = await open_tasks(node)
        task = async_("tasks", forever)
        forgotten = start_task(top, forever)
        kept = start_task(top, forever, restart=Restart.PERMANENT)
        async_nolink("tasks", give, 1)
        await settle()
        assert task.pid is not None
        assert await task_children(top) == (task.pid, forgotten, kept)
        infos = tuple(
            ChildInfo("forever", pid, ChildKind.WORKER, ChildState.RUNNING)
            for pid in (task.pid, forgotten, kept)
        )
        assert await which_children(top) == infos
        assert await sys.get_state(top) == infos
        assert await count_children(top) == ChildCounts(3, 3, 0, 3)
        tree = supervision_tree(top)
        assert tree is not None
        assert {below.pid for below in tree.children} == {i.pid for i in infos}
        assert {below.behaviour for below in tree.children} == {"Task"}
        await terminate_child(top, forgotten)
        assert await task_children(top) == (task.pid, kept)
        with pytest.raises(ChildNotFoundError):
            await terminate_child(top, forgotten)


async def test_a_full_supervisor_takes_no_task_until_one_has_ended(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.Supervisor.async/3] Above max_children a start is an error, whichever it
    is.
    """
    async with clean_node() as node:
        await open_tasks(node, max_children=2)
        first, _ = async_("tasks", forever), start_task("tasks", forever)
        for start in (async_, async_nolink, start_task):
            with pytest.raises(MaxChildrenError):
                start("tasks", forever)
        with pytest.raises(MaxChildrenError):
            start_task("tasks", forever, restart=Restart.TRANSIENT)
        await first.shutdown()
        assert await async_("tasks", give, 1).result() == 1
        # One that waits for a value finds the place of the ended task free.
        assert await async_("tasks", give, 2).result() == 2


async def test_a_task_needs_a_task_supervisor(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await node.start(child(DynamicSupervisor, name="others"))
        for start in (async_, async_nolink, start_task):
            with pytest.raises(TypeError, match="expected a TaskSupervisor, not a Dyn"):
                start("others", forever)
            with pytest.raises(NoProcessError, match="nobody"):
                start("nobody", forever)


async def test_a_task_starts_though_its_supervisor_is_suspended(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await open_tasks(node)
        await sys.suspend(top)
        assert await async_("tasks", give, 1).result() == 1
        await sys.resume(top)
        assert await task_children(top) == ()


async def test_a_task_under_a_supervisor_of_another_tree_is_on_its_node(
    clean_node: CleanNode,
) -> None:
    async def whose() -> Pid | None:
        return whereis("tasks")

    async with clean_node() as node:
        top = await open_tasks(node)
        assert await async_(top, whose).result() is top


# --- links ---------------------------------------------------------------------


@pytest.mark.parametrize(("start", "ends"), [(async_, True), (async_nolink, False)])
async def test_a_crash_ends_a_linked_caller_only(
    clean_node: CleanNode, schedule: int, start: Callable[..., object], ends: bool
) -> None:
    """[Task.Supervisor.async/3] The task is linked to its caller, not to its supervisor
      only.
    [Task.Supervisor.async_nolink/3] The task is not linked to its caller.
    """

    async def caller() -> None:
        start("tasks", crash)
        await trio.sleep_forever()

    async with clean_node() as node:
        top = await open_tasks(node)
        pid = spawn(caller)
        await settle()
        assert is_alive(pid) is not ends
        assert is_alive(top)


async def test_a_block_that_is_a_process_ends_with_its_task_and_its_caller_goes_on(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        top = await open_tasks(node)
        with pytest.raises(ProcessKilledError) as caught:
            async with attached(top, id="request"):
                await async_("tasks", crash).result()
        assert caught.value.reason is CRASH
        async with attached(top, id="request"):
            task = async_("tasks", forever)
        assert await task.shutdown() is None


async def test_a_task_that_is_not_linked_outlives_its_caller(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.Supervisor.async_nolink/3] Nor is the caller's end the task's."""
    tasks: list[Task[None]] = []

    async def caller() -> None:
        tasks.extend((async_nolink("tasks", forever), async_("tasks", forever)))
        await trio.sleep(1)
        raise CRASH

    async with clean_node() as node:
        await open_tasks(node)
        await wait_exit(spawn(caller))
        await settle()
        assert [task.outcome for task in tasks] == [None, Exited(CRASH)]


async def test_a_forgotten_task_is_linked_to_nobody(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.Supervisor.start_child/3] A task for its effect: nobody waits for it, and
    nobody is linked.
    """
    pids: list[Pid] = []

    async def caller() -> None:
        start_task("tasks", crash)
        pids.append(start_task("tasks", forever))
        await trio.lowlevel.checkpoint()
        raise KeyError

    async with clean_node() as node:
        await open_tasks(node)
        assert isinstance(await wait_exit(spawn(caller)), KeyError)
        await settle()
        assert is_alive(pids[0])


# --- restarts --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "ends", "runs"),
    [
        (Restart.TEMPORARY, [CRASH], 1),
        (Restart.TRANSIENT, [NORMAL], 1),
        (Restart.TRANSIENT, [SHUTDOWN], 1),
        (Restart.TRANSIENT, [CRASH, KILLED, NORMAL], 3),
        (Restart.PERMANENT, [NORMAL, SHUTDOWN, CRASH], 4),
    ],
)
async def test_a_forgotten_task_is_restarted_by_its_type_and_reason(
    clean_node: CleanNode,
    schedule: int,
    restart: Restart,
    ends: list[ExitReason],
    runs: int,
) -> None:
    """[Task.Supervisor.start_child/3] restart: temporary by default, transient or
    permanent, as for any child.
    """
    ran: list[str] = []

    async def run(word: str) -> None:
        ran.append(word)
        reason = ends[len(ran) - 1] if len(ran) <= len(ends) else None
        if isinstance(reason, ValueError):
            raise reason
        if reason is not NORMAL:
            if reason is not None:
                exit_process(self_pid(), reason)
            await trio.sleep_forever()

    async with clean_node() as node:
        await open_tasks(node)
        start_task("tasks", run, "w", restart=restart)
        await settle()
        assert ran == ["w"] * runs


async def test_a_restarted_task_keeps_its_callers_and_their_context(
    clean_node: CleanNode, schedule: int
) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[tuple[object, ...]] = []

    async def flaky() -> None:
        seen.append((callers(), request.get(), self_pid(), whereis("tasks")))
        if len(seen) < 3:
            raise CRASH

    async def caller() -> None:
        request.set("r1")
        start_task("tasks", flaky, restart=Restart.TRANSIENT)

    async with clean_node() as node:
        top = await open_tasks(node)
        pid = spawn(caller)
        await settle()

    assert [(who, what, where) for who, what, _, where in seen] == [
        ((pid,), "r1", top)
    ] * 3
    assert len({own for _, _, own, _ in seen}) == 3


async def test_tasks_that_crash_too_often_end_their_supervisor(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.Supervisor.start_link/1] max_restarts and max_seconds are those of a
    DynamicSupervisor.
    """
    async with clean_node() as node:
        top = await open_tasks(node, max_restarts=2)
        bystander = async_nolink("tasks", forever)
        start_task("tasks", crash, restart=Restart.PERMANENT)
        reason = await wait_exit(top)
        assert reason == Shutdown(GaveUp("crash", CRASH, 2, 5.0))
        assert bystander.outcome == Exited(SHUTDOWN)


async def test_temporary_tasks_may_crash_as_often_as_they_like(
    clean_node: CleanNode,
) -> None:
    """[Task.Supervisor.async_nolink/3] Tasks with a value are temporary, as they cannot
    be restarted; their crashes are no restarts.
    """
    async with clean_node() as node:
        top = await open_tasks(node)
        for _ in range(20):
            assert await async_nolink("tasks", crash).yield_() == Exited(CRASH)
        assert is_alive(top)


async def test_the_backoff_of_the_supervisor_holds_for_its_tasks(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    ran: list[float] = []

    async def flaky() -> None:
        ran.append(trio.current_time())
        if len(ran) < 3:
            raise CRASH

    async with clean_node() as node:
        await open_tasks(node, backoff_s=1)
        start_task("tasks", flaky, restart=Restart.TRANSIENT)
        await trio.sleep(10)
    assert ran == [0.0, 1.0, 3.0]


# --- ends ----------------------------------------------------------------------


async def test_a_stop_ends_all_tasks_at_the_same_time(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task: Dynamically supervised tasks] When their supervisor stops all tasks end
    within their shutdown time.
    """
    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        tasks = [async_("tasks", slow_to_close, 2.0) for _ in range(50)]
        start_task("tasks", slow_to_close, 2.0, restart=Restart.PERMANENT)
        await settle()
        began = trio.current_time()
        await node.stop()
        assert trio.current_time() - began == 2.0
        assert {task.outcome for task in tasks} == {Exited(SHUTDOWN)}


@pytest.mark.parametrize(
    ("shutdown", "took_s", "outcome"),
    [
        (5.0, 1.0, Done("closed")),
        (0.5, 0.5, Exited(KILLED)),
        (BRUTAL_KILL, 0.0, Exited(KILLED)),
    ],
)
async def test_a_task_that_traps_exits_has_its_shutdown_time(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    shutdown: float,
    took_s: float,
    outcome: object,
) -> None:
    """[Task.Supervisor.async/3] shutdown: a time, by default 5 s, which counts for
    tasks that trap exits; or brutal_kill.
    """

    async def closes() -> str:
        trap_exit(True)
        await receive()
        await trio.sleep(1.0)
        return "closed"

    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        task = async_("tasks", closes, shutdown=shutdown)
        await settle()
        await node.stop()
        assert (trio.current_time(), task.outcome) == (took_s, outcome)


async def test_a_stopping_supervisor_takes_no_task(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    failures: list[BaseException] = []

    async def starts_another() -> None:
        try:
            await trio.sleep_forever()
        finally:
            for restart in (Restart.TEMPORARY, Restart.PERMANENT):
                try:
                    start_task("tasks", forever, restart=restart)
                except StartError as error:
                    failures.append(error)

    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        async_("tasks", starts_another)
        await settle()
        await node.stop()
    assert [str(error) for error in failures] == [
        "start of 'forever' failed: the supervisor is stopping"
    ] * 2


async def test_a_kill_of_the_supervisor_takes_all_tasks_and_blocks_along(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        top = await open_tasks(node)
        task = async_nolink("tasks", forever)
        start_task("tasks", forever, restart=Restart.PERMANENT)

        async def block() -> None:
            async with attached(top, id="block"):
                await trio.sleep_forever()

        blocked = spawn(block)
        await settle()
        kill(top)
        assert await wait_exit(top) is KILLED
        await wait_exit(blocked)
        assert task.outcome == Exited(SHUTDOWN)
        assert node.processes == {}


async def test_a_supervisor_that_is_restarted_begins_empty(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Task.Supervisor] It starts without children, also when it is restarted."""
    async with clean_node() as node:
        await node.start(Supervisor([child(TaskSupervisor, name="tasks")]))
        task = async_nolink("tasks", forever)
        first = whereis("tasks")
        assert first is not None
        kill(first)
        await settle()
        assert task.outcome == Exited(SHUTDOWN)
        assert whereis("tasks") not in (None, first)
        assert await task_children("tasks") == ()
        assert await async_("tasks", give, 1).result() == 1


async def test_a_task_that_was_cancelled_from_around_before_it_ran_leaves_nothing(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        top = await open_tasks(node)
        kill(top)
        task = async_nolink(top, forever)
        await settle()
        assert task.outcome == Exited(SHUTDOWN)
        assert not is_alive(top)


@pytest.mark.slow
async def test_ten_thousand_tasks_at_once_leave_nothing(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await open_tasks(node)
        tasks = [async_nolink(top, give, number) for number in range(10_000)]
        assert await await_many(tasks, timeout_s=None) == list(range(10_000))
        stuck = [async_nolink(top, forever) for _ in range(10_000)]
        found = await yield_many(stuck, timeout_s=0.1, on_timeout=OnTimeout.KILL_TASK)
        assert {outcome for _, outcome in found} == {None}
        assert await task_children(top) == ()


@pytest.mark.parametrize("shutdown", [-1.0, math.nan])
async def test_a_shutdown_time_that_is_none_starts_and_stops_nothing(
    clean_node: CleanNode, shutdown: float
) -> None:
    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        for start in (async_, async_nolink, start_task):
            with pytest.raises(ValueError, match="shutdown="):
                start("tasks", trio.sleep_forever, shutdown=shutdown)
        assert await task_children("tasks") == ()
        task = async_("tasks", trio.sleep_forever)
        with pytest.raises(ValueError, match="shutdown="):
            await task.shutdown(shutdown)
        assert await task.yield_(timeout_s=0) is None
