"""Otpylib: a gen_server is an asyncio task, here on its asyncio backend.

Only a name can be called.  A process is started by a process, so what measures is one.
Its gen_server prints each crash; nobody reads that here.
"""

# mypy: disable-error-code="import-not-found, no-any-return, call-arg, metaclass"
# This folder is on the path when a script of it runs, and otpylib is not installed.

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from typing import TYPE_CHECKING

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
from otpylib import atom, gen_server, process, supervisor
from otpylib.module import GEN_SERVER, SUPERVISOR, OTPModule
from otpylib.runtime.backends.asyncio_backend.backend import AsyncIOBackend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# A child that dies before its supervisor watches it stays dead, so that is waited for.
SETTLES = 10
SHUTDOWN = atom.ensure("shutdown")


class Echo(metaclass=OTPModule, behavior=GEN_SERVER, version="1.0.0"):
    """Answers, forgets, and crashes when asked to."""

    async def init(self, _argument: object) -> None:
        return None

    async def handle_call(
        self, request: object, _from: object, state: object
    ) -> object:
        return gen_server.Reply(request), state

    async def handle_cast(self, message: object, state: object) -> object:
        if message == "crash":
            raise ValueError("asked to")
        return gen_server.NoReply(), state

    async def handle_info(self, _message: object, state: object) -> object:
        return gen_server.NoReply(), state

    async def terminate(self, _reason: object, _state: object) -> None:
        return None


class Link(metaclass=OTPModule, behavior=GEN_SERVER, version="1.0.0"):
    """Passes a number on until it is 0."""

    async def init(self, _argument: object) -> list[object]:
        return []

    async def handle_call(
        self, request: object, _from: object, state: object
    ) -> object:
        return gen_server.Reply(request), state

    async def handle_cast(self, message: object, state: list[object]) -> object:
        if isinstance(message, tuple):
            return gen_server.NoReply(), list(message)
        following, done = state
        if message:
            assert isinstance(message, int)
            await gen_server.cast(following, message - 1)
        else:
            assert isinstance(done, asyncio.Event)
            done.set()
        return gen_server.NoReply(), state

    async def handle_info(self, _message: object, state: object) -> object:
        return gen_server.NoReply(), state

    async def terminate(self, _reason: object, _state: object) -> None:
        return None


class Top(metaclass=OTPModule, behavior=SUPERVISOR, version="1.0.0"):
    """Restarts one server as often as it crashes."""

    async def init(self, _argument: object) -> object:
        spec = supervisor.child_spec(id="crasher", module=Echo, name="crasher")
        return [spec], supervisor.options(max_restarts=10**9, max_seconds=1)

    async def terminate(self, _reason: object, _state: object) -> None:
        return None


async def call() -> float:
    await gen_server.start(Echo, name="echo")
    began = time.perf_counter()
    for _ in range(CALLS):
        await gen_server.call("echo", 1)
    return us_each(began, CALLS)


async def callers() -> float:
    left = [CALLERS]
    done = asyncio.Event()

    async def ask() -> None:
        for _ in range(CALLS // CALLERS):
            await gen_server.call("echo", 1)
        left[0] -= 1
        if not left[0]:
            done.set()

    began = time.perf_counter()
    for _ in range(CALLERS):
        await process.spawn(ask)
    await done.wait()
    return us_each(began, CALLS)


async def cast() -> float:
    began = time.perf_counter()
    for _ in range(CASTS):
        await gen_server.cast("echo", 1)
    await gen_server.call("echo", 1)
    return us_each(began, CASTS)


async def spawn() -> float:
    began = time.perf_counter()
    for _ in range(SPAWNS):
        pid = await gen_server.start(Echo)
        await process.exit(pid, SHUTDOWN)
        while process.is_alive(pid):  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0)
    return us_each(began, SPAWNS)


async def ring() -> float:
    done = asyncio.Event()
    links = [await gen_server.start(Link) for _ in range(RING)]
    for link, following in zip(links, links[1:] + links[:1], strict=True):
        await gen_server.cast(link, (following, done))
    began = time.perf_counter()
    await gen_server.cast(links[0], HOPS)
    await done.wait()
    return us_each(began, HOPS)


async def restart() -> float:
    await supervisor.start_link(Top)
    began = time.perf_counter()
    for _ in range(RESTARTS):
        crashed = process.whereis("crasher")
        await gen_server.cast("crasher", "crash")
        while process.whereis("crasher") in {None, crashed}:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await gen_server.call("crasher", "alive?")
        for _ in range(SETTLES):
            await asyncio.sleep(0)
    return us_each(began, RESTARTS)


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
    for _ in range(IDLE):
        await gen_server.start(Echo)
    return {"idle": (resident_bytes() - before) / IDLE}


async def in_process(measure: Callable[[], Awaitable[Found]]) -> Found:
    backend = AsyncIOBackend()
    await backend.initialize()
    process.use_runtime(backend)
    found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            found.set_result(await measure())
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            found.set_exception(error)

    await process.spawn(run)
    result = await found
    await backend.shutdown()
    return result


def quiet(measure: Callable[[], Awaitable[Found]]) -> Found:
    with contextlib.redirect_stdout(io.StringIO()):
        return asyncio.run(in_process(measure))


if __name__ == "__main__":
    show("otpylib", lambda: quiet(times), lambda: quiet(idle))
