"""Hedges are a share of all requests, whatever happens."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.policy.failures.hedging import HedgeBudget


def test_one_request_in_twenty_may_be_hedged() -> None:
    budget = HedgeBudget(0.05)
    hedged = []
    for number in range(60):
        budget.request()
        if budget.take():
            hedged.append(number)
    assert hedged == [19, 39, 59]


def test_a_share_of_nothing_never_hedges() -> None:
    budget = HedgeBudget(0.0)
    for _ in range(1000):
        budget.request()
    assert not budget.take()


def test_a_quiet_day_does_not_pay_for_a_storm() -> None:
    budget = HedgeBudget(0.5)
    for _ in range(1000):
        budget.request()
    assert [budget.take() for _ in range(7)] == [True] * 5 + [False] * 2


@given(fraction=st.floats(0.0, 1.0), wants=st.lists(st.booleans(), max_size=300))
def test_hedges_are_never_more_than_their_share(
    fraction: float, wants: list[bool]
) -> None:
    budget = HedgeBudget(fraction)
    hedged = 0
    for number, wanted in enumerate(wants, start=1):
        budget.request()
        hedged += wanted and budget.take()
        assert hedged <= math.floor(number * fraction + 1e-6)
