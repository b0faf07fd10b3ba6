"""What other implementations hold themselves to, measured here.

chitchat (a death is seen, nobody dies of a lossy network, bytes while idle),
memberlist (a mass restart), Lifeguard (nodes that stall accuse nobody).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr.gossip import membership as m
from atomr.testing.simulation import Quality, Simulation
from tests.atomr.gossip.membership.simulated import World

if TYPE_CHECKING:
    from collections.abc import Iterable


def settled(number: int, seed: int) -> World:
    """Return a cluster of that many nodes that has found together."""
    simulation = Simulation(seed)
    world = World(simulation, number, seeds=3)
    simulation.start()
    world.settle()
    simulation.run(5.0)
    world.changes.clear()
    return world


def _all_hold(world: World, name: str, statuses: Iterable[m.Status]) -> bool:
    others = [other for other in world.simulation.up if other != name]
    return all(
        world.membership(other).members[name].status in statuses for other in others
    )


def death_s(
    number: int, seed: int, *, loss: float = 0.0, stops: bool = True
) -> tuple[float, float]:
    """Return when all others held a node suspect, or worse, and when dead.

    Args:
        number: of nodes.
        seed: of the run.
        loss: chance that a frame is lost.
        stops: whether it stops without a word; False: its links are reset.
    """
    world = settled(number, seed)
    simulation, gone = world.simulation, world.names[-1]
    simulation.set_quality(Quality(loss=loss))
    simulation.crash(gone, resets=not stops)
    unwell = m.Status.SUSPECT, m.Status.DEAD
    suspect_s = simulation.run_until(
        lambda: _all_hold(world, gone, unwell), within_s=60.0, step_s=0.05
    )
    dead_s = simulation.run_until(
        lambda: _all_hold(world, gone, unwell[1:]), within_s=60.0, step_s=0.05
    )
    return suspect_s, suspect_s + dead_s


def restart_s(number: int, seed: int) -> float:
    """Return how long after a restart of all nodes at once they agree."""
    world = settled(number, seed)
    for name in world.names:
        world.simulation.crash(name, resets=False)
    world.simulation.start()
    return world.settle()


def reunion_s(number: int, seed: int, *, apart_s: float) -> tuple[float, float]:
    """Return when the first frame crossed after a cut in two, and when all agreed."""
    world = settled(number, seed)
    simulation = world.simulation
    half = number // 2
    simulation.cut(world.names[:half], world.names[half:])
    simulation.run(apart_s)
    simulation.mend()
    world.changes.clear()
    mended_s = simulation.now_s
    simulation.run_until(lambda: bool(world.changes), within_s=60.0, step_s=0.01)
    contact_s = simulation.now_s - mended_s
    return contact_s, contact_s + world.settle()


def idle_bytes_per_s(number: int, seed: int, *, for_s: float = 60.0) -> float:
    """Return how many bytes a node sends each second when nothing happens."""
    world = settled(number, seed)
    simulation = world.simulation
    simulation.run(20.0)
    before = sum(simulation.host(name).sent_bytes for name in world.names)
    simulation.run(for_s)
    after = sum(simulation.host(name).sent_bytes for name in world.names)
    return (after - before) / number / for_s


@attrs.frozen
class Wrongs:
    """What became of members while nobody had died.

    Attributes:
        deaths: how often a node held another dead.
        accusations: per hour and node, of any member.
        healthy: how many of these were of members that had not stalled.
    """

    deaths: int
    accusations: float
    healthy: float


def wrongs(
    number: int,
    seed: int,
    *,
    hours: float,
    loss: float,
    stallers: int = 0,
    stall_s: float = 3.0,
    stall_every_s: float = 120.0,
) -> Wrongs:
    """Let nodes lose frames, and some of them stall, for long."""
    world = settled(number, seed)
    simulation = world.simulation
    simulation.set_quality(Quality(loss=loss))
    stalling = world.names[:: max(1, number // stallers)][:stallers] if stallers else ()

    def stall(name: str) -> None:
        simulation.pause(name, stall_s)
        again_s = stall_every_s * simulation.random.uniform(0.5, 1.5)
        simulation.at(simulation.now_s + again_s, partial(stall, name))

    for name in stalling:
        first_s = stall_every_s * simulation.random.random()
        simulation.at(simulation.now_s + first_s, partial(stall, name))
    simulation.run(hours * 3600.0)
    accused = [
        change.after.name
        for name, change in world.changes
        if change.after.accusers == (name,)
    ]
    node_hours = number * hours
    return Wrongs(
        sum(change.after.status is m.Status.DEAD for _, change in world.changes),
        len(accused) / node_hours,
        sum(name not in stalling for name in accused) / node_hours,
    )
