"""The home of a limit goes, and who waits is served by the next one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster.permits import FIRST, Denied, Limit, Permits, PermitService
from atomr.gossip.escrow.seat import terms_of
from tests.atomr.cluster.permits.world import open_virtual

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.atomr.cluster.permits.world import VirtualCluster

LIMIT = Limit("tpm", 500, 1.01, voters=("a", "b", "c"), away_s=10.0)
MOVED_S = terms_of("a", LIMIT.voters, 10.0).lapse_s + 1.0 + LIMIT.lapse_s + 1.1


async def three(cluster: VirtualCluster) -> dict[str, PermitService]:
    nodes = {}
    for name in LIMIT.voters:
        nodes[name] = PermitService(past=FIRST)
        nodes[name].add(LIMIT)
        await cluster.start(nodes[name], name)
    await trio.sleep(2.0)
    return nodes


async def test_who_waits_when_the_home_dies_gets_its_permits_from_the_next_one(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(3)) as cluster:
        nodes = await three(cluster)
        assert {node.home("tpm") for node in nodes.values()} == {LIMIT.home}
        await cluster.net.nodes[LIMIT.home].kill()
        left = [name for name in LIMIT.voters if name != LIMIT.home]
        began_s = trio.current_time()
        got = {}

        async def wait(name: str) -> None:
            until_s = began_s + 2.0 * MOVED_S
            # More than a floor, which is 16.
            got[name] = await nodes[name].acquire("tpm", 200, deadline_s=until_s)

        async with trio.open_nursery() as nursery:
            for name in left:
                nursery.start_soon(wait, name)

        assert all(isinstance(each, Permits) for each in got.values())
        assert trio.current_time() - began_s <= MOVED_S + 2.0
        assert nodes[left[0]].home("tpm") in left


async def test_who_does_not_wait_so_long_hears_about_when_it_would_be(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(4)) as cluster:
        nodes = await three(cluster)
        await cluster.net.nodes[LIMIT.home].kill()
        began_s = trio.current_time()
        (name, _) = [name for name in LIMIT.voters if name != LIMIT.home]
        denied = await nodes[name].acquire("tpm", 200, deadline_s=began_s + 5.0)
        assert isinstance(denied, Denied)
        at_s = trio.current_time() + denied.retry_after_s
        assert at_s - began_s == pytest.approx(MOVED_S, abs=3.5)
        await trio.sleep_until(at_s)
        got = await nodes[name].acquire("tpm", 200, deadline_s=at_s + 2.0)
        assert isinstance(got, Permits)


async def test_the_others_use_nine_tenths_of_the_limit_after_the_wait(
    autojump_clock: MockClock,
) -> None:
    used = 0

    async def ask(permits: PermitService) -> None:
        nonlocal used
        until_s = trio.current_time() + 0.5
        got = await permits.acquire("tpm", 10, deadline_s=until_s)
        used += isinstance(got, Permits)

    async with open_virtual(random.Random(5)) as cluster:
        nodes = await three(cluster)
        await cluster.net.nodes[LIMIT.home].kill()
        left = [name for name in LIMIT.voters if name != LIMIT.home]
        counted = []
        async with trio.open_nursery() as nursery:
            for tenth in range(int(10.0 * (MOVED_S + 11.0))):
                for name in left:
                    for _ in range(5):
                        nursery.start_soon(ask, nodes[name])
                await trio.sleep(0.1)
                if tenth == int(10.0 * (MOVED_S + 1.0)):
                    counted.append(used)
            counted.append(used)
    assert 10 * (counted[1] - counted[0]) >= 0.9 * 500 * 10.0 / LIMIT.window_s
