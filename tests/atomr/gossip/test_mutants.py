"""Broken code is noticed: each mutant, by some seed of its scenario."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.atomr.gossip.mutants import Mutant, mutants

MUTANTS = mutants()
SEEDS = 1_000


def test_there_are_mutants_of_each_machine_and_each_is_another() -> None:
    machines = Counter(mutant.scenario.name.split(".")[0] for mutant in MUTANTS)

    assert machines.keys() == {
        "replication",
        "limits",
        "budgets",
        "membership",
        "voting",
        "replicator",
    }
    assert min(machines.values()) >= 10
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_put_in_on_purpose_is_found(mutant: Mutant) -> None:
    assert mutant.first_failure(SEEDS) is not None
