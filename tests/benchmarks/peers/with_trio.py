"""Plain trio, by hand: tasks, cancel scopes and memory channels.

It has no names, links, monitors or time-outs, and one kind of crash is foreseen.
"""

# mypy: disable-error-code="import-not-found, no-any-return"
# This folder is on the path when a script of it runs, and at no other time.

from __future__ import annotations

import time
from typing import TypeAlias

import trio
import trio.testing
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

Replies: TypeAlias = "trio.MemorySendChannel[int]"


async def call() -> float:
    to_server, requests = trio.open_memory_channel[int](1)
    to_client, replies = trio.open_memory_channel[int](1)

    async def serve() -> None:
        async for request in requests:
            to_client.send_nowait(request)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        began = time.perf_counter()
        for _ in range(CALLS):
            to_server.send_nowait(1)
            await replies.receive()
        took = us_each(began, CALLS)
        nursery.cancel_scope.cancel()
    return took


async def callers() -> float:
    to_server, requests = trio.open_memory_channel[tuple[int, Replies]](2 * CALLERS)

    async def serve() -> None:
        async for request, to_client in requests:
            to_client.send_nowait(request)

    async def ask() -> None:
        to_client, replies = trio.open_memory_channel[int](1)
        for _ in range(CALLS // CALLERS):
            to_server.send_nowait((1, to_client))
            await replies.receive()

    async with trio.open_nursery() as servers:
        servers.start_soon(serve)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(ask)
        took = us_each(began, CALLS)
        servers.cancel_scope.cancel()
    return took


async def cast() -> float:
    to_server, messages = trio.open_memory_channel[int](float("inf"))
    done = trio.Event()

    async def serve() -> None:
        async for message in messages:
            if not message:
                done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        began = time.perf_counter()
        for _ in range(CASTS):
            to_server.send_nowait(1)
        to_server.send_nowait(0)
        await done.wait()
        took = us_each(began, CASTS)
        nursery.cancel_scope.cancel()
    return took


async def serve_nothing(
    ended: trio.Event,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.CancelScope() as scope:
        _to_server, messages = trio.open_memory_channel[int](float("inf"))
        task_status.started(scope)
        async for _ in messages:
            pass
    ended.set()


async def spawn() -> float:
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(SPAWNS):
            ended = trio.Event()
            scope: trio.CancelScope = await nursery.start(serve_nothing, ended)
            scope.cancel()
            await ended.wait()
    return us_each(began, SPAWNS)


async def ring() -> float:
    done = trio.Event()
    pairs = [trio.open_memory_channel[int](1) for _ in range(RING)]

    async def link(position: int) -> None:
        following = pairs[(position + 1) % RING][0]
        async for left in pairs[position][1]:
            if left == 0:
                done.set()
            else:
                following.send_nowait(left - 1)

    async with trio.open_nursery() as nursery:
        for position in range(RING):
            nursery.start_soon(link, position)
        began = time.perf_counter()
        pairs[0][0].send_nowait(HOPS)
        await done.wait()
        took = us_each(began, HOPS)
        nursery.cancel_scope.cancel()
    return took


async def restart() -> float:
    to_server, requests = trio.open_memory_channel[bool](1)
    to_client, replies = trio.open_memory_channel[str](1)

    async def serve() -> None:
        async for crash in requests:
            if crash:
                raise ValueError("asked to")
            to_client.send_nowait("alive")

    async def supervise() -> None:
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve)
            except* ValueError:
                to_client.send_nowait("down")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        began = time.perf_counter()
        for _ in range(RESTARTS):
            to_server.send_nowait(True)
            await replies.receive()
            to_server.send_nowait(False)
            await replies.receive()
        took = us_each(began, RESTARTS)
        nursery.cancel_scope.cancel()
    return took


async def times() -> Found:
    return {
        "call": await call(),
        "callers": await callers(),
        "cast": await cast(),
        "spawn": await spawn(),
        "ring": await ring(),
        "restart": await restart(),
    }


async def idle() -> Found:
    ended = trio.Event()
    before = resident_bytes()
    async with trio.open_nursery() as nursery:
        for _ in range(IDLE):
            nursery.start_soon(serve_nothing, ended)
        await trio.testing.wait_all_tasks_blocked()
        took = (resident_bytes() - before) / IDLE
        nursery.cancel_scope.cancel()
    return {"idle": took}


if __name__ == "__main__":
    show("trio", lambda: trio.run(times), lambda: trio.run(idle))
