"""Pykka: an actor is a thread.  It has no supervisors; a dead actor stays dead."""

# mypy: disable-error-code="import-not-found, no-any-return, misc"
# This folder is on the path when a script of it runs, and pykka is not installed.

from __future__ import annotations

import threading
import time

import pykka
from measure import (
    CALLERS,
    CALLS,
    CASTS,
    HOPS,
    RING,
    SPAWNS,
    Found,
    resident_bytes,
    show,
    us_each,
)

IDLE = 1_000  # each is a thread: ten thousand are more than most systems allow


class Echo(pykka.ThreadingActor):
    def on_receive(self, message: object) -> object:
        return message


class Link(pykka.ThreadingActor):
    """Passes a number on until it is 0."""

    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self.done = done

    def on_receive(self, message: object) -> None:
        if isinstance(message, pykka.ActorRef):
            self.next = message
        elif message:
            assert isinstance(message, int)
            self.next.tell(message - 1)
        else:
            self.done.set()


def call() -> float:
    server = Echo.start()
    began = time.perf_counter()
    for _ in range(CALLS):
        server.ask(1)
    took = us_each(began, CALLS)
    server.stop()
    return took


def callers() -> float:
    server = Echo.start()

    def ask() -> None:
        for _ in range(CALLS // CALLERS):
            server.ask(1)

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = us_each(began, CALLS)
    server.stop()
    return took


def cast() -> float:
    server = Echo.start()
    began = time.perf_counter()
    for _ in range(CASTS):
        server.tell(1)
    server.ask(1)
    took = us_each(began, CASTS)
    server.stop()
    return took


def spawn() -> float:
    began = time.perf_counter()
    for _ in range(SPAWNS):
        Echo.start().stop()
    return us_each(began, SPAWNS)


def ring() -> float:
    done = threading.Event()
    links = [Link.start(done) for _ in range(RING)]
    for link, following in zip(links, links[1:] + links[:1], strict=True):
        link.ask(following)
    began = time.perf_counter()
    links[0].tell(HOPS)
    done.wait()
    took = us_each(began, HOPS)
    pykka.ActorRegistry.stop_all()
    return took


def times() -> Found:
    return {
        "call": call(),
        "callers": callers(),
        "cast": cast(),
        "spawn": spawn(),
        "ring": ring(),
        "restart": None,
    }


def idle() -> Found:
    before = resident_bytes()
    for _ in range(IDLE):
        Echo.start()
    took = (resident_bytes() - before) / IDLE
    pykka.ActorRegistry.stop_all()
    return {"idle": took}


if __name__ == "__main__":
    show("pykka", times, idle)
