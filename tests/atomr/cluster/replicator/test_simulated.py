"""Replicators in the simulator: a few seeds of each scenario, and the large ones."""

from __future__ import annotations

from functools import partial

import pytest

from atomr.cluster.replicator import ReplicatorOptions
from atomr.crdt import Origin
from atomr.testing.simulation import Scenario, Simulation, check
from tests.atomr.cluster.replicator.replicator_scenarios import (
    SCENARIOS,
    long_cut,
    many_keys,
    rolling,
    starved,
)
from tests.atomr.cluster.replicator.world import (
    World,
    add_nodes,
    all_meet,
    are_equal,
    nodes,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_holds_for_every_seed(scenario: Scenario) -> None:
    check(scenario, seeds=range(1))


@pytest.mark.slow
def test_100_restarts_of_five_nodes_lose_no_registration() -> None:
    check(Scenario("rolling", rolling), seeds=range(1))


@pytest.mark.slow
def test_10_000_keys_in_messages_of_200_reach_both_nodes_over_20_faults() -> None:
    check(
        Scenario("many", partial(many_keys, keys=10_000, faults=20, batch=200)),
        seeds=range(2),
    )


@pytest.mark.slow
def test_10_000_keys_that_differ_after_ten_minutes_are_equal_within_five_seconds() -> (
    None
):
    play = partial(long_cut, keys=10_000, cut_s=600.0, within_s=5.0, shards=4)
    check(Scenario("long", play), seeds=range(1))


@pytest.mark.parametrize("seed", range(2))
def test_a_node_with_a_twentieth_of_its_time_for_a_minute_is_equal_in_two_seconds(
    seed: int,
) -> None:
    play = partial(starved, within_s=2.0)
    check(Scenario("starved", play), seeds=[seed])


def test_nodes_that_agree_say_so_in_one_message_and_are_silent() -> None:
    simulation = Simulation(0)
    add_nodes(simulation, World(ReplicatorOptions(shards=4)), 5)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    for name in simulation.names:
        simulation.do(name, lambda node, now_s: node.put(node.boot.boot, 1, now_s))
    simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
    simulation.run(10.0)
    for node in nodes(simulation):
        # From now on only replicators speak.
        node.beat_at_s = float("inf")
    before = [simulation.host(name).sent for name in simulation.names]
    simulation.run(20.0)
    sent = [simulation.host(name).sent for name in simulation.names]
    # One message about all shards in ten seconds, to two of the four.
    assert [after - b for after, b in zip(sent, before, strict=True)] == [4] * 5


def test_a_hello_that_was_lost_is_asked_for_by_nodes_that_are_silent() -> None:
    simulation = Simulation(0)
    add_nodes(simulation, World(ReplicatorOptions(shards=2, quiet_s=1.0)), 2)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    simulation.run(5.0)
    one = simulation.node("n0")
    [neighbour] = one.core.neighbours.values()
    assert neighbour.logs is not None
    right = neighbour.logs
    # Of a life that the other one has begun meanwhile.
    neighbour.logs = (Origin("n1", 1), *right[1:])
    simulation.run(3.0)
    assert neighbour.logs == right
