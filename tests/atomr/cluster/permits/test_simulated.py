"""The service as a whole in virtual time: its process, its timers, its lines.

What is asked of it, and what goes wrong, is drawn from a seed; the clocks of the nodes
differ, and are wrong.  At the end all permits are there again, and nobody waits.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr.cluster.permits import (
    FIRST,
    UNKNOWN,
    Denied,
    Limit,
    Mode,
    Permits,
    PermitService,
)
from tests.at_length import times
from tests.atomr.cluster.permits.world import open_virtual
from tests.atomr.gossip.limit_world import ROUNDING_S, Use, worst_window

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.atomr.cluster.permits.world import VirtualCluster

NAMES = ("a", "b", "c", "d")
DRIFT = 0.05
CHAOS_S = 8.0
FAULTS = 6


@attrs.define
class Clock:
    """A node's clock: it began at another time, and is wrong by a rate."""

    offset_s: float
    rate: float

    def __call__(self) -> float:
        return self.offset_s + self.rate * trio.current_time()


class Run:
    """One run, all of which follows from its seed."""

    def __init__(self, seed: int, cluster: VirtualCluster) -> None:
        self.draw = draw = random.Random(seed)
        self.cluster = cluster
        self.net = cluster.net
        self.limit = Limit(
            "rpm",
            draw.choice((7, 40, 100)),
            draw.uniform(2.0, 4.0),
            voters=NAMES[: draw.choice((1, 2, 3, 4))],
            floor_fraction=draw.choice((0.0, 0.1, 0.5, 1.0)),
            lease_s=draw.choice((0.5, 2.0)),
            drift=DRIFT,
            mode=draw.choice((Mode.ESCROW, Mode.ESCROW, Mode.STRICT)),
        )
        self.uses: list[Use] = []
        self.services: dict[str, PermitService] = {}
        self.asking: dict[str, set[trio.CancelScope]] = {}

    async def start(self, name: str, *, is_first: bool) -> None:
        draw = self.draw
        clock = Clock(draw.uniform(0.0, 1e4), 1.0 + draw.uniform(-DRIFT, DRIFT))
        service = PermitService(past=FIRST if is_first else UNKNOWN, clock=clock)
        service.add(self.limit)
        self.services[name], self.asking[name] = service, set()
        await self.cluster.start(service, name, rate=clock.rate)

    async def play(self) -> None:
        for name in self.limit.voters:
            await self.start(name, is_first=True)
        self.net.delay_s = self.draw.choice((0.002, 0.1, 1.0))
        self.net.loss = self.draw.choice((0.0, 0.1, 0.5))
        self.net.twice = self.draw.choice((0.0, 0.3))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.break_things)
            for _ in range(3 * self.limit.permits):
                nursery.start_soon(self.ask_once, self.draw.uniform(0.0, CHAOS_S))

    async def kill(self, name: str) -> None:
        """End a node, and all that it was asked."""
        await self.net.nodes[name].kill()
        for scope in self.asking[name]:
            scope.cancel()

    async def ask_once(self, after_s: float) -> None:
        """Ask a node, if it is up; what it does for us ends with it."""
        await trio.sleep(after_s)
        name = self.draw.choice(self.limit.voters)
        if name in self.net.nodes:
            with trio.CancelScope() as scope:
                self.asking[name].add(scope)
                await self.use_some(self.services[name])

    async def use_some(self, service: PermitService) -> None:
        """Ask for some permits, wait as long as is drawn, and settle what was used."""
        draw, limit = self.draw, self.limit
        wanted = draw.randint(1, max(1, limit.permits // 8))
        patience_s = draw.choice((0.0, 0.5, 3.0))
        leaves_s = draw.choice((0.3, 9.0))
        got: Permits | Denied | None = service.try_acquire("rpm", wanted)
        with trio.move_on_after(leaves_s):
            if got is None:
                got = await service.acquire(
                    "rpm",
                    wanted,
                    deadline_s=trio.current_time() + patience_s,
                    priority=draw.randrange(3),
                )
        if isinstance(got, Permits):
            use = Use(trio.current_time(), wanted)
            self.uses.append(use)
            await trio.sleep(draw.uniform(0.0, 0.5))
            used = draw.choice((0, wanted // 2, wanted))
            service.settle(got, used)
            use.permits = used

    async def break_things(self) -> None:
        draw, names = self.draw, self.limit.voters
        for _ in range(FAULTS):
            await trio.sleep(draw.uniform(0.0, CHAOS_S / FAULTS))
            match draw.randrange(3):
                case 0:
                    pair = frozenset(draw.choices(names, k=2))
                    self.net.cuts.add(pair)
                case 1:
                    self.net.cuts.clear()
                case 2:
                    name = draw.choice(names)
                    await self.kill(name)
                    await trio.sleep(draw.uniform(0.0, 0.5))
                    await self.start(name, is_first=False)

    async def sum_up(self) -> None:
        """Assert that all permits are there again, once, and that nobody waits."""
        limit = self.limit
        self.net.cuts.clear()
        self.net.loss = self.net.twice = 0.0
        self.net.delay_s = 0.002
        await trio.sleep(3.0 * (limit.lapse_s + limit.cooling_s))
        for service in self.services.values():
            state = service.state("rpm")
            assert (state.used, state.waiting, state.differs) == (0, 0, ())
        # Each has its floor, and the home all the rest.
        for name, service in self.services.items():
            count = limit.largest if name == limit.home else limit.floor
            if count:
                got = service.try_acquire("rpm", count) or await self.ask(name, count)
                assert isinstance(got, Permits)
        for name in limit.voters:
            assert isinstance(await self.ask(name, 1), Denied)

    async def ask(self, name: str, count: int) -> Permits | Denied:
        deadline_s = trio.current_time() + 0.2
        return await self.services[name].acquire("rpm", count, deadline_s=deadline_s)


async def play(seed: int) -> int:
    """Play a run; return how many permits were used."""
    async with open_virtual(random.Random(seed)) as cluster:
        run = Run(seed, cluster)
        await run.play()
        await run.sum_up()
        for node in list(cluster.net.nodes.values()):
            await node.kill()
        worst = worst_window(
            sorted(run.uses, key=lambda use: use.at_s), run.limit.window_s - ROUNDING_S
        )
        assert worst <= run.limit.permits, f"seed {seed}: {worst}, {run.limit}"
        await trio.sleep(run.net.delay_s)
        await trio.testing.wait_all_tasks_blocked()
        assert cluster.tasks() == 0
        return sum(use.permits for use in run.uses)


@pytest.mark.parametrize("seed", range(6))
async def test_no_window_has_too_many_uses_and_all_permits_come_back(
    autojump_clock: MockClock, seed: int
) -> None:
    await play(seed)


@pytest.mark.slow
async def test_that_holds_for_more_seeds(autojump_clock: MockClock) -> None:
    used = [await play(seed) for seed in range(100, 100 + times(12))]
    assert sum(used) > 0
