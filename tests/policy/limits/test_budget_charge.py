"""What a ledger of whole units is charged for requests that cost less than one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.budget import Budget, Per, Window
from atomr_infer.model.prices import PICO_PER_MICRO, microusd_up
from atomr_infer.policy.limits.budget_charge import MAX_UNITS, Charges
from atomr_infer.policy.limits.demand import Used

if TYPE_CHECKING:
    import pytest

DAY = Budget(per=Per.DAY, usd=1)
COSTS = st.lists(st.integers(0, 3 * PICO_PER_MICRO), max_size=20)


def charged(charges: Charges, ledger: str, cost: int | None) -> int | None:
    return charges.units(ledger, Used(cost_pico_usd=cost))


@given(COSTS)
def test_what_is_charged_is_the_sum_rounded_up_once(costs: list[int]) -> None:
    charges, total, spent = Charges(DAY), 0, 0
    for cost in costs:
        units = charged(charges, "today", cost)
        assert units is not None
        assert 0 <= units <= microusd_up(cost)  # never more than was reserved for it
        total, spent = total + units, spent + cost
        assert total == microusd_up(spent)


def test_a_rest_of_one_ledger_pays_nothing_in_another() -> None:
    charges = Charges(DAY)
    found = [charged(charges, name, 1) for name in ("a", "a", "b", "a")]
    assert found == [1, 0, 1, 1]


def test_a_rest_of_a_rolling_budget_pays_nothing_that_lasts_longer() -> None:
    charges = Charges(Budget(per=Per.DAY, usd=1, window=Window.ROLLING))
    assert [charged(charges, "rolls", 1) for _ in range(3)] == [1, 1, 1]


def test_what_nobody_knows_leaves_the_rest_as_it_is() -> None:
    charges = Charges(DAY)
    assert [charged(charges, "a", cost) for cost in (1, None, 1)] == [1, None, 0]


def test_more_than_a_ledger_can_count_is_as_much_as_it_can() -> None:
    tokens = Charges(Budget(per=Per.DAY, tokens=10))
    assert tokens.units("a", Used(input_tokens=MAX_UNITS, output_tokens=1)) == MAX_UNITS
    assert charged(Charges(DAY), "a", MAX_UNITS * PICO_PER_MICRO + 1) == MAX_UNITS


def test_a_negative_cost_is_charged_as_nothing_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    charges = Charges(DAY)
    found = [charged(charges, "a", cost) for cost in (1, -5 * PICO_PER_MICRO, 1)]
    assert found == [1, 0, 0]
    assert "-5000000 pico-dollars" in caplog.text
