"""``attached``: the current task as a process, for the length of a block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import KILL, KILLED, NORMAL, SHUTDOWN, ExitReason, Shutdown
from atomr.core.messages import Down, Exit
from atomr.errors import (
    MaxChildrenError,
    NoProcessError,
    NotAProcessError,
    ProcessKilledError,
    StartError,
)
from atomr.otp import (
    ChildInfo,
    ChildKind,
    ChildState,
    DynamicSupervisor,
    From,
    GenServer,
    Reply,
    Restart,
    Supervisor,
    call,
    child,
    terminate_child,
    which_children,
)
from atomr.process import (
    Node,
    attached,
    exit_process,
    is_alive,
    kill,
    link,
    monitor,
    receive,
    register,
    self_pid,
    send,
    spawn,
    stop,
    trap_exit,
    wait_exit,
    whereis,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")


async def requests(node: Node, max_children: int | None = None) -> Pid:
    """Start a supervisor of requests whose end is not the node's."""
    return await node.start(
        child(
            lambda: DynamicSupervisor(max_children=max_children),
            id="requests",
            restart=Restart.TEMPORARY,
        )
    )


async def test_the_task_is_the_process_inside_the_block_only(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await requests(node)
        async with attached(top, id="r1") as pid:
            assert self_pid() is pid
            assert await which_children(top) == (
                ChildInfo("r1", pid, ChildKind.WORKER, ChildState.RUNNING),
            )
            send(pid, "hello")
            assert await receive() == "hello"
            register("me")
        assert (is_alive(pid), whereis("me")) == (False, None)
        assert await which_children(top) == ()
        with pytest.raises(NotAProcessError):
            self_pid()


async def test_it_is_the_outer_process_again_after_the_block(
    clean_node: CleanNode,
) -> None:
    got: list[bool] = []

    async def outer(top: Pid) -> None:
        me = self_pid()
        async with attached(top, id="a") as a:
            async with attached(top, id="b") as b:
                got.append(self_pid() is b)
            got.append(self_pid() is a)
        got.append(self_pid() is me)

    async with clean_node() as node:
        assert await wait_exit(spawn(outer, await requests(node))) is NORMAL

    assert got == [True, True, True]


async def watch(pid: Pid, into: list[ExitReason]) -> None:
    """Monitor ``pid`` and record the reason it went down with."""
    monitor(pid)
    message = await receive()
    assert isinstance(message, Down)
    into.append(message.reason)


async def test_its_reason_is_recorded_and_its_error_is_the_callers(
    clean_node: CleanNode, schedule: int, caplog: pytest.LogCaptureFixture
) -> None:
    reasons: list[ExitReason] = []
    async with clean_node() as node:
        top = await requests(node)
        async with attached(top, id="r1") as pid:
            watcher = spawn(watch, pid, reasons)
            await settle()
        await wait_exit(watcher)
        with pytest.raises(ValueError, match="x") as caught:
            async with attached(top, id="r2") as pid:
                watcher = spawn(watch, pid, reasons)
                await settle()
                raise CRASH
        await wait_exit(watcher)

    assert caught.value is CRASH
    assert reasons == [NORMAL, CRASH]
    # Raised in the caller, so not logged as well.
    assert caplog.records == []


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda top, pid: kill(pid), KILLED),
        (lambda top, pid: exit_process(pid, KILL), KILLED),
        (lambda top, pid: exit_process(pid, Shutdown("why")), Shutdown("why")),
        (lambda top, pid: exit_process(pid, CRASH), CRASH),
    ],
)
async def test_a_block_that_is_cancelled_through_its_process_raises_and_goes_on(
    clean_node: CleanNode,
    schedule: int,
    end: Callable[[Pid, Pid], None],
    reason: ExitReason,
) -> None:
    reasons: list[ExitReason] = []
    async with clean_node() as node:
        top = await requests(node)
        with pytest.raises(ProcessKilledError) as caught:
            async with attached(top, id="r1") as pid:
                watcher = spawn(watch, pid, reasons)
                await settle()
                end(top, pid)
                await trio.sleep_forever()
        # The task itself is not cancelled.
        await trio.lowlevel.checkpoint()
        await wait_exit(watcher)

    assert (caught.value.pid, caught.value.reason) == (pid, reason)
    assert reasons == [reason]


