"""Plain asyncio, by hand: tasks, queues, and a future for each reply."""

# mypy: disable-error-code="import-not-found, no-any-return"
# This folder is on the path when a script of it runs, and at no other time.

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TypeAlias

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

Requests: TypeAlias = "asyncio.Queue[tuple[object, asyncio.Future[object]]]"


async def serve(requests: Requests) -> None:
    while True:
        request, reply = await requests.get()
        if request is ValueError:
            reply.set_exception(ValueError("asked to"))
            raise ValueError("asked to")
        reply.set_result(request)


async def ask(requests: Requests, request: object) -> object:
    reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    requests.put_nowait((request, reply))
    return await reply


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def call() -> float:
    requests: Requests = asyncio.Queue()
    server = asyncio.create_task(serve(requests))
    began = time.perf_counter()
    for _ in range(CALLS):
        await ask(requests, 1)
    took = us_each(began, CALLS)
    await ended(server)
    return took


async def callers() -> float:
    requests: Requests = asyncio.Queue()
    server = asyncio.create_task(serve(requests))

    async def ask_often() -> None:
        for _ in range(CALLS // CALLERS):
            await ask(requests, 1)

    began = time.perf_counter()
    await asyncio.gather(*(ask_often() for _ in range(CALLERS)))
    took = us_each(began, CALLS)
    await ended(server)
    return took


async def cast() -> float:
    messages: asyncio.Queue[int] = asyncio.Queue()
    done = asyncio.Event()

    async def take() -> None:
        while True:
            if not await messages.get():
                done.set()

    server = asyncio.create_task(take())
    began = time.perf_counter()
    for _ in range(CASTS):
        messages.put_nowait(1)
    messages.put_nowait(0)
    await done.wait()
    took = us_each(began, CASTS)
    await ended(server)
    return took


async def spawn() -> float:
    began = time.perf_counter()
    for _ in range(SPAWNS):
        server = asyncio.create_task(serve(asyncio.Queue()))
        await asyncio.sleep(0)
        await ended(server)
    return us_each(began, SPAWNS)


async def ring() -> float:
    done = asyncio.Event()
    queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(RING)]

    async def link(position: int) -> None:
        following = queues[(position + 1) % RING]
        while True:
            left = await queues[position].get()
            if left == 0:
                done.set()
            else:
                following.put_nowait(left - 1)

    links = [asyncio.create_task(link(position)) for position in range(RING)]
    began = time.perf_counter()
    queues[0].put_nowait(HOPS)
    await done.wait()
    took = us_each(began, HOPS)
    for task in links:
        await ended(task)
    return took


async def restart() -> float:
    requests: Requests = asyncio.Queue()

    async def supervise() -> None:
        while True:
            with suppress(ValueError):
                await asyncio.create_task(serve(requests))

    supervisor = asyncio.create_task(supervise())
    began = time.perf_counter()
    for _ in range(RESTARTS):
        with suppress(ValueError):
            await ask(requests, ValueError)
        await ask(requests, "alive?")
    took = us_each(began, RESTARTS)
    await ended(supervisor)
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
    before = resident_bytes()
    servers = [asyncio.create_task(serve(asyncio.Queue())) for _ in range(IDLE)]
    await asyncio.sleep(0)
    took = (resident_bytes() - before) / IDLE
    for server in servers:
        await ended(server)
    return {"idle": took}


if __name__ == "__main__":
    show("", lambda: asyncio.run(times()), lambda: asyncio.run(idle()))
