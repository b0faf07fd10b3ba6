"""Waiting for a name to be taken."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr.errors import (
    BadReturnError,
    NoNodeError,
    NotRegisteredError,
    ServerDownError,
)
from atomr.otp import (
    From,
    GenServer,
    Reply,
    Restart,
    Stop,
    Supervisor,
    call,
    cast,
    child,
)
from atomr.process import Node, register, spawn, unregister, wait_registered, whereis

if TYPE_CHECKING:
    from tests.atomr.conftest import CleanNode


class Server(GenServer):
    """Crashes when asked to."""

    def handle_call(self, request: object, from_: From) -> Reply:
        if request == "crash":
            raise ValueError(request)
        return Reply(request)

    def handle_cast(self, message: object) -> Stop:
        return Stop(reply=message)


def nobody_waits(node: Node) -> bool:
    return node.name_spots == {}


async def test_a_name_that_is_taken_is_found_at_once(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Server, name="server"))
        with trio.CancelScope() as scope:
            scope.cancel()
            assert await wait_registered("server") is pid
        assert nobody_waits(node)


async def test_the_next_process_of_a_supervisor_is_waited_for(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        await node.start(Supervisor([child(Server, name="server")]))
        before = whereis("server")
        with pytest.raises(ServerDownError):
            await call("server", "crash")
        after = await wait_registered("server")
        assert after is not before
        assert await call(after, 1) == 1
        assert nobody_waits(node)


async def test_all_who_wait_are_told(clean_node: CleanNode, schedule: int) -> None:
    found = []

    async def wait() -> None:
        found.append(await wait_registered("late", timeout_s=None))

    async with clean_node() as node:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            pid = spawn(trio.sleep_forever)
            register("late", pid)
        assert found == [pid, pid, pid]
        assert nobody_waits(node)


async def test_a_name_that_is_lost_again_before_the_waiter_ran_is_waited_for_on(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node():

        async def take_and_lose() -> None:
            await trio.testing.wait_all_tasks_blocked()
            register("brief", spawn(trio.sleep_forever))
            unregister("brief")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_and_lose)
            with pytest.raises(NotRegisteredError):
                await wait_registered("brief", timeout_s=3)


async def test_in_vain_it_says_so_after_its_time(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        with pytest.raises(NotRegisteredError) as caught:
            await wait_registered("nobody")
        assert trio.current_time() == 5.0
        assert str(caught.value) == (
            "wait_registered('nobody'): no process has that name within 5.0 s"
        )
        assert nobody_waits(node)


async def test_a_cancelled_wait_leaves_nothing(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_registered, "nobody")
            await trio.testing.wait_all_tasks_blocked()
            assert not nobody_waits(node)
            nursery.cancel_scope.cancel()
        assert nobody_waits(node)


async def test_without_a_node_there_are_no_names() -> None:
    with pytest.raises(NoNodeError):
        await wait_registered("any")


def test_a_partial_has_the_name_of_its_function() -> None:
    assert child(partial(partial(Server))).id == "Server"
    with pytest.raises(ValueError, match="it has no name"):
        child(partial(lambda: Server))


async def test_a_reply_from_where_nobody_asked_is_a_crash(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Server, restart=Restart.TEMPORARY))
        cast(pid, "value")
        with pytest.raises(ServerDownError) as caught:
            await call(pid, 1)
        assert isinstance(caught.value.reason, BadReturnError)
        assert "expected Stop without a reply" in str(caught.value.reason)
