"""Runs in which replicas are cut off, slow, paused and killed, and become equal.

python -m atomr.testing.simulation tests/atomr/gossip/replication_scenarios.py
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.crdt import AWLWWMap, AWSet, GCounter, Origin, ORMap, OwnedMap
from atomr.gossip.replication import Gone, ReplicationOptions, Retired, Wrote
from atomr.testing.simulation import (
    Mix,
    Quality,
    Scenario,
    Simulation,
    draw_faults,
)
from tests.atomr.gossip.replication_world import (
    CODEC,
    ReplicaNode,
    World,
    add_nodes,
    are_equal,
    check_nothing_lost,
    nodes,
    refuse_bad_facts,
)

if TYPE_CHECKING:
    import random

CHAOS_S = 3.0
MIX = Mix(slow_s=1.0, pause_s=1.0, down_s=1.0)


def write_at_random(simulation: Simulation, number: int, within_s: float) -> None:
    draw = simulation.random

    def write() -> None:
        name = draw.choice(simulation.names)
        simulation.do(name, lambda node, now_s: node.write(draw, now_s))

    for _ in range(number):
        simulation.at(simulation.now_s + draw.uniform(0.0, within_s), write)


def small_world(draw: random.Random) -> World:
    """Return a world in which every bound is reached, now and then."""
    options = ReplicationOptions(
        batch_events=draw.choice([3, 7, 50]),
        chunk_bytes=draw.choice([200, 64_000]),
        # Messages are what a run costs, and nodes that hear seldom differ more.
        round_s=draw.choice([0.2, 0.4]),
        busy_round_s=draw.choice([0.05, 0.2, 0.2, 0.2, 0.2]),
        fanout=draw.choice([1, 1, 2]),
    )
    return World(
        options=options,
        tail_events=draw.choice([4, 20, 1_000]),
        max_early=draw.choice([2, 256]),
    )


def chaos(simulation: Simulation) -> None:
    """Nodes write while all goes wrong, and end up equal."""
    draw = simulation.random
    if draw.random() < 0.2:
        simulation.use_codec(CODEC)
    world = small_world(draw)
    add_nodes(simulation, world, draw.choice([2, 3, 5, 5, 5]))
    refuse_bad_facts(simulation)
    faults = draw_faults(
        draw, simulation.names, within_s=CHAOS_S, number=draw.randrange(2, 7), mix=MIX
    )
    simulation.plan(faults)
    simulation.start()
    write_at_random(simulation, 40, CHAOS_S)
    simulation.run(CHAOS_S)
    simulation.heal()
    # What was slow is under way for as long as it may be slow.
    simulation.run(MIX.slow_s)
    simulation.start()
    simulation.run_until(lambda: are_equal(simulation), within_s=10.0)
    check_nothing_lost(simulation, world)


def retirement(simulation: Simulation) -> None:
    """Nodes restart over and over, and vectors do not grow."""
    draw = simulation.random
    world = small_world(draw)
    add_nodes(simulation, world, draw.choice([3, 5]))
    refuse_bad_facts(simulation)
    retired = set()
    simulation.observe(
        lambda _, fact: retired.add(fact.origin) if isinstance(fact, Retired) else None
    )
    simulation.start()
    for _ in range(draw.randrange(1, 4)):
        for name in simulation.names:
            simulation.do(name, lambda node, now_s: node.own(now_s))
        write_at_random(simulation, 10, 0.5)
        simulation.run(0.7)
        simulation.restart(draw.choice(simulation.names))
        simulation.set_quality(Quality(loss=0.3, duplicate=0.2))
    # Whom membership holds gone, it has told everybody alive of each other.
    simulation.run_until(lambda: all_know_all(simulation), within_s=60.0)
    for name in draw.sample(simulation.names, 2):
        simulation.do(name, overwrite)
    simulation.run(draw.uniform(0.0, 0.3))
    living = {node.log.origin for node in nodes(simulation)}
    dead = sorted({dot.origin for dot in world.made} - living)
    for name in simulation.names:
        for origin in dead:
            simulation.do(name, partial(tell_gone, origin))
    write_at_random(simulation, 20, 2.0)
    simulation.run(2.0)
    simulation.heal()
    simulation.run_until(
        lambda: are_equal(simulation) and no_dead_but_pinned(simulation, living),
        within_s=15.0,
    )
    check_nothing_lost(simulation, world)
    assert retired <= set(dead)
    # A newcomer can have begun in no other way than with what is left.
    simulation.restart(simulation.names[0])
    simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
    check_nothing_lost(simulation, world)


def tell_gone(origin: Origin, node: ReplicaNode, now_s: float) -> list[object]:
    return node.act(Gone(origin), now_s)


def all_know_all(simulation: Simulation) -> bool:
    living = {node.log.origin for node in nodes(simulation)}
    return all(
        living <= {node.log.origin, *node.machine.peers} for node in nodes(simulation)
    )


def no_dead_but_pinned(simulation: Simulation, living: set[Origin]) -> bool:
    """Return whether only what the dead put into maps and sets keeps them."""
    for node in nodes(simulation):
        members, counter = (
            node.log.open(OwnedMap, "members"),
            node.log.open(GCounter, "c"),
        )
        if not living.issuperset(members.owners("all")):
            return False
        cells = counter.cells().values()
        if not all(entry.dot.origin in living for cell in cells for entry in cell):
            return False
    return all(
        node.log.pins(origin)
        for node in nodes(simulation)
        for origin in set(node.log.vector) - living
    )


def overwrite(node: ReplicaNode, now_s: float) -> list[object]:
    """Remove whatever a dead node has left that is nobody's own."""
    log = node.log
    log.open(AWLWWMap, "m").clear()
    log.open(AWSet, "s").clear()
    for key in list(log.open(ORMap, "o")):
        log.open(ORMap, "o").remove(key)
    return node.act(Wrote(), now_s)


def rolling(simulation: Simulation) -> None:
    """Every node is restarted, one after the other; what they held outlives it."""
    draw = simulation.random
    world = small_world(draw)
    add_nodes(simulation, world, draw.choice([2, 3]))
    refuse_bad_facts(simulation)
    simulation.start()
    write_at_random(simulation, 30, 0.5)
    simulation.run(0.5)
    for name in simulation.names * 2:
        simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
        before = simulation.node(name).log.open(AWLWWMap, "m").value
        simulation.restart(name)
        simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
        assert simulation.node(name).log.open(AWLWWMap, "m").value == before
        write_at_random(simulation, 6, 0.1)
        simulation.run(draw.choice([0.1, 0.5]))
    simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
    check_nothing_lost(simulation, world)


SCENARIOS = (
    Scenario("replication.chaos", chaos),
    Scenario("replication.retirement", retirement),
    Scenario("replication.rolling", rolling),
)
