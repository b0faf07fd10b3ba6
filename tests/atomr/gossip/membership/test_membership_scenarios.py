"""The scenarios of membership hold; `make sim` runs many more seeds of them."""

from __future__ import annotations

import pytest

from atomr.testing.simulation import Scenario, check, trace_of
from tests.atomr.gossip.membership import (
    membership_care_scenarios,
    membership_scenarios,
)

SCENARIOS = (*membership_scenarios.SCENARIOS, *membership_care_scenarios.SCENARIOS)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=BY_NAME)
def test_a_scenario_holds(scenario: Scenario) -> None:
    assert check(scenario, range(4)) >= 4


def test_a_seed_is_one_run_byte_for_byte() -> None:
    chaos = BY_NAME["membership.chaos"]

    assert trace_of(chaos, 7).content == trace_of(chaos, 7).content
