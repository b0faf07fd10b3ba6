"""No stage gives more than it was asked for, or asks for what nobody wants.

Drawn flows are held against lists: what comes out, and how much was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.atomr.flow.counted import Counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.flow import Flow

Build = tuple[
    str, "Callable[[Flow[int]], Flow[int]]", "Callable[[list[int]], list[int]]"
]


async def plus_one(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return number + 1


def twice(number: int) -> tuple[int, int]:
    return number, -number


def running(numbers: list[int]) -> list[int]:
    return [sum(numbers[: n + 1]) for n in range(len(numbers))]


def summed(numbers: list[int]) -> list[int]:
    return [sum(numbers[n : n + 2]) for n in range(0, len(numbers), 2)]


ORDERED: tuple[Build, ...] = (
    ("map", lambda f: f.map(lambda n: n * 3), lambda e: [n * 3 for n in e]),
    ("filter", lambda f: f.filter(lambda n: n % 3), lambda e: [n for n in e if n % 3]),
    (
        "flat_map",
        lambda f: f.flat_map(twice),
        lambda e: [m for n in e for m in twice(n)],
    ),
    ("scan", lambda f: f.scan(0, lambda s, n: s + n), running),
    ("take", lambda f: f.take(7), lambda e: e[:7]),
    ("async", lambda f: f.map_async(plus_one), lambda e: [n + 1 for n in e]),
    (
        "concurrent",
        lambda f: f.map_async(plus_one, concurrency=3),
        lambda e: [n + 1 for n in e],
    ),
    ("buffer", lambda f: f.buffer(3), lambda e: e),
    ("batch", lambda f: f.batch(2).map(sum), summed),
)


@settings(max_examples=60)
@given(
    builds=st.lists(st.sampled_from(ORDERED), max_size=5),
    count=st.integers(0, 20),
    demands=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_a_drawn_flow_gives_what_lists_give_and_never_more_than_it_is_asked_for(
    builds: list[Build], count: int, demands: list[int]
) -> None:
    async def run() -> None:
        source, expected = Counted(count), list(range(count))
        flow, out, turn = source.flow(), list[int](), 0
        for _, build, of_list in builds:
            flow, expected = build(flow), of_list(expected)
        async with flow.open() as stream:
            while True:
                demand = demands[turn % len(demands)]
                turn += 1
                events = await stream.pull(demand)
                assert len(events) <= demand
                if not events:
                    break
                out += events
        assert out == expected
        assert source.closed > 0

    trio.run(run)


@pytest.mark.parametrize(
    ("build", "asked"),
    [
        (lambda f: f.map(abs), 5),
        (lambda f: f.flat_map(twice), 5),
        (lambda f: f.take(3), 3),
        (lambda f: f.batch(4), 4),
        (lambda f: f.map_async(plus_one), 1),
        (lambda f: f.throttle(1.0, burst=2), 2),
        # What works ahead says how far.
        (lambda f: f.buffer(8), 8),
        (lambda f: f.map_async(plus_one, concurrency=6), 6),
        (lambda f: f.merge(ahead=7), 7),
        (lambda f: f.broadcast(lambda b: b, ahead=3), 6),
    ],
)
async def test_one_pull_asks_the_source_for_no_more_than_can_be_used(
    build: object, asked: int
) -> None:
    assert callable(build)
    source = Counted()

    async with trio.open_nursery() as nursery:
        stage = build(source.flow()).opened(nursery)
        await trio.testing.wait_all_tasks_blocked()
        before = source.given
        if not before:
            await stage.pull(5)
            await trio.testing.wait_all_tasks_blocked()
        assert source.given == asked
        await stage.close()
