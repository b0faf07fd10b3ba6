"""The scenarios of voting hold, and notice each mutant; `make sim` runs more."""

from __future__ import annotations

import pytest

from atomr.testing.simulation import (
    Scenario,
    check,
    first_failure,
    mutated,
    trace_of,
)
from tests.atomr.gossip.voting.voting_mutants import BY_NAME, MUTANTS, Mutant
from tests.atomr.gossip.voting.voting_scenarios import SCENARIOS

SEEDS = 1_000


@pytest.mark.parametrize("scenario", SCENARIOS, ids=BY_NAME)
def test_a_scenario_holds(scenario: Scenario) -> None:
    assert check(scenario, range(3)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=BY_NAME)
def test_a_scenario_holds_for_many_seeds(scenario: Scenario) -> None:
    assert check(scenario, range(1000, 1100)) >= 100


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    with mutated(mutant.function, mutant.old, mutant.new):
        seed = first_failure(mutant.scenario, range(SEEDS))

    assert seed is not None


def test_a_seed_is_one_run_byte_for_byte() -> None:
    chaos = BY_NAME["chaos"]

    assert trace_of(chaos, 7).content == trace_of(chaos, 7).content
