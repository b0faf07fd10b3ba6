"""What processes cost, each beside the same thing made by hand on trio.

    python tests/benchmarks/bench_process.py [ROUNDS]

Prints medians of interleaved rounds and the ratio to the hand-made form of the
same run: the ratio is comparable between machines, the microseconds are not.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    Reply,
    Restart,
    call,
    cast,
    child,
    start_child,
    terminate_child,
)
from atomr.process import Node, attached, kill, open_node, spawn

Bench: TypeAlias = Callable[[Node], Awaitable[float]]

CALLS = 5_000
CASTS = 50_000
SPAWNS = 1_000
BLOCKS = 5_000


class Echo(GenServer):
    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)

    def handle_cast(self, message: object) -> None:
        pass


class AsyncEcho(GenServer):
    async def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request)


def us_each(began: float, count: int) -> float:
    """Return microseconds per operation since ``began``."""
    return (time.perf_counter() - began) / count * 1e6


async def call_server(node: Node, server: type[GenServer] = Echo) -> float:
    pid = await node.start(child(server, restart=Restart.TEMPORARY))
    began = time.perf_counter()
    for _ in range(CALLS):
        await call(pid, 1)
    took = us_each(began, CALLS)
    kill(pid)
    return took


async def call_async_server(node: Node) -> float:
    return await call_server(node, AsyncEcho)


async def call_channels(node: Node) -> float:
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


async def hundred_callers(node: Node) -> float:
    pid = await node.start(child(Echo, restart=Restart.TEMPORARY))

    async def ask() -> None:
        for _ in range(CALLS // 100):
            await call(pid, 1)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    took = us_each(began, CALLS)
    kill(pid)
    return took


async def hundred_channel_callers(node: Node) -> float:
    Sender: TypeAlias = trio.MemorySendChannel[int]
    to_server, requests = trio.open_memory_channel[tuple[int, Sender]](200)

    async def serve() -> None:
        async for request, to_client in requests:
            to_client.send_nowait(request)

    async def ask() -> None:
        to_client, replies = trio.open_memory_channel[int](1)
        for _ in range(CALLS // 100):
            to_server.send_nowait((1, to_client))
            await replies.receive()

    async with trio.open_nursery() as servers:
        servers.start_soon(serve)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        took = us_each(began, CALLS)
        servers.cancel_scope.cancel()
    return took


async def cast_server(node: Node) -> float:
    pid = await node.start(child(Echo, restart=Restart.TEMPORARY))
    began = time.perf_counter()
    for _ in range(CASTS):
        cast(pid, 1)
    await call(pid, 1)
    took = us_each(began, CASTS)
    kill(pid)
    return took


async def cast_channel(node: Node) -> float:
    send, receive = trio.open_memory_channel[int](float("inf"))
    done = trio.Event()

    async def serve() -> None:
        async for message in receive:
            if not message:
                done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        began = time.perf_counter()
        for _ in range(CASTS):
            send.send_nowait(1)
        send.send_nowait(0)
        await done.wait()
        took = us_each(began, CASTS)
        nursery.cancel_scope.cancel()
    return took


async def spawn_processes(node: Node) -> float:
    running: list[int] = []

    async def run() -> None:
        running.append(1)
        await trio.sleep_forever()

    began = time.perf_counter()
    pids = [spawn(run) for _ in range(SPAWNS)]
    while len(running) < SPAWNS:
        await trio.lowlevel.checkpoint()
    for pid in pids:
        kill(pid)
    while node.size > 1:
        await trio.lowlevel.checkpoint()
    return us_each(began, SPAWNS)


async def spawn_tasks(node: Node) -> float:
    scopes: list[trio.CancelScope] = []

    async def run() -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await trio.sleep_forever()

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(SPAWNS):
            nursery.start_soon(run)
        while len(scopes) < SPAWNS:
            await trio.lowlevel.checkpoint()
        for scope in scopes:
            scope.cancel()
    return us_each(began, SPAWNS)


async def start_children(node: Node) -> float:
    top = node.whereis("requests")
    assert top is not None
    spec = child(Echo)
    count = SPAWNS // 5
    began = time.perf_counter()
    for _ in range(count):
        await terminate_child(top, await start_child(top, spec))
    return us_each(began, count)


async def start_tasks(node: Node) -> float:
    async def run(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await trio.sleep_forever()

    count = SPAWNS // 5
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            scope: trio.CancelScope = await nursery.start(run)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    return us_each(began, count)


async def attach(node: Node) -> float:
    top = node.whereis("requests")
    assert top is not None
    began = time.perf_counter()
    for _ in range(BLOCKS):
        async with attached(top, id="r"):
            pass
    return us_each(began, BLOCKS)


async def bare_scope(node: Node) -> float:
    began = time.perf_counter()
    for _ in range(BLOCKS):
        with trio.CancelScope():  # noqa: ASYNC100 - only its own cost is wanted
            pass
    return us_each(began, BLOCKS)


BENCHES: list[tuple[str, Bench, str, Bench]] = [
    ("call, plain handler", call_server, "two channels", call_channels),
    ("call, async handler", call_async_server, "two channels", call_channels),
    ("call, 100 callers", hundred_callers, "channels", hundred_channel_callers),
    ("cast", cast_server, "unbounded channel", cast_channel),
    ("spawn and kill", spawn_processes, "task and scope", spawn_tasks),
    ("start and stop child", start_children, "nursery.start", start_tasks),
    ("attached block", attach, "cancel scope", bare_scope),
]


async def main(rounds: int) -> None:
    print(f"{'':22}{'atomr us':>10}{'trio us':>10}{'ratio':>8}   beside")
    async with open_node() as node:
        await node.start(child(DynamicSupervisor, name="requests"))
        for name, ours, beside, theirs in BENCHES:
            pairs: list[tuple[float, float]] = []
            for _ in range(rounds):
                gc.collect()
                pairs.append((await ours(node), await theirs(node)))
            mine = statistics.median(pair[0] for pair in pairs)
            other = statistics.median(pair[1] for pair in pairs)
            print(f"{name:22}{mine:10.2f}{other:10.2f}{mine / other:8.2f}   {beside}")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7)
