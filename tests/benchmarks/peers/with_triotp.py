"""Triotp: a gen_server is a module of functions and a trio task.

A call to a server whose callback raises waits for ever, so a crash is asked for by a
cast.  Mailboxes hold nothing: a cast waits until the server takes it.
"""

# mypy: disable-error-code="import-not-found, no-any-return"
# This folder is on the path when a script of it runs, and triotp is not installed.

from __future__ import annotations

import sys
import time
from types import ModuleType

import trio
from measure import (
    CALLERS,
    CALLS,
    CASTS,
    HOPS,
    RESTARTS,
    RING,
    SPAWNS,
    Found,
    resident_bytes,
    show,
    us_each,
)
from triotp import application, dynamic_supervisor, gen_server, node, supervisor

IDLE = 2_000  # to end ten thousand takes it a quarter of a minute

HERE: ModuleType = sys.modules[__name__]  # the callbacks are this module's functions
FOREVER = supervisor.options(max_restarts=10**9, max_seconds=1)

started = [trio.Event()]  # the one of the server that is started last
done = trio.Event()


# --- callbacks of the server ---------------------------------------------------------


async def init(_argument: object) -> None:
    started[0].set()


async def handle_call(request: object, _caller: object, state: object) -> object:
    return gen_server.Reply(request), state


async def handle_cast(message: object, state: object) -> object:
    match message:
        case "crash":
            raise ValueError("asked to")
        case "stop":
            return gen_server.Stop(), state
        case (0, _):
            done.set()
        case (int(left), int(position)):
            following = (position + 1) % RING
            await gen_server.cast(f"link-{following}", (left - 1, following))
    return gen_server.NoReply(), state


async def terminate(_reason: object, _state: object) -> None:
    """Report nothing."""


# --- what is measured -----------------------------------------------------------------


async def start(name: str | None) -> None:
    """Start a supervised server, and return when it is ready."""
    started[0] = trio.Event()
    spec = supervisor.child_spec(
        id=name or "unnamed", task=gen_server.start, args=[HERE, None, name]
    )
    await dynamic_supervisor.start_child("top", spec)
    await started[0].wait()


async def call() -> float:
    await start("call")
    began = time.perf_counter()
    for _ in range(CALLS):
        await gen_server.call("call", 1)
    return us_each(began, CALLS)


async def callers() -> float:
    async def ask() -> None:
        for _ in range(CALLS // CALLERS):
            await gen_server.call("call", 1)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(ask)
    return us_each(began, CALLS)


async def cast() -> float:
    began = time.perf_counter()
    for _ in range(CASTS):
        await gen_server.cast("call", 1)
    await gen_server.call("call", 1)
    return us_each(began, CASTS)


async def spawn() -> float:
    async def serve(ended: trio.Event) -> None:
        await gen_server.start(HERE, None, "short")
        ended.set()

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(SPAWNS):
            started[0] = trio.Event()
            ended = trio.Event()
            nursery.start_soon(serve, ended)
            await started[0].wait()
            await gen_server.cast("short", "stop")
            await ended.wait()
    return us_each(began, SPAWNS)


async def ring() -> float:
    for position in range(RING):
        await start(f"link-{position}")
    began = time.perf_counter()
    await gen_server.cast("link-0", (HOPS, 0))
    await done.wait()
    return us_each(began, HOPS)


async def restart() -> float:
    await start("crasher")
    began = time.perf_counter()
    for _ in range(RESTARTS):
        started[0] = trio.Event()
        await gen_server.cast("crasher", "crash")
        await started[0].wait()
        await gen_server.call("crasher", "alive?")
    return us_each(began, RESTARTS)


async def measure_times() -> Found:
    return {
        "call": await call(),
        "callers": await callers(),
        "cast": await cast(),
        "spawn": await spawn(),
        "ring": await ring(),
        "restart": await restart(),
    }


async def measure_idle() -> Found:
    before = resident_bytes()
    for _ in range(IDLE):
        await start(None)  # each that ends looks through all names
    return {"idle": (resident_bytes() - before) / IDLE}


# --- a node with one application, which measures --------------------------------------


def run(name: str) -> Found:
    app = ModuleType(name)
    found: Found = {}

    async def start_app(_argument: object) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(dynamic_supervisor.start, FOREVER, "top")
            found.update(await {"times": measure_times, "idle": measure_idle}[name]())
            nursery.cancel_scope.cancel()

    vars(app)["start"] = start_app
    node.run([application.app_spec(module=app, start_arg=None, permanent=False)])
    return found


if __name__ == "__main__":
    show("triotp", lambda: run("times"), lambda: run("idle"))
