"""What it costs that processes come, stay, fail and go, each beside trio by hand.

    python tests/benchmarks/bench_lifecycle.py [ROUNDS]

Prints medians of interleaved rounds and the ratio to the hand-made form of the
same run.  Memory is the growth of the resident set of a fresh interpreter.
"""

from __future__ import annotations

import gc
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import trio
import trio.testing

from atomr.errors import ServerDownError
from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    NoReply,
    Reply,
    Restart,
    call,
    cast,
    child,
    start_child,
)
from atomr.process import Node, open_node, receive, send, spawn, stop
from atomr.refs import Pid

Bench: TypeAlias = Callable[[Node], Awaitable[float]]

RING = 100
HOPS = 20_000
SENDERS = 100
FAN_IN = 50_000
RESTARTS = 500
IDLE = 20_000


def us_each(began: float, count: int) -> float:
    """Return microseconds per operation since ``began``."""
    return (time.perf_counter() - began) / count * 1e6


# --- a message round a ring of 100 ---------------------------------------------


class Link(GenServer):
    """Passes a number on until it is 0."""

    def __init__(self) -> None:
        self.next: Pid
        self.done: trio.Event

    def handle_cast(self, message: tuple[Pid, trio.Event]) -> None:
        self.next, self.done = message

    def handle_info(self, message: int) -> None:
        if message:
            send(self.next, message - 1)
        else:
            self.done.set()


async def ring_lean(node: Node) -> float:
    spec = child(Link, restart=Restart.TEMPORARY)
    ring = [await node.start(spec) for _ in range(RING)]
    done = trio.Event()
    for pid, following in zip(ring, ring[1:] + ring[:1], strict=True):
        cast(pid, (following, done))
    began = time.perf_counter()
    send(ring[0], HOPS)
    await done.wait()
    return us_each(began, HOPS)


async def ring_tasks(node: Node) -> float:
    done = trio.Event()

    async def link() -> None:
        following = await receive()
        assert isinstance(following, Pid)
        while True:
            left = await receive()
            assert isinstance(left, int)
            if left == 0:
                done.set()
            else:
                send(following, left - 1)

    ring = [spawn(link) for _ in range(RING)]
    for pid, following in zip(ring, ring[1:] + ring[:1], strict=True):
        send(pid, following)
    began = time.perf_counter()
    send(ring[0], HOPS)
    await done.wait()
    return us_each(began, HOPS)


async def ring_channels(_node: Node) -> float:
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


# --- a hundred senders, one receiver ---------------------------------------------


class Sink(GenServer):
    """Counts."""

    def __init__(self) -> None:
        self.got = 0

    def handle_cast(self, message: object) -> None:
        self.got += 1

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(self.got)


