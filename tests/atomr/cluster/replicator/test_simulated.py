"""Replicators in the simulator: a few seeds of each scenario, and the large ones."""

from __future__ import annotations

from functools import partial

import pytest

from atomr.testing.simulation import Scenario, check
from tests.atomr.cluster.replicator.replicator_scenarios import (
    SCENARIOS,
    long_cut,
    many_keys,
    rolling,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_holds_for_every_seed(scenario: Scenario) -> None:
    check(scenario, seeds=range(1))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_holds_for_more_seeds(scenario: Scenario) -> None:
    check(scenario, seeds=range(1, 25))


@pytest.mark.slow
def test_100_restarts_of_five_nodes_lose_no_registration() -> None:
    check(Scenario("rolling", rolling), seeds=range(1))


@pytest.mark.slow
def test_10_000_keys_in_messages_of_200_reach_both_nodes_over_20_faults() -> None:
    check(Scenario("many", partial(many_keys, keys=10_000, faults=20)), seeds=range(2))


@pytest.mark.slow
def test_10_000_keys_that_differ_after_ten_minutes_are_equal_within_five_seconds() -> (
    None
):
    play = partial(long_cut, keys=10_000, cut_s=600.0, within_s=5.0)
    check(Scenario("long", play), seeds=range(1))
