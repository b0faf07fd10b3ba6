"""The failures of earlier OTPs for Python, each as a test that it is not ours.

All under a real clock, as the originals were run, with a bound for those that hung.
"""

from __future__ import annotations

import traceback
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio

from atomr.core.exits import SHUTDOWN, ExitReason
from atomr.errors import (
    CallTimeoutError,
    NoProcessError,
    RootExitError,
    ServerDownError,
    StartError,
)
from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    Reply,
    Restart,
    Supervisor,
    call,
    cast,
    child,
    start_child,
)
from atomr.process import (
    is_alive,
    kill,
    open_node,
    receive,
    self_pid,
    send,
    spawn,
    wait_exit,
    whereis,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from atomr.process import Node
    from atomr.refs import Pid

    CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]

LIMIT_S = 10.0
settle = trio.testing.wait_all_tasks_blocked


class Server(GenServer):
    """Counts casts; crashes, sleeps, waits or forwards when told to."""

    def __init__(self) -> None:
        self.casts = 0

    async def handle_call(self, request: object, from_: From) -> Reply:
        if request == "crash":
            raise ValueError("crash")
        if isinstance(request, float):
            await trio.sleep(request)
        if isinstance(request, trio.Event):
            await request.wait()
        return Reply(self.casts)

    def handle_cast(self, message: int | tuple[int, Pid]) -> None:
        self.casts += 1
        if isinstance(message, tuple):
            count, other = message
            if count:
                cast(other, (count - 1, self_pid()))
        elif message:
            cast(self_pid(), message - 1)


