"""A DynamicSupervisor starts and stops what cannot wait on its caller's stack."""

from __future__ import annotations

import signal
import sys as python
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from outcome import Error, capture

from atomr.core.exits import KILLED, SHUTDOWN, ExitReason, unwrap
from atomr.errors import (
    AlreadyStartedError,
    ChildError,
    ChildNotFoundError,
    MaxChildrenError,
    StartError,
    WrongThreadError,
)
from atomr.otp import (
    BRUTAL_KILL,
    ChildInfo,
    ChildKind,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    From,
    GenServer,
    Ignore,
    Next,
    Reply,
    Restart,
    StateMachine,
    Stop,
    call,
    cast,
    child,
    count_children,
    start_child,
    supervision_tree,
    sys,
    terminate_child,
    which_children,
)
from atomr.process import is_alive, open_node, self_pid, send, spawn, wait_exit
from tests.atomr.test_context_variables import tenant

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tests.atomr.conftest import CleanNode

settle = trio.testing.wait_all_tasks_blocked


class Lean(GenServer):
    def __init__(self, log: list[object] | None = None) -> None:
        self.log = [] if log is None else log

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)

    def handle_cast(self, reason: ExitReason) -> Stop:
        return Stop(reason)

    def terminate(self, reason: ExitReason) -> None:
        self.log.append(reason)


class Machine(StateMachine):
    def init(self) -> Next:
        return Next(self.only)

    def only(self, event: object) -> None:
        pass


async def is_checkpoint(act: Callable[[], object]) -> bool:
    """Return whether another task got to run meanwhile."""
    ran = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)

        async def note() -> None:
            ran.append(1)

        nursery.start_soon(note)
        await act()  # type: ignore[misc]
        return bool(ran)


def make() -> Lean:
    return Lean()


@pytest.mark.parametrize("start", [Lean, partial(Lean, []), Machine, make])
async def test_neither_start_nor_stop_is_a_checkpoint(
    clean_node: CleanNode, start: Callable[[], object]
) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        await settle()
        spec = ChildSpec(id="c", start=start)

        async def both() -> None:
            await terminate_child(top, await start_child(top, spec))

        assert not await is_checkpoint(both)


