"""The failures of earlier OTPs on trio, each as a test that it is not ours.

All under a real clock with a bound of one second, as the originals were run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio

from atomr.core.exits import SHUTDOWN, ExitReason
from atomr.errors import CallTimeoutError, RootExitError, ServerDownError, StartError
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
from atomr.process import is_alive, kill, open_node, self_pid, whereis

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from atomr.process import Node
    from atomr.refs import Pid

    CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]

LIMIT_S = 1.0
settle = trio.testing.wait_all_tasks_blocked


class Server(GenServer):
    """Counts casts; crashes, sleeps or forwards when told to."""

    def __init__(self) -> None:
        self.casts = 0

    async def handle_call(self, request: object, from_: From) -> Reply:
        if request == "crash":
            raise ValueError("crash")
        if isinstance(request, float):
            await trio.sleep(request)
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

    with trio.move_on_after(0.01):
        async with open_node() as node:
            await node.start(Closes())
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