async def test_call_without_a_timeout_to_a_server_that_crashes_does_not_hang(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        server = await node.start(child(Server, restart=Restart.TEMPORARY))
        with trio.fail_after(LIMIT_S), pytest.raises(ServerDownError):
            await call(server, "crash", timeout_s=None)


async def test_a_server_can_cast_to_itself_from_a_handler(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        server = await node.start(Server())
        cast(server, 10)
        with trio.fail_after(LIMIT_S):
            while await call(server, "count") != 11:
                pass


async def test_two_servers_can_cast_to_each_other_in_one_turn(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        one, two = await node.start(Server()), await node.start(Server())
        cast(one, (10, two))
        cast(two, (10, one))
        with trio.fail_after(LIMIT_S):
            while await call(one, "count") + await call(two, "count") != 22:  # type: ignore[operator]
                pass


async def test_a_temporary_child_that_crashes_takes_nobody_along(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        children = [
            child(Server, id="temporary", name="temporary", restart=Restart.TEMPORARY),
            child(Server, id="sibling", name="sibling"),
        ]
        top = await node.start(Supervisor(children))
        sibling = whereis("sibling")
        with pytest.raises(ServerDownError):
            await call("temporary", "crash")
        await settle()
        assert is_alive(top)
        assert whereis("sibling") is sibling


async def test_the_intensity_counts_the_restarts_of_all_children_together() -> None:
    restarts = 0
    with trio.fail_after(LIMIT_S), pytest.raises(RootExitError):
        async with open_node() as node:
            children = [child(Server, id=str(n), name=str(n)) for n in range(5)]
            await node.start(Supervisor(children, max_restarts=3))
            for _ in range(2):
                for n in range(5):
                    pid = whereis(str(n))
                    assert pid is not None
                    kill(pid)
                    await settle()
                    restarts += 1

    assert restarts == 3


async def test_a_late_reply_to_a_caller_that_gave_up_does_not_crash_the_server(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        server = await node.start(Server())
        with pytest.raises(CallTimeoutError):
            await call(server, 0.05, timeout_s=0.01)
        with trio.fail_after(LIMIT_S):
            assert await call(server, "count") == 0


async def test_start_child_returns_the_pid_after_init_and_raises_its_failure(
    clean_node: CleanNode,
) -> None:
    ready = False

    class Slow(GenServer):
        async def init(self) -> None:
            nonlocal ready
            await trio.sleep(0.01)
            ready = True

    class Fails(GenServer):
        def init(self) -> None:
            raise ValueError("init")

    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        assert is_alive(await start_child(top, child(Slow)))
        assert ready
        with pytest.raises(StartError, match="init"):
            await start_child(top, child(Fails))


async def test_terminate_runs_when_the_server_is_cancelled() -> None:
    ended: list[ExitReason] = []

    class Closes(GenServer):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(0.01)
            ended.append(reason)

    with trio.CancelScope() as scope:
        async with open_node() as node:
            await node.start(Closes())
            scope.cancel()
            await trio.sleep_forever()

    assert ended == [SHUTDOWN]


async def test_a_supervisor_has_started_when_the_inits_of_its_children_are_done(
    clean_node: CleanNode,
) -> None:
    ready: list[int] = []

    class Slow(GenServer):
        async def init(self) -> None:
            await trio.sleep(0.01)
            ready.append(len(ready))

    async with clean_node() as node:
        await node.start(Supervisor([child(Slow, id=str(n)) for n in range(3)]))
        assert ready == [0, 1, 2]


async def test_an_init_that_raises_is_told_with_its_own_error_and_traceback(
    clean_node: CleanNode,
) -> None:
    class Fails(GenServer):
        async def init(self) -> None:
            raise ValueError("the real error")

    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(child(Fails))
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert caught.value.reason is cause
    frames = traceback.extract_tb(cause.__traceback__)
    assert frames[-1].line == 'raise ValueError("the real error")'


async def test_a_cast_to_a_busy_server_does_not_wait(clean_node: CleanNode) -> None:
    async with clean_node() as node, trio.open_nursery() as nursery:
        server = await node.start(Server())
        busy = trio.Event()
        nursery.start_soon(call, server, busy)
        await settle()
        for _ in range(100):
            cast(server, 0)
        # It is in its call still.
        assert server._process.behaviour.casts == 0
        busy.set()
        with trio.fail_after(LIMIT_S):
            assert await call(server, "count") == 100


async def test_a_mistyped_name_and_an_unknown_message_are_not_silent(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        await node.start(child(Server, name="server"))
        with pytest.raises(NoProcessError, match="'sever'"):
            await call("sever", "count")
        send("server", "what is this?")
        await settle()
    assert "Server got an unexpected message: 'what is this?'" in caplog.text


async def test_a_call_leaves_the_callers_other_messages_in_its_mailbox(
    clean_node: CleanNode,
) -> None:
    got: list[object] = []

    async def caller(server: Pid) -> None:
        me = self_pid()
        send(me, "before")
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_later, me)
                await call(server, 0.05)
        got.extend([await receive(), await receive()])

    async with clean_node() as node:
        server = await node.start(Server())
        await wait_exit(spawn(caller, server))
    assert got == ["before", "while it waited"]


async def _send_later(to: Pid) -> None:
    await trio.sleep(0.01)
    send(to, "while it waited")


async def test_a_caller_does_not_wait_out_its_timeout_when_the_callee_dies(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node, trio.open_nursery() as nursery:
        server = await node.start(child(Server, restart=Restart.TEMPORARY))
        began = trio.current_time()

        async def ask() -> None:
            with pytest.raises(ServerDownError):
                await call(server, 60.0, timeout_s=60.0)

        nursery.start_soon(ask)
        await settle()
        kill(server)
    assert trio.current_time() - began < LIMIT_S


async def test_a_call_logs_nothing(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with clean_node() as node:
        server = await node.start(Server())
        await call(server, "count")
        cast(server, 0)
        await settle()
    assert caplog.records == []


async def test_a_child_that_is_cancelled_from_around_is_not_restarted() -> None:
    starts: list[float] = []

    class Child(GenServer):
        async def init(self) -> None:
            starts.append(trio.current_time())

    with trio.CancelScope() as scope:
        async with open_node() as node:
            await node.start(Supervisor([child(Child)], max_restarts=100))
            scope.cancel()
            await trio.sleep_forever()

    assert len(starts) == 1


async def test_a_handler_that_catches_every_exception_can_be_killed(
    clean_node: CleanNode,
) -> None:
    class Stubborn(GenServer):
        async def handle_cast(self, message: object) -> None:
            while True:
                try:
                    await trio.sleep(60)
                except Exception:  # noqa: BLE001, S112 - what is tested
                    continue

    async with clean_node() as node:
        server = await node.start(child(Stubborn, restart=Restart.TEMPORARY))
        cast(server, None)
        await settle()
        kill(server)
        with trio.fail_after(LIMIT_S):
            await wait_exit(server)


async def test_a_supervisor_stops_its_children_one_by_one_last_first(
    clean_node: CleanNode,
) -> None:
    log: list[str] = []

    class Closes(GenServer):
        def __init__(self, name: str) -> None:
            self.name = name

        async def terminate(self, reason: ExitReason) -> None:
            log.append(f"{self.name} ends")
            await trio.sleep(0.01)
            log.append(f"{self.name} ended")

    async with clean_node() as node:
        children = [child(partial(Closes, name), id=name) for name in "ab"]
        await node.start(Supervisor(children))
    assert log == ["b ends", "b ended", "a ends", "a ended"]
