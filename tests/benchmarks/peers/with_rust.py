"""The Rust actor runtime's Python bindings: package ``atomr``, 0.10 or later.

Actors run on their default dispatcher, one pinned Python thread.  The package has our
import name, so it needs an environment of its own.
"""

# mypy: disable-error-code="import-not-found, no-any-return, misc, attr-defined"
# This folder is on the path when a script of it runs; ``atomr`` is another package.

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

# First, for it is what is missing where ``atomr`` is this library.
import atomr.supervision
from measure import (
    CALLERS,
    IDLE,
    RESTARTS,
    RING,
    Found,
    resident_bytes,
    show,
    us_each,
)

from atomr import Actor, ActorSystem, props

# A message takes a fraction of a millisecond, so there are fewer than elsewhere.
CALLS = 1_000
CASTS = 2_000
SPAWNS = 100
HOPS = 1_000


class Echo(Actor):
    """Answers, and crashes when asked to."""

    async def handle(self, ctx: object, message: object) -> object:
        if message == "crash":
            raise ValueError("asked to")
        return message


class Top(Actor):
    """Starts a child of its own, and restarts it as often as it crashes."""

    async def handle(self, ctx: Any, name: str) -> object:
        return await ctx.spawn(props(Echo), name)


class Link(Actor):
    """Passes a number on until it is 0."""

    async def handle(self, ctx: object, message: object) -> None:
        if isinstance(message, tuple):
            self.next, self.done = message
        elif message:
            assert isinstance(message, int)
            self.next.tell(message - 1)
        else:
            self.done.set()


def call(system: ActorSystem) -> float:
    server = system.actor_of(props(Echo), "call")
    began = time.perf_counter()
    for _ in range(CALLS):
        server.ask_blocking(1)
    return us_each(began, CALLS)


async def callers(system: ActorSystem) -> float:
    server = system.actor_of(props(Echo), "callers")

    async def ask() -> None:
        for _ in range(CALLS // CALLERS):
            await server.ask(1)

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(CALLERS)))
    return us_each(began, CALLS)


def cast(system: ActorSystem) -> float:
    server = system.actor_of(props(Echo), "cast")
    began = time.perf_counter()
    for _ in range(CASTS):
        server.tell(1)
    server.ask_blocking(1)
    return us_each(began, CASTS)


def spawn(system: ActorSystem) -> float:
    spec = props(Echo)
    began = time.perf_counter()
    for number in range(SPAWNS):
        server = system.actor_of(spec, f"short-{number}")
        server.ask_blocking("ready?")
        server.stop()
        while not server.is_terminated():
            time.sleep(0)
    return us_each(began, SPAWNS)


def ring(system: ActorSystem) -> float:
    done = threading.Event()
    links = [system.actor_of(props(Link), f"link-{place}") for place in range(RING)]
    for link, following in zip(links, links[1:] + links[:1], strict=True):
        link.tell((following, done))
    began = time.perf_counter()
    links[0].tell(HOPS)
    done.wait()
    return us_each(began, HOPS)


def restart(system: ActorSystem) -> float:
    rule = atomr.supervision.one_for_one(
        default="restart", max_retries=10**6, within_seconds=1.0
    )
    top = system.actor_of(props(Top).with_supervisor_strategy(rule), "top")
    server = top.ask_blocking("crasher")
    began = time.perf_counter()
    for _ in range(RESTARTS):
        server.tell("crash")
        server.ask_blocking("alive?")
    return us_each(began, RESTARTS)


def times() -> Found:
    system = ActorSystem.create_blocking("times")
    found: Found = {
        "call": call(system),
        "callers": asyncio.run(callers(system)),
        "cast": cast(system),
        "spawn": spawn(system),
        "ring": ring(system),
        "restart": restart(system),
    }
    system.terminate_blocking()
    return found


def idle() -> Found:
    system = ActorSystem.create_blocking("idle")
    spec = props(Echo)
    before = resident_bytes()
    for number in range(IDLE):
        last = system.actor_of(spec, f"idle-{number}")
    last.ask_blocking("ready?", timeout=30.0)
    took = (resident_bytes() - before) / IDLE
    system.terminate_blocking()
    return {"idle": took}


if __name__ == "__main__":
    show("atomr", times, idle)
    sys.stdout.flush()
    os._exit(0)  # its thread outlives the interpreter, which often aborts the process
