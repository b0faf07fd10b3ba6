"""Tenants of one replica: who waits for whom, and who makes room."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import OverloadedError
from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import Sampling
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import Tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree

A_SECOND = MockScript(tokens=1, delay_s=1.0)
FLOOD, SINGLE = Asker("key_flood"), Asker("key_single")


@attrs.frozen
class Lane:
    """Requests on a replica that does one at a time, a second each.

    Attributes:
        done: who was answered, in order.
        refused: who was not, with the error's code.
    """

    tree: Tree
    nursery: trio.Nursery
    done: list[str] = attrs.field(factory=list)
    refused: list[tuple[str, str | None]] = attrs.field(factory=list)

    async def ask(
        self,
        name: str,
        asker: Asker | None,
        *,
        priority: int = 0,
        max_tokens: int = 10,
    ) -> None:
        """Ask in the background, and wait until it waits or runs."""
        sampling = Sampling(max_tokens=max_tokens)

        async def run() -> None:
            try:
                await self.tree.ask(
                    "hi", asker=asker, priority=priority, sampling=sampling
                )
            except OverloadedError as error:
                self.refused.append((name, error.code))
            else:
                self.done.append(name)

        self.nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def one_at_a_time(
    open_tree: OpenTree,
    *,
    max_queue: int,
    places: int = 1,
    rate_limits: RateLimits | None = None,
) -> AsyncIterator[Lane]:
    serving = Serving(max_concurrency=places, max_queue=max_queue, queue_timeout_s=600)
    deployment = Deployment(
        name="m",
        runtime="lab",
        serving=serving,
        retry=RetryPolicy(max_attempts=1),
        rate_limits=rate_limits,
    )
    async with open_tree() as tree:
        tree.lab.plan = [A_SECOND] * 100
        await tree.serving.deploy(deployment)
        async with trio.open_nursery() as nursery:
            lane = Lane(tree, nursery)
            yield lane
        await tree.idle()


async def test_a_flood_of_one_key_does_not_hold_up_anothers_request(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with one_at_a_time(open_tree, max_queue=100) as lane:
        for number in range(30):
            await lane.ask(f"flood{number}", FLOOD)
        await lane.ask("single", SINGLE)
    assert lane.done.index("single") <= 2
    assert len(lane.done) == 31


async def test_requests_that_ask_for_more_have_their_turn_less_often(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with one_at_a_time(open_tree, max_queue=100) as lane:
        await lane.ask("first", None)
        for number in range(8):
            await lane.ask(f"a{number}", FLOOD, max_tokens=8_000)
            await lane.ask(f"b{number}", SINGLE, max_tokens=1_000)
    assert sum(name[0] == "b" for name in lane.done[1:10]) >= 7


async def test_a_full_queue_has_room_for_who_has_less_in_it(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with one_at_a_time(open_tree, max_queue=3) as lane:
        await lane.ask("runs", FLOOD)
        for number in range(4):
            await lane.ask(f"flood{number}", FLOOD)
        assert lane.refused == [("flood3", "queue_full")]
        await lane.ask("single", SINGLE)
        assert lane.refused[1:] == [("flood2", "displaced")]
    assert sorted(lane.done) == ["flood0", "flood1", "runs", "single"]


async def test_a_full_queue_has_room_for_a_higher_priority_and_runs_go_on(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with one_at_a_time(open_tree, max_queue=1) as lane:
        await lane.ask("runs", FLOOD)
        await lane.ask("low", FLOOD)
        await lane.ask("high", SINGLE, priority=5)
        assert lane.refused == [("low", "displaced")]
        await lane.ask("low again", FLOOD)
        assert lane.refused[1:] == [("low again", "queue_full")]
    assert lane.done == ["runs", "high"]


async def test_nor_does_it_where_both_wait_for_a_rate_limit(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one_a_second = RateLimits(requests_per_minute=60, window_s=1.0)
    async with one_at_a_time(
        open_tree, max_queue=100, places=20, rate_limits=one_a_second
    ) as lane:
        for number in range(40):
            await lane.ask(f"flood{number}", FLOOD)
        await lane.ask("single", SINGLE)
    assert lane.done.index("single") <= 5
    assert len(lane.done) == 41
