"""The shutdown ladder, and what a process may do in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeAlias

import pytest
import trio
import trio.lowlevel
import trio.testing

from atomr.core.exits import KILLED, SHUTDOWN, ExitReason
from atomr.core.messages import Exit
from atomr.errors import CallCycleError, CallError, ServerDownError
from atomr.otp import (
    BRUTAL_KILL,
    INFINITY,
    DynamicSupervisor,
    From,
    GenServer,
    Ok,
    Reply,
    Restart,
    Supervisor,
    call,
    cast,
    child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from atomr.process import (
    Node,
    PlainProcess,
    open_node,
    receive,
    self_pid,
    send,
    spawn,
    stop,
    trap_exit,
    wait_exit,
    whereis,
)

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked

Stopped: TypeAlias = tuple[float, ExitReason]


async def stop_child(node: Node, start: object, shutdown: object) -> Stopped:
    """Return how long terminate_child took, and the child's reason."""
    spec = child(lambda: start, id="it", shutdown=shutdown)  # type: ignore[arg-type]
    top = await node.start(Supervisor([spec]))
    await settle()
    process = next(p for p in node.processes.values() if p.pid.label == "it")
    began = trio.current_time()
    await terminate_child(top, "it")
    assert process.reason is not None
    return trio.current_time() - began, process.reason


class Closes(GenServer):
    """Takes ``close_s`` to terminate."""

    def __init__(self, close_s: float) -> None:
        self.close_s = close_s
        self.closed = False

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(self.close_s)
        self.closed = True


@pytest.mark.parametrize(
    ("close_s", "shutdown", "took_s", "reason", "closed"),
    [
        (1.0, 5.0, 1.0, SHUTDOWN, True),
        (9.0, 5.0, 5.0, KILLED, False),
        (1000.0, INFINITY, 1000.0, SHUTDOWN, True),
        (1.0, BRUTAL_KILL, 0.0, KILLED, False),
        (1.0, 0.0, 0.0, KILLED, False),
    ],
)
async def test_a_server_has_its_shutdown_time_to_terminate(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    close_s: float,
    shutdown: object,
    took_s: float,
    reason: ExitReason,
    closed: bool,
) -> None:
    server = Closes(close_s)
    async with clean_node() as node:
        assert await stop_child(node, server, shutdown) == (took_s, reason)

    assert server.closed is closed


