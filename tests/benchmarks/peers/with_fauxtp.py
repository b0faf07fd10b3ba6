"""Fauxtp: a GenServer is an AnyIO task; here on asyncio, AnyIO's default.

A call to a server that crashes waits for its time-out, so a crash is asked for by a
cast, and the replacement is looked up in the supervisor's registry.
"""

# mypy: disable-error-code="import-not-found, no-any-return, misc"
# This folder is on the path when a script of it runs, and fauxtp is not installed.

from __future__ import annotations

import time

import anyio
import fauxtp
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


class Echo(fauxtp.GenServer):
    """Answers, forgets, and crashes when asked to."""

    def __init__(self, ready: list[anyio.Event]) -> None:
        super().__init__()
        self.ready = ready

    async def init(self) -> object:
        self.ready[-1].set()
        return {}

    async def handle_call(
        self, request: object, from_ref: object, state: object
    ) -> object:
        return request, state

    async def handle_cast(self, request: object, state: object) -> object:
        if request == "crash":
            raise ValueError("asked to")
        return state


class Link(fauxtp.GenServer):
    """Passes a number on until it is 0."""

    async def handle_cast(self, request: object, state: object) -> object:
        if isinstance(request, tuple):
            self.next, self.done = request
        elif request:
            assert isinstance(request, int)
            await fauxtp.cast(self.next, request - 1)
        else:
            self.done.set()
        return state


async def call(tasks: anyio.abc.TaskGroup) -> float:
    server = await Echo.start([anyio.Event()], task_group=tasks)
    began = time.perf_counter()
    for _ in range(CALLS):
        await fauxtp.call(server, 1)
    return us_each(began, CALLS)


async def callers(tasks: anyio.abc.TaskGroup) -> float:
    server = await Echo.start([anyio.Event()], task_group=tasks)

    async def ask() -> None:
        for _ in range(CALLS // CALLERS):
            await fauxtp.call(server, 1)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(ask)
    return us_each(began, CALLS)


async def cast(tasks: anyio.abc.TaskGroup) -> float:
    server = await Echo.start([anyio.Event()], task_group=tasks)
    began = time.perf_counter()
    for _ in range(CASTS):
        await fauxtp.cast(server, 1)
    await fauxtp.call(server, 1)
    return us_each(began, CASTS)


async def spawn(tasks: anyio.abc.TaskGroup) -> float:
    began = time.perf_counter()
    for _ in range(SPAWNS):
        ready, gone = anyio.Event(), anyio.Event()

        async def ended(
            _pid: object, _reason: object, gone: anyio.Event = gone
        ) -> None:
            gone.set()

        server = await Echo.start_link([ready], task_group=tasks, on_exit=ended)
        await ready.wait()
        server.cancel_scope.cancel()
        await gone.wait()
    return us_each(began, SPAWNS)


async def ring(tasks: anyio.abc.TaskGroup) -> float:
    done = anyio.Event()
    links = [await Link.start(task_group=tasks) for _ in range(RING)]
    for link, following in zip(links, links[1:] + links[:1], strict=True):
        await fauxtp.cast(link, (following, done))
    began = time.perf_counter()
    await fauxtp.cast(links[0], HOPS)
    await done.wait()
    return us_each(began, HOPS)


async def restart(tasks: anyio.abc.TaskGroup) -> float:
    ready = [anyio.Event()]
    registry = await fauxtp.Registry.start(task_group=tasks)
    spec = fauxtp.ChildSpec(actor=Echo, name="crasher", args=(ready,))
    await fauxtp.Supervisor.start([spec], registry=registry, task_group=tasks)
    await ready[-1].wait()
    began = time.perf_counter()
    for _ in range(RESTARTS):
        server = await fauxtp.call(registry, ("get", "crasher"))
        ready.append(anyio.Event())
        await fauxtp.cast(server, "crash")
        await ready[-1].wait()
        server = await fauxtp.call(registry, ("get", "crasher"))
        await fauxtp.call(server, "alive?")
    return us_each(began, RESTARTS)


async def times() -> Found:
    async with anyio.create_task_group() as tasks:
        found: Found = {
            "call": await call(tasks),
            "callers": await callers(tasks),
            "cast": await cast(tasks),
            "spawn": await spawn(tasks),
            "ring": await ring(tasks),
            "restart": await restart(tasks),
        }
        tasks.cancel_scope.cancel()
    return found


async def idle() -> Found:
    async with anyio.create_task_group() as tasks:
        before = resident_bytes()
        ready = [anyio.Event()]
        for _ in range(IDLE):
            await Echo.start(ready, task_group=tasks)
        await anyio.wait_all_tasks_blocked()
        took = (resident_bytes() - before) / IDLE
        tasks.cancel_scope.cancel()
    return {"idle": took}


if __name__ == "__main__":
    show("fauxtp", lambda: anyio.run(times), lambda: anyio.run(idle))