async def test_its_supervisor_terminates_it_like_any_child(
    clean_node: CleanNode, schedule: int
) -> None:
    ended: list[object] = []
    async with clean_node() as node:
        top = await requests(node)

        async def request() -> None:
            with pytest.raises(ProcessKilledError) as caught:
                async with attached(top, id="r1"):
                    await trio.sleep_forever()
            ended.append(caught.value.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(request)
            await settle()
            (info,) = await which_children(top)
            assert info.pid is not None
            await terminate_child(top, info.pid)
            assert await which_children(top) == ()
            nursery.start_soon(request)
            await settle()
            await stop(top)

    assert ended == [SHUTDOWN, SHUTDOWN]


async def test_a_trapping_block_is_asked_and_has_time(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    ended: list[object] = []
    async with clean_node() as node:
        top = await requests(node)

        async def orderly() -> None:
            async with attached(top, id="r1"):
                trap_exit(True)
                ended.append(await receive())
                await trio.sleep(2.0)

        async def deaf() -> None:
            with pytest.raises(ProcessKilledError) as caught:
                async with attached(top, id="r2", shutdown_s=3.0):
                    trap_exit(True)
                    await trio.sleep_forever()
            ended.append((caught.value.reason, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(orderly)
            nursery.start_soon(deaf)
            await settle()
            await stop(top)

    assert ended == [Exit(top, SHUTDOWN), (KILLED, 3.0)]


async def test_a_killed_supervisor_cancels_its_attached_blocks(
    clean_node: CleanNode, schedule: int
) -> None:
    reasons: list[object] = []
    async with clean_node() as node:
        top = await requests(node)

        async def request() -> None:
            with pytest.raises(ProcessKilledError) as caught:
                async with attached(top, id="r1"):
                    await trio.sleep_forever()
            reasons.append(caught.value.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(request)
            await settle()
            kill(top)

    assert reasons == [KILLED]


async def test_a_cancellation_from_outside_passes_and_is_recorded_as_shutdown(
    clean_node: CleanNode, schedule: int
) -> None:
    """The client left: the connection's scope is cancelled."""
    reasons: list[ExitReason] = []
    async with clean_node() as node:
        top = await requests(node)
        with trio.CancelScope() as scope:
            async with attached(top, id="r1") as pid:
                watcher = spawn(watch, pid, reasons)
                await settle()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await wait_exit(watcher)

    assert reasons == [SHUTDOWN]


async def test_a_kill_and_a_cancellation_from_outside_together_pass_the_latter(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await requests(node)
        with trio.CancelScope() as scope:
            async with attached(top, id="r1") as pid:
                kill(pid)
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_an_error_during_a_kill_is_the_callers(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await requests(node)
        with pytest.raises(ValueError, match="clean-up"):
            async with attached(top, id="r1") as pid:
                kill(pid)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("clean-up")


async def test_a_block_that_ends_before_it_notices_the_kill_ends_normally(
    clean_node: CleanNode,
) -> None:
    reasons: list[ExitReason] = []
    async with clean_node() as node:
        top = await requests(node)
        async with attached(top, id="r1") as pid:
            watcher = spawn(watch, pid, reasons)
            await settle()
            kill(pid)
        await wait_exit(watcher)

    assert reasons == [NORMAL]


async def test_a_link_ends_an_attached_block(clean_node: CleanNode) -> None:
    async def crash_on(message: object) -> None:
        await receive(lambda m: m == message)
        raise CRASH

    async with clean_node() as node:
        top = await requests(node)
        other = spawn(crash_on, "go")
        with pytest.raises(ProcessKilledError) as caught:
            async with attached(top, id="r1"):
                link(other)
                send(other, "go")
                await trio.sleep_forever()
        assert caught.value.reason is CRASH


async def test_an_attached_block_can_call_and_hears_of_the_servers_end(
    clean_node: CleanNode, schedule: int
) -> None:
    class Echo(GenServer):
        def handle_call(self, request: str, from_: From) -> Reply:
            return Reply((request, from_.pid))

    async with clean_node() as node:
        top = await requests(node)
        await node.start(Supervisor([child(Echo, name="echo")]))
        async with attached(top, id="r1") as pid:
            assert await call("echo", "hi") == ("hi", pid)


async def test_a_full_absent_or_wrong_supervisor_is_told_before_the_block(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        top = await requests(node, max_children=1)
        wrong = await node.start(Supervisor())
        async with attached(top, id="r1"):
            with pytest.raises(MaxChildrenError, match="start of 'r2' failed"):
                async with attached(top, id="r2"):
                    raise AssertionError
        with pytest.raises(TypeError, match="expected a DynamicSupervisor"):
            async with attached(wrong, id="r1"):
                raise AssertionError
        with pytest.raises(NoProcessError, match="no such process"):
            async with attached("nobody", id="r1"):
                raise AssertionError
        async with attached(top, id="r1"):
            pass


async def test_a_supervisor_that_stops_takes_nobody_new(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        top = await requests(node)

        async def lingering() -> None:
            async with attached(top, id="r1"):
                trap_exit(True)
                await receive()
                with pytest.raises(StartError, match="the supervisor is stopping"):
                    async with attached(top, id="r2"):
                        raise AssertionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lingering)
            await settle()
            await stop(top)


async def test_no_task_is_made(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        top = await requests(node)
        before = trio.lowlevel.current_statistics().tasks_living
        async with attached(top, id="r1"):
            assert trio.lowlevel.current_statistics().tasks_living == before
