"""The crawler's parts, on virtual time: politeness, and pages whose worker died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr.errors import CallTimeoutError
from atomr.otp import DynamicSupervisor as Buckets
from atomr.otp import Registry, call, child
from atomr.process import kill, open_node, spawn, wait_exit
from tests.examples.loading import load

if TYPE_CHECKING:
    from types import ModuleType

settle = trio.testing.wait_all_tasks_blocked


@pytest.fixture(scope="module")
def crawler() -> ModuleType:
    return load("rate_limited_crawler")


async def test_a_token_bucket_lets_its_burst_pass_and_then_its_rate(
    crawler: ModuleType, autojump_clock: trio.testing.MockClock
) -> None:
    times: list[float] = []

    async def ask() -> None:
        await call(bucket, crawler.Acquire(), timeout_s=None)
        times.append(trio.current_time())

    async with open_node() as node:
        bucket = await node.start(crawler.TokenBucket(per_second=2.0, burst=3))
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask)
            await trio.sleep(100)

    full, empty = [0.0, 0.0, 0.0, 0.5, 1.0], [101.0, 101.0, 101.0, 101.5, 102.0]
    assert times == full + empty


async def test_who_gave_up_costs_no_token(
    crawler: ModuleType, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_node() as node:
        bucket = await node.start(crawler.TokenBucket(per_second=1.0, burst=1))
        await call(bucket, crawler.Acquire())
        with pytest.raises(CallTimeoutError):
            await call(bucket, crawler.Acquire(), timeout_s=0.5)
        await call(bucket, crawler.Acquire())

        assert trio.current_time() == pytest.approx(1.0)


async def test_hosts_do_not_wait_for_each_other(
    crawler: ModuleType, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_node() as node:
        await node.start(child(Registry, id="hosts", name=crawler.HOSTS.name))
        await node.start(child(Buckets, name=crawler.BUCKETS))
        for _ in range(crawler.BURST):
            for host in ("one", "two"):
                await crawler.be_polite(host)
        assert trio.current_time() == 0.0
        await crawler.be_polite("one")
        assert trio.current_time() == pytest.approx(1 / crawler.PER_SECOND)


async def test_the_page_of_a_worker_that_died_is_lost_and_the_others_are_not(
    crawler: ModuleType,
) -> None:
    read: list[str] = []

    async def worker(dies: bool) -> None:
        while True:
            url = await call(frontier, crawler.Next(), timeout_s=None)
            if url is None:
                return
            if dies:
                await trio.sleep_forever()
            read.append(url)
            await call(frontier, crawler.Finished(url, "read"))

    async with open_node() as node:
        frontier = await node.start(crawler.Frontier("a", "b", "c"))
        dead = spawn(worker, True)
        await settle()
        kill(dead)
        alive = spawn(worker, False)
        outcomes = await call(frontier, crawler.Outcomes())
        await wait_exit(alive)

    assert outcomes == {"a": "lost: KILLED", "b": "read", "c": "read"}
    assert read == ["b", "c"]


async def test_a_worker_that_dies_while_it_waits_costs_no_page(
    crawler: ModuleType,
) -> None:
    has_page = trio.Event()

    async def ask() -> object:
        return await call(frontier, crawler.Next(), timeout_s=None)

    async def lead() -> None:
        url = await ask()
        has_page.set()
        await settle()
        kill(idle)
        await wait_exit(idle)
        await call(frontier, crawler.Finished(str(url), "read", ("b",)))
        second = await ask()
        await call(frontier, crawler.Finished(str(second), "read"))

    async with open_node() as node:
        frontier = await node.start(crawler.Frontier("a"))
        leader = spawn(lead)
        await has_page.wait()
        idle = spawn(ask)
        assert await call(frontier, crawler.Outcomes()) == {"a": "read", "b": "read"}
        await wait_exit(leader)
