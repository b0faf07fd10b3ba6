"""Budgets under whatever can go wrong: never a unit too many, hardly one lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.gossip.ledger import Budget
from atomr.testing.simulation import Mix, Quality, Scenario, Simulation, draw_faults
from tests.atomr.gossip.budget_world import CRASH_SHARE, World

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("a", "b", "c", "d", "e")

MIX = Mix(crash=0.0, power_loss=0.0, drift=1.0, slow_s=3.0, drift_rate=0.05)
"""Crashes are planned apart: they are counted."""

WITHIN_S = 8.0

UNITS = 1_000_000


def _world(simulation: Simulation, numbers: Sequence[int]) -> World:
    draw = simulation.random
    names = NAMES[: draw.choice(numbers)]
    world = World(
        simulation, Budget("team", names, chunk_cap=draw.choice((300, 10**6)))
    )
    world.add(*names)
    simulation.start()
    simulation.run(0.5)
    world.mint(draw.choice(names), UNITS)
    simulation.run(0.5)  # somebody has heard of it before the first disk is lost
    return world


def _calls(world: World, *, within_s: float, number: int) -> None:
    """Calls that cost a part of what is held, and a few that cost more."""
    draw = world.simulation.random
    now_s = world.simulation.now_s
    hot = draw.choice(world.budget.voters)
    for _ in range(number):
        units = draw.randint(10, 600)
        cost = int(units * draw.choice((0.1, 0.5, 1.0)))
        if draw.random() < 0.02:
            cost = units + draw.randint(1, 100)
        name = hot if draw.random() < 0.5 else draw.choice(world.budget.voters)
        takes_s = draw.uniform(0.0, 1.5)
        at_s = now_s + draw.uniform(0.0, within_s)
        call = partial(world.call, name, cost, units=units, takes_s=takes_s)
        world.simulation.at(at_s, call)


def _crashes(world: World, *, lost_disks: float) -> None:
    draw = world.simulation.random
    simulation = world.simulation
    kept = draw.choice(world.budget.voters)  # one copy of the matrix must be left
    for _ in range(draw.randrange(1, 5)):
        name = draw.choice(world.budget.voters)
        at_s = simulation.now_s + draw.uniform(0.5, WITHIN_S)
        lose_disk = name != kept and draw.random() < lost_disks
        simulation.at(at_s, partial(world.crash, name, lose_disk=lose_disk))
        simulation.at(at_s + draw.uniform(0.0, 3.0), partial(simulation.start, name))


def _reclaims(world: World) -> None:
    """Try to inherit in the middle of it, from whatever is lost by then."""
    draw = world.simulation.random

    def reclaim() -> None:
        lost = [ledger for ledger in world.lost if ledger not in world.reclaimed]
        if lost:
            world.reclaim(draw.choice(world.budget.voters), *lost)

    for _ in range(draw.randrange(3)):
        world.simulation.at(draw.uniform(2.0, WITHIN_S), reclaim)


def _run(
    simulation: Simulation,
    *,
    lost_disks: float,
    numbers: Sequence[int] = (2, 3, 5),
    fewest_calls: int = 80,
) -> World:
    world = _world(simulation, numbers)
    draw = simulation.random
    calls = draw.randrange(fewest_calls, 3 * fewest_calls)
    _calls(world, within_s=WITHIN_S, number=calls)
    _crashes(world, lost_disks=lost_disks)
    _reclaims(world)
    number = draw.randrange(1, 8)
    names = world.budget.voters
    plan = draw_faults(draw, names, within_s=WITHIN_S, number=number, mix=MIX)
    simulation.plan(plan)
    simulation.run(WITHIN_S + 4.0)
    world.check()
    assert world.worst_strand <= CRASH_SHARE, f"a crash took {world.worst_strand:.2%}"
    return world


def _finish(world: World) -> None:
    """Heal, say what is known of crashes, and spend all that there is."""
    simulation = world.simulation
    simulation.heal()
    simulation.start()
    simulation.run(4.0)
    for name in world.budget.voters:
        simulation.restart(name)
        world.reconcile(name)
    simulation.run(1.0)
    # The second time, those whose heirs are lost too.
    for named in (_without_heir(world), world.lost):
        if _without_heir(world):
            world.reclaim(world.budget.voters[0], *named)
            simulation.run(3.0)
    simulation.run(1.0)
    world.check()
    left = -1
    for _ in range(80):
        if world.true_remaining == left:
            break  # a whole round was refused
        left = world.true_remaining
        units = max(world.minted // 2_000, left // 16)
        for name in world.budget.voters:
            for _ in range(5):
                world.call(name, units, units=units, takes_s=0.0)
        simulation.run(4.0)
    world.check()
    assert left <= 0.01 * world.minted, f"{left} of {world.minted} cannot be spent"


def _without_heir(world: World) -> list[str]:
    """Return lost ledgers as an operator sees them: an heir may have forgotten."""
    nodes = [world.simulation.node(name) for name in world.simulation.up]
    inherited = {row.ledger for node in nodes for row in node.ledger.rows if row.heir}
    return [ledger for ledger in world.lost if ledger not in inherited]


def crashes(simulation: Simulation) -> None:
    """Nodes are killed; their disks keep what was synced.

    Half of those of :func:`disks` are like that too, with more nodes.
    """
    _finish(_run(simulation, lost_disks=0.0, numbers=(2, 3), fewest_calls=50))


def disks(simulation: Simulation) -> None:
    """Half of the nodes that are killed lose their disk too."""
    _finish(_run(simulation, lost_disks=0.5))


def late(simulation: Simulation) -> None:
    """What a lost ledger moved is heard of after others have inherited from it."""
    draw = simulation.random
    world = World(simulation, Budget("team", NAMES[:3]))
    world.add("a", "b", "c")
    simulation.start()
    simulation.run(0.5)
    world.mint("b", UNITS)
    simulation.run(0.5)
    slow = Quality(delay_s=draw.uniform(1.0, 3.0))
    simulation.set_quality(slow, sender="b")
    for _ in range(20):
        world.call("c", 5_000, units=10_000, takes_s=0.1)
    simulation.run(draw.uniform(0.1, 0.9))
    world.crash("b", lose_disk=True)
    simulation.set_quality(Quality(), sender="b")
    simulation.start("b")
    simulation.run(draw.uniform(0.0, 0.2))
    world.reclaim("a", *world.lost)
    simulation.run(4.0)
    _finish(world)


MINT_ONLY_HEARD_OF = 41
"""Nothing is left there, if who has heard of a mint does not write it down."""

CALLS_IN_A_SLOW_WRITE = 7176
"""1.5 % are taken in one write there, if each call that comes meanwhile adds to it."""

SCENARIOS = (
    Scenario("budgets.crashes", crashes),
    Scenario("budgets.disks", disks, found=(MINT_ONLY_HEARD_OF, CALLS_IN_A_SLOW_WRITE)),
    Scenario("budgets.late", late),
)
