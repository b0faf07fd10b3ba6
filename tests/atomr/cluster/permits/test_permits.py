"""Permits in place, in line, and from another node."""

from __future__ import annotations

import random
import sys
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr.cluster.permits import (
    FIRST,
    Denied,
    Limit,
    LimitState,
    Mode,
    NotLimitingError,
    Permits,
    PermitService,
    UnknownLimitError,
)
from tests.atomr.cluster.permits.world import open_virtual

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.atomr.cluster.permits.world import VirtualCluster

SEED = 7
ALONE = Limit("rpm", 10, 60.0, voters=("a",), floor_fraction=1.0)
THREE = Limit("rpm", 30, 60.0, voters=("a", "b", "c"))


def service() -> PermitService:
    return PermitService(past=FIRST)


async def alone(cluster: VirtualCluster, limit: Limit = ALONE) -> PermitService:
    permits = service()
    permits.add(limit)
    await cluster.start(permits, "a")
    return permits


async def three(cluster: VirtualCluster, limit: Limit) -> dict[str, PermitService]:
    found = {}
    for name in limit.voters:
        found[name] = permits = service()
        permits.add(limit)
        await cluster.start(permits, name)
    return found


async def test_a_node_alone_uses_all_permits_in_place(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        got = [permits.try_acquire("rpm", 1) for _ in range(11)]
    counts = [each.count if isinstance(each, Permits) else each for each in got]
    assert counts == [1] * 10 + [None]


async def test_who_wants_more_than_there_ever_is_is_denied_for_good(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        never = Denied(float("inf"))
        assert permits.try_acquire("rpm", 11) == never
        assert await permits.acquire("rpm", 11, deadline_s=1e6) == never


async def test_who_waits_has_its_permits_when_the_first_have_cooled(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        assert isinstance(permits.try_acquire("rpm", 10), Permits)
        began_s = trio.current_time()
        got = await permits.acquire("rpm", 3, deadline_s=began_s + 100.0)
        assert isinstance(got, Permits)
        assert trio.current_time() - began_s == pytest.approx(60.06, abs=0.3)


async def test_the_more_urgent_goes_first_and_nobody_overtakes_a_large_one(
    autojump_clock: MockClock,
) -> None:
    order: list[str] = []

    async def ask(permits: PermitService, name: str, count: int, priority: int) -> None:
        await permits.acquire("rpm", count, priority=priority, deadline_s=1e6)
        order.append(name)

    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        assert isinstance(permits.try_acquire("rpm", 9), Permits)
        async with trio.open_nursery() as nursery:
            for name, count, priority in (
                ("large", 10, 0),
                ("small", 1, 0),
                ("urgent", 2, 1),
            ):
                nursery.start_soon(ask, permits, name, count, priority)
                await trio.testing.wait_all_tasks_blocked()
            # One is free, and nobody takes it who came later.
            assert permits.try_acquire("rpm", 1) is None
            assert permits.state("rpm") == LimitState(
                ALONE, used=9, waiting=3, overrun=0
            )
    assert order == ["urgent", "large", "small"]


async def test_a_deadline_ends_the_wait_with_when_to_come_again(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        permits.try_acquire("rpm", 10)
        now_s = trio.current_time()
        denied = await permits.acquire("rpm", 1, deadline_s=now_s + 20.0)
        assert isinstance(denied, Denied)
        assert trio.current_time() == pytest.approx(now_s + 20.0)
        assert denied.retry_after_s == pytest.approx(40.06, abs=0.3)
        assert permits.state("rpm").waiting == 0


async def test_who_leaves_gives_its_place_to_the_next(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        first = permits.try_acquire("rpm", 10)
        assert isinstance(first, Permits)
        with trio.move_on_after(1.0):
            await permits.acquire("rpm", 10, deadline_s=1e6)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(permits.acquire, "rpm", 4, deadline_s=1e6))
            await trio.testing.wait_all_tasks_blocked()
            permits.settle(first, 6)
        assert permits.state("rpm") == LimitState(ALONE, used=10, waiting=0, overrun=0)


async def test_what_was_not_used_is_free_again_once(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        got = permits.try_acquire("rpm", 10)
        assert isinstance(got, Permits)
        permits.settle(got, 2)
        permits.settle(got, 0)
        assert permits.state("rpm").used == 2
        more = permits.try_acquire("rpm", 8)
        assert isinstance(more, Permits)
        permits.settle(more, 13)
        assert permits.state("rpm") == LimitState(ALONE, used=10, waiting=0, overrun=5)


async def test_one_node_has_what_no_other_asks_for(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        nodes = await three(cluster, THREE)
        lessee = next(name for name in THREE.voters if name != THREE.home)
        permits = nodes[lessee]
        assert permits.try_acquire("rpm", THREE.largest) is None
        got = await permits.acquire(
            "rpm", THREE.largest, deadline_s=trio.current_time() + 5.0
        )
        assert isinstance(got, Permits)
        assert got.count == THREE.largest
        other = nodes[THREE.home]
        assert isinstance(other.try_acquire("rpm", THREE.floor), Permits)
        assert other.try_acquire("rpm", 1) is None


@pytest.mark.parametrize("mode", list(Mode))
async def test_each_mode_admits_as_much_as_there_is(
    autojump_clock: MockClock, mode: Mode
) -> None:
    limit = Limit("rpm", 30, 10.0, voters=("a", "b", "c"), mode=mode)
    admitted = 0

    async def ask(permits: PermitService) -> None:
        nonlocal admitted
        deadline_s = trio.current_time() + 5.0
        if isinstance(await permits.acquire("rpm", 1, deadline_s=deadline_s), Permits):
            admitted += 1

    async with open_virtual(random.Random(SEED)) as cluster:
        nodes = await three(cluster, limit)
        async with trio.open_nursery() as nursery:
            for permits in nodes.values():
                for _ in range(20):
                    nursery.start_soon(ask, permits)
                    await trio.sleep(0.05)
    assert 30 <= admitted <= (45 if mode is Mode.SOFT else 30)


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_raised_limit_lets_who_waits_through_at_once(
    autojump_clock: MockClock, mode: Mode
) -> None:
    limit = attrs.evolve(THREE, mode=mode)
    async with open_virtual(random.Random(SEED)) as cluster:
        nodes = await three(cluster, limit)
        permits = nodes["b"]
        began_s = trio.current_time()
        first = await permits.acquire("rpm", limit.largest, deadline_s=began_s + 5.0)
        assert isinstance(first, Permits)
        found: list[Permits | object] = []

        async def wait() -> None:
            found.append(await permits.acquire("rpm", 25, deadline_s=began_s + 50.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(1.0)
            assert found == []
            for each in nodes.values():
                each.replace(attrs.evolve(limit, permits=90))
            await trio.sleep(1.0)
            assert isinstance(found[0], Permits)
        assert permits.state("rpm").differs == ()


async def test_a_lowered_limit_holds_at_once(autojump_clock: MockClock) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        nodes = await three(cluster, THREE)
        late_s = trio.current_time() + 5.0
        first = await nodes["b"].acquire("rpm", 20, deadline_s=late_s)
        assert isinstance(first, Permits)
        nodes["b"].settle(first, 0)  # lent, and free
        for each in nodes.values():
            each.replace(attrs.evolve(THREE, permits=5))
        await trio.sleep(THREE.lapse_s)
        used = 0
        for permits in nodes.values():
            at_s = trio.current_time() + 1.0
            while isinstance(await permits.acquire("rpm", 1, deadline_s=at_s), Permits):
                used += 1
        assert used == 5


async def test_a_strict_limit_gives_nothing_while_its_home_is_cut_off(
    autojump_clock: MockClock,
) -> None:
    limit = Limit("rpm", 30, 10.0, voters=("a", "b", "c"), mode=Mode.STRICT)
    async with open_virtual(random.Random(SEED)) as cluster:
        nodes = await three(cluster, limit)
        lessee = next(name for name in limit.voters if name != limit.home)
        cluster.net.cuts = {frozenset((limit.home, lessee))}
        assert nodes[lessee].try_acquire("rpm", 1) is None
        denied = await nodes[lessee].acquire(
            "rpm", 1, deadline_s=trio.current_time() + 3.0
        )
        assert isinstance(denied, Denied)
        cluster.net.cuts = set()
        got = await nodes[lessee].acquire(
            "rpm", 1, deadline_s=trio.current_time() + 3.0
        )
        assert isinstance(got, Permits)


async def test_a_restarted_process_goes_on_with_what_it_knows(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        got = permits.try_acquire("rpm", 7)
        assert isinstance(got, Permits)
        await cluster.net.nodes["a"].kill()
        assert permits.try_acquire("rpm", 2) is not None
        await cluster.start(permits, "a")
        permits.settle(got, 5)
        assert permits.state("rpm") == LimitState(ALONE, used=7, waiting=0, overrun=0)


async def test_code_that_failed_in_the_middle_of_a_change_is_not_believed(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        got = permits.try_acquire("rpm", 1)
        assert isinstance(got, Permits)
        with pytest.raises(ZeroDivisionError), permits.changing():
            1 / 0  # noqa: B018 - it fails
        waiting: list[Permits | Denied] = []

        async def wait() -> None:
            waiting.append(await permits.acquire("rpm", 10, deadline_s=1e6))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await cluster.net.nodes["a"].kill()
            await cluster.start(permits, "a")
        assert isinstance(waiting[0], Denied)
        permits.settle(got, 0)  # of a life that is over: it changes nothing
        # All may have been used just now.
        assert permits.try_acquire("rpm", 1) is None
        await trio.sleep(ALONE.lapse_s + ALONE.cooling_s)
        assert isinstance(permits.try_acquire("rpm", 10), Permits)


async def test_before_it_is_started_and_for_what_it_does_not_know_it_says_so(
    autojump_clock: MockClock,
) -> None:
    permits = service()
    permits.add(ALONE)
    with pytest.raises(NotLimitingError, match="'permits' was not started yet"):
        permits.try_acquire("rpm", 1)
    with pytest.raises(ValueError, match="it is there already"):
        permits.add(ALONE)
    async with open_virtual(random.Random(SEED)) as cluster:
        await cluster.start(permits, "a")
        for call in (
            partial(permits.try_acquire, "x", 1),
            partial(permits.state, "x"),
            partial(permits.remove, "x"),
        ):
            with pytest.raises(UnknownLimitError, match="limit 'x' is not here"):
                call()
        with pytest.raises(ValueError, match="expected at least 1"):
            permits.try_acquire("rpm", 0)
        permits.remove("rpm")
        assert permits.limits == ()


async def test_limits_that_nobody_waits_for_cost_the_others_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_virtual(random.Random(SEED)) as cluster:
        permits = await alone(cluster)
        for number in range(2_000):
            permits.add(Limit(f"rpm {number}", 60, 60.0, voters=("a",)), past=FIRST)
        looked_at = 0

        def count(_: object, event: str, __: object) -> None:
            nonlocal looked_at
            looked_at += event in ("call", "c_call")

        sys.setprofile(count)
        got = permits.try_acquire("rpm", 1)
        assert isinstance(got, Permits)
        permits.settle(got, 1)
        sys.setprofile(None)
    assert looked_at < 200


async def test_a_lease_ends_while_the_machine_sleeps(
    autojump_clock: MockClock,
) -> None:
    slept_s = 0.0

    def clock() -> float:
        return trio.current_time() + slept_s

    limit = Limit("rpm", 30, 60.0, voters=("a", "b"), floor_fraction=0.0)
    lessee = next(name for name in limit.voters if name != limit.home)
    async with open_virtual(random.Random(SEED)) as cluster:
        for name in limit.voters:
            permits = PermitService(
                past=FIRST, clock=clock if name == lessee else trio.current_time
            )
            permits.add(limit)
            await cluster.start(permits, name)
        permits = cluster.net.nodes[lessee].service
        got = await permits.acquire("rpm", 9, deadline_s=trio.current_time() + 2.0)
        assert isinstance(got, Permits)
        cluster.net.cuts = {frozenset(limit.voters)}
        permits.settle(got, 0)
        again = permits.try_acquire("rpm", 9)
        assert isinstance(again, Permits)
        permits.settle(again, 0)
        slept_s = limit.lease_s
        assert permits.try_acquire("rpm", 1) is None
