"""This library: a GenServer under a DynamicSupervisor.

Its callbacks are plain, so it has no task, and an idle server answers on its caller's
stack.  With ``tasks`` before the last argument they are ``async def``.
"""

# mypy: disable-error-code="import-not-found, no-any-return"
# This folder is on the path when a script of it runs, and at no other time.

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from measure import (
    CALLERS,
    CALLS,
    CASTS,
    HOPS,
    IDLE,
    RESTARTS,
    RING,
    SPAWNS,
    Found,
    resident_bytes,
    show,
    us_each,
)

import atomr.otp
from atomr.errors import ServerDownError
from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    NoReply,
    Reply,
    child,
    start_child,
    terminate_child,
)
from atomr.process import Node, open_node, send

if TYPE_CHECKING:
    from atomr.refs import Pid


class Echo(GenServer):
    """Answers, forgets, and crashes when asked to."""

    __slots__ = ()

    def handle_call(self, request: object, from_: From) -> Reply:
        if request is ValueError:
            raise ValueError("asked to")
        return Reply(request)

    def handle_cast(self, message: object) -> None:
        pass


class AsyncEcho(GenServer):
    """The same with a task."""

    __slots__ = ()

    async def handle_call(self, request: object, from_: From) -> Reply:
        if request is ValueError:
            raise ValueError("asked to")
        return Reply(request)

    async def handle_cast(self, message: object) -> None:
        pass


class Link(GenServer):
    """Passes a number on until it is 0."""

    def __init__(self) -> None:
        self.next: Pid
        self.done: trio.Event

    def handle_cast(self, message: tuple[Pid, trio.Event]) -> None:
        self.next, self.done = message

    def handle_info(self, message: int) -> NoReply:
        if message:
            send(self.next, message - 1)
        else:
            self.done.set()
        return NoReply()


class AsyncLink(GenServer):
    """The same with a task."""

    def __init__(self) -> None:
        self.next: Pid
        self.done: trio.Event

    async def handle_cast(self, message: tuple[Pid, trio.Event]) -> None:
        self.next, self.done = message

    async def handle_info(self, message: int) -> NoReply:
        if message:
            send(self.next, message - 1)
        else:
            self.done.set()
        return NoReply()


TASKS = "tasks" in sys.argv
SERVER = child(AsyncEcho if TASKS else Echo)


async def call(top: Pid) -> float:
    pid = await start_child(top, SERVER)
    began = time.perf_counter()
    for _ in range(CALLS):
        await atomr.otp.call(pid, 1)
    return us_each(began, CALLS)


async def callers(top: Pid) -> float:
    pid = await start_child(top, SERVER)

    async def ask() -> None:
        for _ in range(CALLS // CALLERS):
            await atomr.otp.call(pid, 1)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(ask)
    return us_each(began, CALLS)


async def cast(top: Pid) -> float:
    pid = await start_child(top, SERVER)
    began = time.perf_counter()
    for _ in range(CASTS):
        atomr.otp.cast(pid, 1)
    await atomr.otp.call(pid, 1)
    return us_each(began, CASTS)


async def spawn(top: Pid) -> float:
    began = time.perf_counter()
    for _ in range(SPAWNS):
        await terminate_child(top, await start_child(top, SERVER))
    return us_each(began, SPAWNS)


async def ring(top: Pid) -> float:
    spec = child(AsyncLink if TASKS else Link)
    links = [await start_child(top, spec) for _ in range(RING)]
    done = trio.Event()
    for pid, following in zip(links, links[1:] + links[:1], strict=True):
        atomr.otp.cast(pid, (following, done))
    began = time.perf_counter()
    send(links[0], HOPS)
    await done.wait()
    return us_each(began, HOPS)


async def restart(node: Node, top: Pid) -> float:
    await start_child(top, child(SERVER.start, name="crasher"))
    began = time.perf_counter()
    for _ in range(RESTARTS):
        with suppress(ServerDownError):
            await atomr.otp.call("crasher", ValueError)
        while node.whereis("crasher") is None:
            await trio.lowlevel.checkpoint()
        await atomr.otp.call("crasher", "alive?")
    return us_each(began, RESTARTS)


async def times() -> Found:
    # A window that is always over: no restart is one too many.
    supervisor = DynamicSupervisor(max_restarts=1, max_seconds=1e-9)
    async with open_node() as node:
        top = await node.start(child(lambda: supervisor, id="top"))
        return {
            "call": await call(top),
            "callers": await callers(top),
            "cast": await cast(top),
            "spawn": await spawn(top),
            "ring": await ring(top),
            "restart": await restart(node, top),
        }


async def idle() -> Found:
    async with open_node() as node:
        top = await node.start(child(DynamicSupervisor))
        before = resident_bytes()
        for _ in range(IDLE):
            await start_child(top, SERVER)
        return {"idle": (resident_bytes() - before) / IDLE}


if __name__ == "__main__":
    show("atomr-infer", lambda: trio.run(times), lambda: trio.run(idle))
