"""Thespian on its simplest base: actors take turns on the thread that asks.

Callers cannot come at once, for there is one thread.  A crash is survived with the
state as it is, not restarted.  Its other bases make a process of each actor.
"""

# mypy: disable-error-code="import-not-found, no-any-return, misc"
# This folder is on the path when a script of it runs, and thespian is not installed.

from __future__ import annotations

import time

from measure import (
    CALLS,
    CASTS,
    HOPS,
    IDLE,
    RING,
    SPAWNS,
    Found,
    resident_bytes,
    show,
    us_each,
)
from thespian.actors import Actor, ActorAddress, ActorExitRequest, ActorSystem


class Echo(Actor):
    def receiveMessage(self, message: object, sender: object) -> None:  # noqa: N802
        if message == "ask":
            self.send(sender, message)


class Link(Actor):
    """Passes a number on until it is 0."""

    def receiveMessage(self, message: object, sender: object) -> None:  # noqa: N802
        if isinstance(message, ActorAddress):
            self.next = message
        elif isinstance(message, int) and message:
            self.send(self.next, message - 1)


def call(system: ActorSystem) -> float:
    server = system.createActor(Echo)
    began = time.perf_counter()
    for _ in range(CALLS):
        assert system.ask(server, "ask") == "ask"
    return us_each(began, CALLS)


def cast(system: ActorSystem) -> float:
    server = system.createActor(Echo)
    began = time.perf_counter()
    for _ in range(CASTS):
        system.tell(server, "tell")
    return us_each(began, CASTS)


def spawn(system: ActorSystem) -> float:
    began = time.perf_counter()
    for _ in range(SPAWNS):
        system.tell(system.createActor(Echo), ActorExitRequest())
    return us_each(began, SPAWNS)


def ring(system: ActorSystem) -> float:
    links = [system.createActor(Link) for _ in range(RING)]
    for link, following in zip(links, links[1:] + links[:1], strict=True):
        system.tell(link, following)
    began = time.perf_counter()
    system.tell(links[0], HOPS)
    return us_each(began, HOPS)


def times() -> Found:
    system = ActorSystem("simpleSystemBase")
    return {
        "call": call(system),
        "callers": None,
        "cast": cast(system),
        "spawn": spawn(system),
        "ring": ring(system),
        "restart": None,
    }


def idle() -> Found:
    system = ActorSystem("simpleSystemBase")
    before = resident_bytes()
    for _ in range(IDLE):
        system.createActor(Echo)
    return {"idle": (resident_bytes() - before) / IDLE}


if __name__ == "__main__":
    show("thespian", times, idle)