async def test_a_server_at_work_past_its_time_is_killed_without_terminate(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Busy(Closes):
        async def handle_info(self, message: object) -> None:
            await trio.sleep(60)

    server = Busy(0.0)

    async with clean_node() as node:
        top = await node.start(Supervisor([child(lambda: server, id="it", name="it")]))
        send("it", "work")
        await settle()
        process = node.names["it"]
        began = trio.current_time()
        await terminate_child(top, "it")
        assert (trio.current_time() - began, process.reason) == (5.0, KILLED)

    assert server.closed is False


async def test_a_server_without_terminate_is_stopped_at_once_even_at_work(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    class Busy(GenServer):
        async def handle_continue(self, continuation: object) -> None:
            await trio.sleep_forever()

        def init(self) -> object:  # type: ignore[override]
            return Ok(continue_=1)

    async with clean_node() as node:
        assert await stop_child(node, Busy(), 5.0) == (0.0, SHUTDOWN)


async def test_a_trapping_plain_process_is_asked_by_its_supervisor(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    got: list[object] = []

    async def orderly() -> None:
        trap_exit(True)
        got.append(await receive())
        await trio.sleep(2.0)

    async with clean_node() as node:
        took_s, _ = await stop_child(node, PlainProcess(orderly), 5.0)
        top = node.roots()[0]

    assert (got, took_s) == ([Exit(top, SHUTDOWN)], 2.0)


async def test_a_process_that_traps_and_does_not_listen_is_killed_in_time(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def deaf() -> None:
        trap_exit(True)
        await trio.sleep_forever()

    async with clean_node() as node:
        assert await stop_child(node, PlainProcess(deaf), 3.0) == (3.0, KILLED)


async def test_a_process_that_lives_on_after_a_kill_is_reported(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(12.0)

    async with clean_node() as node:
        took_s, _ = await stop_child(node, PlainProcess(shielded), BRUTAL_KILL)

    assert took_s == 12.0
    assert [record.getMessage() for record in caplog.records] == 2 * [
        "process <Pid 2 it> still runs 5.0 s after it was killed; a shielded block"
        " or code that never awaits holds it"
    ]


async def test_terminate_can_still_call_other_servers_while_all_are_cancelled(
    schedule: int,
) -> None:
    """Enclosing cancellation: bounded clean-up, and Cancelled goes on."""
    answers: list[object] = []

    class Echo(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(request)

    class Says(GenServer):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.lowlevel.checkpoint()
            answers.append((reason, self_pid() is whereis("says")))

    with trio.CancelScope() as scope:
        async with open_node() as node:
            await node.start(child(Says, name="says"))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught

    assert answers == [(SHUTDOWN, True)]


async def test_an_enclosing_cancel_is_not_swallowed_by_a_process() -> None:
    """A process that ends with its own error still lets Cancelled pass."""

    async def fails_while_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up failed")

    with trio.CancelScope() as scope:
        async with open_node() as node:
            pid = spawn(fails_while_cancelled)
            process = node.processes[pid.number]
            await settle()
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert isinstance(process.reason, ValueError)


async def test_no_checkpoint_is_needed_between_the_end_and_its_consequences(
    clean_node: CleanNode,
) -> None:
    """The process layer's own exit path awaits nothing, so it cannot be cut."""
    with trio.CancelScope() as scope:
        async with clean_node():
            pid = spawn(trio.sleep_forever, name="it")
            await settle()
            scope.cancel()
            with trio.CancelScope(shield=True):
                reason = await wait_exit(pid)
                assert (reason, whereis("it")) == (SHUTDOWN, None)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_leaving_the_node_stops_roots_last_first_then_the_spawned(
    clean_node: CleanNode, schedule: int
) -> None:
    ended: list[str] = []

    class Says(GenServer):
        def __init__(self, name: str) -> None:
            self.name = name

        async def terminate(self, reason: ExitReason) -> None:
            await trio.lowlevel.checkpoint()
            ended.append(self.name)

    async def says() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("spawned")

    async with clean_node() as node:
        spawn(says)
        for name in "abc":
            await node.start(child(lambda name=name: Says(name), id=name))  # type: ignore[misc]
        assert await call_size(node) == 4

    assert ended == ["c", "b", "a", "spawned"]


async def call_size(node: Node) -> int:
    await settle()
    return node.size


async def test_a_call_to_a_stopped_server_hears_shutdown(clean_node: CleanNode) -> None:
    class Waits(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            await trio.sleep_forever()
            raise AssertionError

    async with clean_node() as node:
        top = await node.start(Supervisor([child(Waits, name="it")]))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(ServerDownError) as caught:
                    await call("it", 1)
                assert caught.value.reason is SHUTDOWN

            await settle()
            await terminate_child(top, "Waits")


# --- a goodbye that asks who waits for it ---------------------------------------


class Forwards(GenServer):
    """Asks on for others."""

    async def handle_call(self, to: object, from_: From) -> Reply:
        return Reply(await which_children(to))  # type: ignore[arg-type]


class AsksAbove(GenServer):
    """Asks its supervisor for its siblings before it goes, or has it asked."""

    def __init__(self, seen: list[object], *, by_another: bool = False) -> None:
        self.seen, self.by_another = seen, by_another

    async def terminate(self, reason: ExitReason) -> None:
        try:
            if self.by_another:
                await call("forwards", "top", timeout_s=None)
            else:
                await which_children("top")
        except CallError as error:
            cause = error.reason if isinstance(error, ServerDownError) else error
            self.seen.append(type(cause))


@pytest.mark.parametrize("by_another", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("how", ["terminate_child", "stop"])
async def test_a_terminate_that_asks_its_own_supervisor_is_told_at_once(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    dynamic: bool,
    by_another: bool,
    how: str,
) -> None:
    seen: list[object] = []
    async with clean_node() as node:
        forwards = child(Forwards, name="forwards", restart=Restart.TEMPORARY)
        await node.start(forwards)
        top = DynamicSupervisor() if dynamic else Supervisor([])
        spec = child(lambda: top, id="t", name="top", restart=Restart.TEMPORARY)
        pid = await node.start(spec)
        asks = partial(AsksAbove, seen, by_another=by_another)
        # Without a bound it would wait for ever.
        spec = child(asks, shutdown=INFINITY)
        asking = await start_child(pid, spec)
        await start_child(pid, child(partial(Closes, 1.0)))
        began = trio.current_time()
        if how == "stop":
            await stop(pid)
        else:
            await terminate_child(pid, asking)
            assert len(await which_children(pid)) == 1 + (not dynamic)
        assert seen == [CallCycleError]
        assert trio.current_time() - began <= 1


async def test_a_supervisor_that_has_stopped_a_child_may_be_asked_again(
    clean_node: CleanNode,
) -> None:
    """By the very process that was stopped, in its next life."""
    seen: list[int] = []

    class Asks(GenServer):
        async def handle_cast(self, message: object) -> None:
            seen.append(len(await which_children("top")))

    async with clean_node() as node:
        top = Supervisor([child(Asks, name="asks")])
        await node.start(child(lambda: top, id="top", name="top"))
        await terminate_child("top", "Asks")
        await restart_child("top", "Asks")
        cast("asks", None)
        await settle()
    assert seen == [1]