async def fan_in(node: Node) -> float:
    pid = await node.start(child(Sink, restart=Restart.TEMPORARY))

    async def fill() -> None:
        for _ in range(FAN_IN // SENDERS):
            cast(pid, 1)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(fill)
    assert await call(pid, "got") == FAN_IN
    return us_each(began, FAN_IN)


async def fan_in_channel(_node: Node) -> float:
    to_sink, messages = trio.open_memory_channel[int](float("inf"))

    async def fill() -> None:
        for _ in range(FAN_IN // SENDERS):
            to_sink.send_nowait(1)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(fill)
    for _ in range(FAN_IN):
        await messages.receive()
    return us_each(began, FAN_IN)


# --- a crash, and the way back -----------------------------------------------------


class Crasher(GenServer):
    """Crashes when asked to; has no task."""

    def handle_call(self, request: bool, from_: From) -> Reply:
        if request:
            raise ValueError("asked to")
        return Reply("alive")


class TaskCrasher(Crasher):
    """The same with a task."""

    async def handle_info(self, message: object) -> NoReply:
        return NoReply()


async def _crash_and_ask(node: Node, server: type[Crasher]) -> float:
    # A window that is always over.
    supervisor = DynamicSupervisor(max_restarts=1, max_seconds=1e-9)
    spec = child(lambda: supervisor, id="top", restart=Restart.TEMPORARY)
    top = await node.start(spec)
    await start_child(top, child(server, name="crasher"))
    began = time.perf_counter()
    for _ in range(RESTARTS):
        with suppress(ServerDownError):
            await call("crasher", True)
        while node.whereis("crasher") is None:
            await trio.lowlevel.checkpoint()
        await call("crasher", False)
    took = us_each(began, RESTARTS)
    await stop(top)
    return took


async def restart_lean(node: Node) -> float:
    return await _crash_and_ask(node, Crasher)


async def restart_task(node: Node) -> float:
    return await _crash_and_ask(node, TaskCrasher)


async def restart_by_hand(_node: Node) -> float:
    """Restart a task that answers on channels, by a loop around it."""
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


# --- memory of the idle ------------------------------------------------------------


class Lean(GenServer):
    """Never waits."""

    __slots__ = ()


class Dormant(GenServer):
    """May wait, but has no task until its first message."""

    __slots__ = ()

    async def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)


class Tasked(Dormant):
    """May wait, and has a task from the start."""

    __slots__ = ()

    async def init(self) -> None:
        pass


IDLE_SHAPES = {"lean": Lean, "dormant": Dormant, "task": Tasked}


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def idle_bytes(shape: str) -> float:
    """Return the bytes that one idle process of that shape takes."""
    async with open_node() as node:
        top = await node.start(child(DynamicSupervisor))
        gc.collect()
        before = _resident_bytes()
        if shape == "channel":
            async with trio.open_nursery() as nursery:
                for _ in range(IDLE):
                    nursery.start_soon(_idle_task)
                await trio.testing.wait_all_tasks_blocked()
                took = _resident_bytes() - before
                nursery.cancel_scope.cancel()
            return took / IDLE
        spec = child(IDLE_SHAPES[shape])
        for _ in range(IDLE):
            await start_child(top, spec)
        gc.collect()
        return (_resident_bytes() - before) / IDLE


async def _idle_task() -> None:
    with trio.CancelScope():
        _to_task, messages = trio.open_memory_channel[int](float("inf"))
        async for _ in messages:
            pass


def memory() -> None:
    """Print bytes per idle process, each shape in an interpreter of its own."""
    found = {}
    for shape in ("channel", *IDLE_SHAPES):
        command = [sys.executable, __file__, "--idle", shape]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        found[shape] = float(output.stdout)
    print(f"\n{'':26}{'bytes':>10}{'ratio':>8}   beside a task, a scope and a channel")
    for shape, size in found.items():
        print(f"idle, {shape:20}{size:10.0f}{size / found['channel']:8.2f}")


BENCHES: list[tuple[str, Bench, Bench]] = [
    ("ring hop, no task", ring_lean, ring_channels),
    ("ring hop, task each", ring_tasks, ring_channels),
    ("fan-in of 100", fan_in, fan_in_channel),
    ("crash to ready, no task", restart_lean, restart_by_hand),
    ("crash to ready, task", restart_task, restart_by_hand),
]


async def main(rounds: int) -> None:
    print(f"{'':26}{'atomr us':>10}{'trio us':>10}{'ratio':>8}")
    for name, ours, theirs in BENCHES:
        pairs: list[tuple[float, float]] = []
        for _ in range(rounds):
            gc.collect()
            async with open_node() as node:
                pairs.append((await ours(node), await theirs(node)))
        mine = statistics.median(pair[0] for pair in pairs)
        other = statistics.median(pair[1] for pair in pairs)
        print(f"{name:26}{mine:10.2f}{other:10.2f}{mine / other:8.2f}")


if __name__ == "__main__":
    logging.disable()  # a report of each crash would be most of what is measured
    if sys.argv[1:2] == ["--idle"]:
        print(trio.run(idle_bytes, sys.argv[2]))
    else:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
        memory()
