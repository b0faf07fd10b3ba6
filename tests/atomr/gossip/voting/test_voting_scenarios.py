"""The scenarios of voting hold; `make sim` runs more seeds."""

from __future__ import annotations

import pytest

from atomr.testing.simulation import Scenario, check, trace_of
from tests.atomr.gossip.voting.voting_scenarios import SCENARIOS

BY_NAME = {s.name.removeprefix("voting."): s for s in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=BY_NAME)
def test_a_scenario_holds(scenario: Scenario) -> None:
    assert check(scenario, range(3)) >= 3


def test_a_seed_is_one_run_byte_for_byte() -> None:
    chaos = BY_NAME["chaos"]

    assert trace_of(chaos, 7).content == trace_of(chaos, 7).content
