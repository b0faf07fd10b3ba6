"""Scenarios of membership: whatever happens, and what must come out of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.gossip import membership as m
from atomr.testing.simulation import Mix, Quality, Scenario, draw_faults
from tests.atomr.gossip.membership.simulated import (
    CODEC,
    Node,
    World,
    names_of,
)

if TYPE_CHECKING:
    from atomr.testing.simulation import Simulation

FAULTS_S = 12.0
MIX = Mix(lost_disk=0.0, drift=1.0, drift_rate=0.05, down_s=12.0)


def chaos(simulation: Simulation) -> None:
    """Let five nodes live through anything; once it is over, all agree."""
    world = World(simulation, 5)
    simulation.start()
    draw = simulation.random
    plan = draw_faults(draw, world.names, within_s=FAULTS_S, number=8, mix=MIX)
    simulation.plan(plan)
    for name in draw.sample(world.names, draw.randrange(3)):
        simulation.at(draw.uniform(1.0, FAULTS_S), partial(world.leave, name))
    for name in draw.sample(world.names, 2):
        change = partial(simulation.do, name, _change_meta)
        simulation.at(draw.uniform(1.0, FAULTS_S), change)
    simulation.run(FAULTS_S)
    simulation.heal()
    simulation.start(*(name for name in world.names if name not in world.gone))
    if draw.random() < 0.3:
        simulation.crash(draw.choice(world.names), resets=draw.random() < 0.5)
    world.settle(within_s=60.0)


def _change_meta(node: Node, now_s: float) -> list[m.Effect]:
    return node.membership.handle(m.MetaChanged(int(now_s * 1000)), now_s)


def islands(simulation: Simulation) -> None:
    """Cut a cluster in two for long: both sides stay up, and find each other."""
    draw = simulation.random
    world = World(simulation, 5, seeds=2)
    simulation.start()
    world.settle()
    # One that is alone takes a minute to be sure: that is run less often.
    left = draw.sample(world.names, draw.choice((1, 2, 2, 3, 3)))
    right = [name for name in world.names if name not in left]
    simulation.cut(left, right)

    def apart() -> bool:
        return all(
            _status(world, name) == _split(side, other)
            for side, other in ((left, right), (right, left))
            for name in side
        )

    # A node that is alone takes itself to be unwell, and is slow to judge.
    simulation.run_until(apart, within_s=150.0, step_s=1.0)
    simulation.run(draw.uniform(0.0, 10.0))  # the dead are tried so often
    assert apart()
    simulation.mend()
    world.changes.clear()
    world.settle(within_s=15.0)
    assert world.held(m.Status.DEAD) == set(), "died of the reunion"


def _status(world: World, name: str) -> dict[str, m.Status]:
    return {x.name: x.status for x in world.membership(name).members.values()}


def _split(side: list[str], other: list[str]) -> dict[str, m.Status]:
    alive, dead = m.Status.ALIVE, m.Status.DEAD
    return dict.fromkeys(side, alive) | dict.fromkeys(other, dead)


def mass_restart(simulation: Simulation) -> None:
    """Restart all nodes at once: none waits for the rumours of its old life."""
    draw = simulation.random
    world = World(simulation, 6, seeds=3)
    simulation.start()
    world.settle()
    for at in range(3):
        for name in world.names:
            simulation.crash(name, resets=draw.random() < 0.5)
        simulation.run(draw.choice([0.0, 0.1, 3.0]))
        simulation.start()
        took_s = world.settle(within_s=3.0)
        assert took_s <= 3.0, at


def quiet(simulation: Simulation) -> None:
    """Equal tables are not sent: a cluster that agrees says little, for ever."""
    world = World(simulation, 6)
    simulation.start()
    world.settle()
    simulation.run(20.0)  # what was still to be told
    tables, sent = _tables(world), _sent(world)
    simulation.run(20.0)
    assert _tables(world) == tables
    each_s = (_sent(world) - sent) / 20.0 / len(world.names)
    assert each_s < 2.5, "a ping, an answer, now and then a digest"


def _tables(world: World) -> list[int]:
    return [world.simulation.node(name).tables for name in world.names]


def _sent(world: World) -> int:
    return sum(world.simulation.host(name).sent for name in world.names)


def newcomers(simulation: Simulation) -> None:
    """Let nodes come and go for good while others are cut off: no ghosts stay."""
    draw = simulation.random
    world = World(simulation, 6, seeds=2)
    simulation.start(*world.names[:4])
    world.settle()
    gone, late, away = "n03", "n04", "n02"
    simulation.cut([away], [name for name in world.names if name != away])
    simulation.crash(gone, resets=draw.random() < 0.5)
    simulation.run(draw.uniform(8.0, 14.0))
    simulation.start(late)
    simulation.run(draw.uniform(0.0, 5.0))
    simulation.mend()  # one that missed the death tells of it as alive
    simulation.set_quality(Quality(loss=0.2, reorder=0.2, reorder_s=2.0))
    simulation.run(10.0)
    simulation.heal()
    simulation.start("n05")
    world.settle()
    # Tables are compared twice, and the dead and the seeds are tried.
    simulation.run(25.0)
    assert world.agree()


def two_clusters(simulation: Simulation) -> None:
    """Give the nodes of two clusters each other's addresses: they stay apart."""
    draw = simulation.random
    names = names_of(6)
    sides = names[:3], names[3:]
    met: list[object] = []
    simulation.use_codec(CODEC)
    for side, cluster in zip(sides, (1, 2), strict=True):
        for name in side:
            make = partial(Node, seeds=draw.sample(names, 6), cluster=cluster)
            simulation.add_node(name, make)
    simulation.observe(
        lambda name, fact: (
            met.append(fact) if isinstance(fact, m.ForeignCluster) else None
        )
    )
    simulation.start()
    simulation.run(20.0)
    for side in sides:
        for name in side:
            assert set(simulation.node(name).membership.members) == set(side)
    assert met


SCENARIOS = (
    Scenario("membership.chaos", chaos),
    Scenario("membership.islands", islands),
    Scenario("membership.mass_restart", mass_restart),
    Scenario("membership.newcomers", newcomers),
    Scenario("membership.quiet", quiet),
    Scenario("membership.two_clusters", two_clusters),
)
