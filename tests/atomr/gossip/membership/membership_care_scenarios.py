"""Scenarios of membership in which nobody may be wronged, or forgotten too late."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.gossip import membership as m
from atomr.testing.simulation import Quality, Scenario
from tests.atomr.gossip.membership.simulated import World

if TYPE_CHECKING:
    from atomr.testing.simulation import Simulation

DEAD, LEFT, SUSPECT = m.Status.DEAD, m.Status.LEFT, m.Status.SUSPECT


def stalls(simulation: Simulation) -> None:
    """Let two loops stall for three seconds: they accuse nobody, and live."""
    world = World(simulation, 6)
    simulation.start()
    world.settle()
    stalled = _stall_some(world)
    simulation.run(15.0)
    assert world.held(SUSPECT) <= stalled, "accused by one that was away itself"
    assert world.held(DEAD) == set()
    world.settle()


def lossy_stalls(simulation: Simulation) -> None:
    """Lose three frames of ten as well: still nobody dies."""
    world = World(simulation, 6)
    simulation.start()
    world.settle()
    simulation.set_quality(Quality(loss=0.3))
    _stall_some(world)
    simulation.run(20.0)
    assert world.held(DEAD) == set()


def _stall_some(world: World) -> set[str]:
    draw = world.simulation.random
    stalled = draw.sample(world.names, 2)
    for name in stalled:
        at_s = world.simulation.now_s + draw.uniform(0.0, 8.0)
        world.simulation.at(at_s, partial(world.simulation.pause, name, 3.0))
    return set(stalled)


def bad_ears(simulation: Simulation) -> None:
    """Let one node miss much of what is said: it asks before it holds one dead."""
    draw = simulation.random
    world = World(simulation, 8)
    simulation.start()
    world.settle()
    deaf, *others = draw.sample(world.names, 8)
    simulation.set_quality(Quality(loss=0.45), to=deaf)
    for place, name in enumerate(others[:3]):
        at_s = simulation.now_s + 6.0 * place + draw.random()
        simulation.at(at_s, partial(simulation.pause, name, 3.2))
    simulation.run(21.0)
    assert world.held(DEAD) == set()


def losses(simulation: Simulation) -> None:
    """Lose three frames of ten: unanswered pings are sent again, nobody is accused."""
    world = World(simulation, 6)
    simulation.start()
    world.settle()
    simulation.set_quality(Quality(loss=0.3))
    simulation.run(20.0)
    accused = [
        change.after.name
        for name, change in world.changes
        if change.after.accusers == (name,)
    ]
    assert len(accused) <= 1  # of 120 probes; one in some hundred thousand fails


def bad_links(simulation: Simulation) -> None:
    """Cut some pairs, each way or both: others vouch for them."""
    draw = simulation.random
    world = World(simulation, 6)
    simulation.start()
    world.settle()
    one, other = draw.sample(world.names, 2)
    simulation.cut([one], [other], both_ways=draw.random() < 0.5)
    simulation.run(18.0)
    assert world.held(SUSPECT) == set()


def goodbyes(simulation: Simulation) -> None:
    """Let a node say goodbye: it has left at once, is not accused, stays away."""
    draw = simulation.random
    world = World(simulation, 6)
    simulation.start()
    world.settle()
    leaver = draw.choice(world.names)
    world.leave(leaver)
    simulation.run(1.0)
    others = [name for name in world.names if name != leaver]
    assert {world.membership(x).members[leaver].status for x in others} == {LEFT}
    simulation.run(20.0)
    assert world.held(LEFT) == {leaver}
    assert world.held(SUSPECT) | world.held(DEAD) == set()


def rolling_restart(simulation: Simulation) -> None:
    """Restart one after the other, faster than deaths are found out."""
    draw = simulation.random
    world = World(simulation, 5)
    simulation.start()
    world.settle()
    for name in world.names:
        simulation.crash(name)
        simulation.run(draw.choice([0.0, 0.0005, 0.1, 1.0]))
        simulation.start(name)
        world.settle(within_s=3.0)
    simulation.run(8.0)
    newest = {world.membership(name).me.origin for name in world.names}
    wronged = {
        change.after.origin
        for _, change in world.changes
        if change.after.status in (SUSPECT, DEAD)
    }
    assert wronged & newest == set()


def forgetting(simulation: Simulation) -> None:
    """Forget the dead in the end, everywhere, though each reminds the others."""
    draw = simulation.random
    options = m.MembershipOptions(forget_s=15.0, sync_s=3.0, dead_probe_s=5.0)
    world = World(simulation, 4, options=options)
    simulation.start()
    world.settle()
    gone = draw.choice(world.names[2:])
    simulation.crash(gone)
    others = [name for name in world.names if name != gone]
    for _ in range(3):
        # A newcomer learns of the dead from the others' tables.
        simulation.run(draw.uniform(2.5, 7.5))
        simulation.restart(draw.choice(others))

    def is_forgotten() -> bool:
        return all(gone not in world.membership(name).members for name in others)

    simulation.run_until(is_forgotten, within_s=20.0, step_s=1.0)
    simulation.run(12.0)  # tables are compared four times
    assert is_forgotten()


SCENARIOS = (
    Scenario("membership.stalls", stalls),
    Scenario("membership.lossy_stalls", lossy_stalls),
    Scenario("membership.bad_ears", bad_ears),
    Scenario("membership.losses", losses),
    Scenario("membership.bad_links", bad_links),
    Scenario("membership.goodbyes", goodbyes),
    Scenario("membership.rolling_restart", rolling_restart),
    Scenario("membership.forgetting", forgetting),
)
