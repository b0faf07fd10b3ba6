"""What an event costs in a flow, beside a plain loop and trio's memory channels.

    python tests/benchmarks/bench_flow.py [ROUNDS]

Each form takes the same events through the same three functions.  Prints medians of
interleaved rounds and the ratio to the plain loop of the same run: the ratio is
comparable between machines, the nanoseconds are not.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from atomr import flow

Bench: TypeAlias = Callable[[], Awaitable[int]]

EVENTS = 50_000
EXPECTED = 25_000


def add(number: int) -> int:
    return number + 1


def odd(number: int) -> int:
    return number % 2


def double(number: int) -> int:
    return number * 2


async def plain_loop() -> int:
    count = 0
    for number in range(EVENTS):
        added = add(number)
        if odd(added):
            double(added)
            count += 1
    return count


async def three_steps() -> int:
    numbers = flow.from_iterable(range(EVENTS))
    return await numbers.map(add).filter(odd).map(double).drain()


async def three_steps_one_at_a_time() -> int:
    numbers = flow.from_iterable(range(EVENTS))
    return await numbers.map(add).filter(odd).map(double).drain(max_demand=1)


async def a_buffer_between() -> int:
    numbers = flow.from_iterable(range(EVENTS))
    return await numbers.map(add).filter(odd).buffer(64).map(double).drain()


async def merged_flows() -> int:
    halves = (flow.from_iterable(range(n, EVENTS, 2)) for n in range(2))
    steps = (half.map(add).filter(odd).map(double) for half in halves)
    return await flow.merge(*steps, ahead=64).drain()


async def a_task_for_each_step() -> int:
    """The same by hand: a task for each step, and channels of 64 between them."""
    count = 0
    async with trio.open_nursery() as nursery:
        first_send, first = trio.open_memory_channel[int](64)
        second_send, second = trio.open_memory_channel[int](64)
        third_send, third = trio.open_memory_channel[int](64)
        nursery.start_soon(_source, first_send)
        nursery.start_soon(_step, first, second_send)
        nursery.start_soon(_filter, second, third_send)
        async for number in third:
            double(number)
            count += 1
    return count


async def _source(to: trio.MemorySendChannel[int]) -> None:
    async with to:
        for number in range(EVENTS):
            await to.send(number)


async def _step(
    events: trio.MemoryReceiveChannel[int], to: trio.MemorySendChannel[int]
) -> None:
    async with to:
        async for number in events:
            await to.send(add(number))


async def _filter(
    events: trio.MemoryReceiveChannel[int], to: trio.MemorySendChannel[int]
) -> None:
    async with to:
        async for number in events:
            if odd(number):
                await to.send(number)


BENCHES: dict[str, Bench] = {
    "plain loop": plain_loop,
    "flow, three steps": three_steps,
    "flow, three steps, demand 1": three_steps_one_at_a_time,
    "flow, with a buffer of 64": a_buffer_between,
    "flow, two merged": merged_flows,
    "trio channels of 64": a_task_for_each_step,
}


async def measure(rounds: int) -> dict[str, float]:
    """Return nanoseconds per event."""
    times: dict[str, list[float]] = {name: [] for name in BENCHES}
    for _ in range(rounds):
        for name, bench in BENCHES.items():
            began = time.perf_counter()
            assert await bench() == EXPECTED
            times[name].append((time.perf_counter() - began) / EVENTS * 1e9)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    medians = trio.run(measure, rounds)
    loop = medians["plain loop"]
    print(f"{EVENTS} events, {rounds} rounds, medians")
    for name, median in medians.items():
        print(f"{name:30}{median:10.0f} ns/event{median / loop:8.1f}x")


if __name__ == "__main__":
    main()
