"""Bugs that are put in on purpose: each has to be noticed by some seed.

    python -m tests.atomr.gossip.mutants --seeds 1000 --only "trap 3"

prints for each the first seed that notices, and exits with 1 if one survives.
A mutant is one decision of our code that is made otherwise: traps that other
libraries fell into, mistakes that were made here, and such as the next one who
touches the code might make.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import attrs

from atomr.testing.simulation import Scenario, first_failure, mutated

MODULES = (
    "tests.atomr.gossip.replication_mutants",
    "tests.atomr.gossip.escrow_mutants",
    "tests.atomr.gossip.home_mutants",
    "tests.atomr.gossip.ledger_mutants",
    "tests.atomr.gossip.membership.membership_mutants",
    "tests.atomr.gossip.voting.voting_mutants",
    "tests.atomr.cluster.replicator.replicator_mutants",
)


@attrs.frozen
class Mutant:
    """One decision, made wrongly.

    Attributes:
        name: what is wrong.
        function: where.
        old: what it says.
        new: what it says instead.
        scenario: in which it should show.
        first_seed: the search begins there, where others would take long.
    """

    name: str
    function: Callable[..., Any]
    old: str
    new: str
    scenario: Scenario
    first_seed: int = 0

    def first_failure(self, seeds: int = 1_000) -> int | None:
        """Return the first seed that notices; None: none of so many does."""
        with mutated(self.function, self.old, self.new):
            tried = range(self.first_seed, self.first_seed + seeds)
            return first_failure(self.scenario, tried)


def mutants() -> list[Mutant]:
    """Return all mutants."""
    return [mutant for module in MODULES for mutant in import_module(module).MUTANTS]


def survivors(chosen: Iterable[Mutant], seeds: int) -> int:
    """Print what became of each, and return how many nobody noticed."""
    number = 0
    for mutant in chosen:
        seed = mutant.first_failure(seeds)
        number += seed is None
        verdict = "SURVIVES" if seed is None else f"seed {seed:4}"
        print(f"{verdict}  {mutant.scenario.name}: {mutant.name}", flush=True)
    return number


def main() -> int:
    """Run all, or some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--only", default="", help="a part of the line that is printed")
    options = parser.parse_args()
    chosen = [
        mutant
        for mutant in mutants()
        if options.only in f"{mutant.scenario.name}: {mutant.name}"
    ]
    number = survivors(chosen, options.seeds)
    print(f"{len(chosen)} mutants, {number} not noticed within {options.seeds} seeds")
    return 1 if number or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
