"""What tasks cost, each beside a nursery and a channel made by hand on trio.

    python tests/benchmarks/bench_task.py [ROUNDS]

Prints medians of interleaved rounds and the ratio to the hand-made form of the
same run: the ratio is comparable between machines, the microseconds are not.
The hand-made forms report no exit, know no timeout and no caller.
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
    Task,
    TaskSupervisor,
    async_,
    async_nolink,
    async_stream_nolink,
    await_many,
    child,
    start_task,
)
from atomr.process import Node, open_node

Bench: TypeAlias = Callable[[Node], Awaitable[float]]

TASKS = 2_000
ITEMS = 2_000
AT_A_TIME = 8


def us_each(began: float, count: int) -> float:
    """Return microseconds per operation since ``began``."""
    return (time.perf_counter() - began) / count * 1e6


async def nothing() -> int:
    return 1


async def double(item: int) -> int:
    await trio.lowlevel.checkpoint()
    return item * 2


async def async_and_await(node: Node) -> float:
    began = time.perf_counter()
    for _ in range(TASKS):
        await async_("tasks", nothing).result()
    return us_each(began, TASKS)


async def async_unsupervised(node: Node) -> float:
    began = time.perf_counter()
    for _ in range(TASKS):
        await Task.async_(nothing).result()
    return us_each(began, TASKS)


async def nursery_and_channel(node: Node) -> float:
    async def run(send: trio.MemorySendChannel[int]) -> None:
        with trio.CancelScope():
            send.send_nowait(await nothing())

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            send, receive = trio.open_memory_channel[int](1)
            nursery.start_soon(run, send)
            await receive.receive()
    return us_each(began, TASKS)


async def await_a_thousand(node: Node) -> float:
    began = time.perf_counter()
    await await_many([async_nolink("tasks", nothing) for _ in range(TASKS)])
    return us_each(began, TASKS)


async def gather_a_thousand(node: Node) -> float:
    values = [0] * TASKS

    async def run(position: int) -> None:
        with trio.CancelScope():
            values[position] = await nothing()

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for position in range(TASKS):
            nursery.start_soon(run, position)
    return us_each(began, TASKS)


async def start_and_forget(node: Node) -> float:
    began = time.perf_counter()
    for _ in range(TASKS):
        start_task("tasks", nothing)
    while node.size > 1:
        await trio.lowlevel.checkpoint()
    return us_each(began, TASKS)


async def stream(node: Node, *, ordered: bool = True) -> float:
    began = time.perf_counter()
    run = async_stream_nolink(
        "tasks", range(ITEMS), double, max_concurrency=AT_A_TIME, ordered=ordered
    )
    async with run as results:
        async for _result in results:
            pass
    return us_each(began, ITEMS)


async def stream_unordered(node: Node) -> float:
    return await stream(node, ordered=False)


async def task_per_item(node: Node) -> float:
    """Run a task for each item, in a nursery, with a limiter and a channel."""
    send, receive = trio.open_memory_channel[int](AT_A_TIME)
    limiter = trio.CapacityLimiter(AT_A_TIME)

    async def run(item: int) -> None:
        try:
            with trio.fail_after(5):
                send.send_nowait(await double(item))
        finally:
            limiter.release_on_behalf_of(item)

    async def feed() -> None:
        async with trio.open_nursery() as tasks:
            for item in range(ITEMS):
                await limiter.acquire_on_behalf_of(item)
                tasks.start_soon(run, item)
        send.close()

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        async for _result in receive:
            pass
    return us_each(began, ITEMS)


async def workers(node: Node) -> float:
    """Run a fixed number of tasks that take items in turn: no isolation at all."""
    send, receive = trio.open_memory_channel[int](AT_A_TIME)
    items = iter(range(ITEMS))

    async def work(out: trio.MemorySendChannel[int]) -> None:
        async with out:
            for item in items:
                await out.send(await double(item))

    began = time.perf_counter()
    async with trio.open_nursery() as nursery, send:
        for _ in range(AT_A_TIME):
            nursery.start_soon(work, send.clone())
        send.close()
        async for _result in receive:
            pass
    return us_each(began, ITEMS)


BENCHES: list[tuple[str, Bench, str, Bench]] = [
    ("async and await", async_and_await, "nursery, channel", nursery_and_channel),
    ("the same, no supervisor", async_unsupervised, "the same", nursery_and_channel),
    ("await_many", await_a_thousand, "nursery, list", gather_a_thousand),
    ("start_task", start_and_forget, "nursery, list", gather_a_thousand),
    ("stream, ordered", stream, "a task per item", task_per_item),
    ("stream, unordered", stream_unordered, "a task per item", task_per_item),
    ("stream, unordered", stream_unordered, "worker tasks", workers),
]


async def main(rounds: int) -> None:
    print(f"{'':24}{'atomr us':>10}{'trio us':>10}{'ratio':>8}   beside")
    async with open_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        for name, ours, beside, theirs in BENCHES:
            pairs: list[tuple[float, float]] = []
            for _ in range(rounds):
                gc.collect()
                pairs.append((await ours(node), await theirs(node)))
            mine = statistics.median(pair[0] for pair in pairs)
            other = statistics.median(pair[1] for pair in pairs)
            print(f"{name:24}{mine:10.2f}{other:10.2f}{mine / other:8.2f}   {beside}")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7)