async def test_a_loop_of_them_can_be_cancelled(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(1000):
                await start_child(top, child(Lean))
        assert scope.cancelled_caught
        # The supervisor, 256, and the one that it starts though nobody waits any more.
        assert 1 < node.size <= 1 + 256 + 1


async def test_its_code_runs_as_if_the_supervisor_had_started_it(
    clean_node: CleanNode,
) -> None:
    seen: list[object] = []

    class Looks(Lean):
        def init(self) -> None:
            seen.append((tenant.get(), self_pid()))

    async with clean_node() as node:
        tenant.set("supervisor")
        top = await node.start(DynamicSupervisor())
        tenant.set("caller")
        pid = await start_child(top, child(Looks))
        assert seen == [("supervisor", pid)]
        assert (await sys.get_status(pid)).ancestors == (top,)
        tenant.set("nobody")


async def test_what_fails_leaves_nothing(clean_node: CleanNode) -> None:
    class Fails(Lean):
        def init(self) -> None:
            raise ValueError("no")

    class Ignores(Lean):
        def init(self) -> Ignore:
            return Ignore()

    async with clean_node() as node:
        top = await node.start(DynamicSupervisor(max_children=1))
        for kind in (Fails, Ignores):
            with pytest.raises(StartError):
                await start_child(top, child(kind, name="n"))
        with pytest.raises(ChildError, match="significant"):
            await start_child(
                top, child(Lean, significant=True, restart=Restart.TEMPORARY)
            )
        assert await which_children(top) == ()
        pid = await start_child(top, child(Lean, name="n"))
        with pytest.raises(MaxChildrenError):
            await start_child(top, child(Lean, name="n"))
        assert node.names["n"].pid is pid


async def test_a_taken_name_is_refused(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        await start_child(top, child(Lean, name="n"))
        with pytest.raises(AlreadyStartedError):
            await start_child(top, child(Lean, name="n"))
        assert (await count_children(top)).active == 1


async def test_a_child_so_started_is_seen_restarted_and_counted(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        pid = await start_child(top, child(Lean, name="n", id="c"))
        info = ChildInfo("c", pid, ChildKind.WORKER, ChildState.RUNNING)
        assert await which_children(top) == (info,)
        cast(pid, ValueError("x"))
        await settle()
        (again,) = await which_children(top)
        assert again.pid is node.names["n"].pid
        assert again.pid is not pid
        tree = supervision_tree(top)
        assert tree is not None
        assert [row.restarts for row in tree.children] == [1]


async def test_a_stopped_child_has_run_terminate_and_is_gone(
    clean_node: CleanNode,
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        pid = await start_child(top, child(partial(Lean, log)))
        await terminate_child(top, pid)
        assert (log, is_alive(pid)) == ([SHUTDOWN], False)
        assert await which_children(top) == ()
        with pytest.raises(ChildNotFoundError):
            await terminate_child(top, pid)


async def test_a_brutal_kill_and_one_at_work_take_the_long_way(
    clean_node: CleanNode,
) -> None:
    log: list[object] = []
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        brutal = child(partial(Lean, log), shutdown=BRUTAL_KILL)
        pid = await start_child(top, brutal)
        process = node.processes[pid.number]
        await terminate_child(top, pid)
        assert (process.reason, log) == (KILLED, [])
        pid = await start_child(top, child(partial(Lean, log)))
        send(pid, "something to do")
        await terminate_child(top, pid)
        assert log == [SHUTDOWN]


async def test_a_child_of_another_is_not_found(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        other = await node.start(DynamicSupervisor())
        pid = await start_child(other, child(Lean))
        with pytest.raises(ChildNotFoundError):
            await terminate_child(top, pid)
        assert is_alive(pid)


async def test_a_traced_or_suspended_supervisor_is_asked(
    clean_node: CleanNode,
) -> None:
    events: list[str] = []
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        await sys.trace(top, lambda event: events.append(event.kind))
        pid = await start_child(top, child(Lean))
        await terminate_child(top, pid)
        await sys.trace(top, None)
        assert events == ["in", "out", "in", "out"]
        await sys.suspend(top)
        started = spawn(partial(start_child, top, child(Lean)))
        await settle()
        assert await sys.get_state(top) == ()
        await sys.resume(top)
        await wait_exit(started)
        assert (await count_children(top)).active == 1


async def test_from_another_thread_it_is_refused(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        await settle()

        def start_there() -> None:
            with pytest.raises(WrongThreadError):
                start_child(top, child(Lean)).send(None)

        await trio.to_thread.run_sync(start_there)
        assert await which_children(top) == ()


async def test_what_init_sends_the_supervisor_is_read(clean_node: CleanNode) -> None:
    class Tells(Lean):
        def init(self) -> None:
            send("top", "unexpected")

    async with clean_node() as node:
        top = await node.start(child(DynamicSupervisor, name="top"))
        await settle()
        await start_child(top, child(Tells))
        await settle()
        assert node.processes[top.number].queue_size == 0
        assert node.processes[top.number].idle


PLACES = {
    *("start_child_now", "_add_now", "terminate_child_now", "_terminate_now"),
    *("act_as", "run_init_now", "run_init", "begin_stop", "prepare", "_make"),
}


class Interrupter:
    """Interrupts at the n-th line of a start and a stop."""

    def __init__(self, at: int) -> None:
        self.left = at

    def trace(self, frame: FrameType, event: str, argument: object) -> object:
        if frame.f_code.co_name not in PLACES:
            return None
        if event == "line":
            self.left -= 1
            if self.left == -1:
                signal.raise_signal(signal.SIGINT)
        return self.trace


async def start_and_stop(interrupter: Interrupter, log: list[object]) -> None:
    async with open_node() as node:
        await node.start(Lean(log))
        top = await node.start(DynamicSupervisor())
        await settle()
        python.settrace(interrupter.trace)  # type: ignore[arg-type]
        try:
            pid = await start_child(top, child(Lean))
            await terminate_child(top, pid)
        finally:
            python.settrace(None)
        assert await call(await start_child(top, child(Lean)), 1) == 1


def test_an_interrupt_at_any_line_ends_the_run_in_order() -> None:
    at = 0
    while True:
        interrupter, log = Interrupter(at), list[object]()
        clock = trio.testing.MockClock(autojump_threshold=0)
        run = partial(trio.run, start_and_stop, interrupter, log, clock=clock)
        outcome = capture(run)
        if interrupter.left >= 0:
            break
        assert isinstance(outcome, Error)
        assert isinstance(unwrap(outcome.error), KeyboardInterrupt)
        assert log == [SHUTDOWN]
        at += 1
    assert at > 20
