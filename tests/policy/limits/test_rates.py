"""From limits to permits, and how a refusal tunes them."""

from __future__ import annotations

import pytest

from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.policy.limits.demand import Demand, Used
from atomr_infer.policy.limits.rate_permits import (
    ARRIVAL_MARGIN,
    UNBOUNDED_OUTPUT_TOKENS,
    Counted,
    Dimension,
    counted,
)
from atomr_infer.policy.limits.rate_tuning import Tuning

ALL = RateLimits(
    requests_per_minute=60,
    input_tokens_per_minute=6_000,
    output_tokens_per_minute=600,
    tokens_per_minute=60_000,
    max_concurrent=4,
    window_s=10.0,
)
LONGEST_S = 900.0


def demand(input_tokens: int, output_tokens: int | None) -> Demand:
    return Demand(
        deployment="d",
        model="m",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


def test_each_limit_is_permits_of_its_window() -> None:
    window_s = 10.0 * (1.0 + ARRIVAL_MARGIN)
    assert counted(ALL, longest_s=LONGEST_S) == (
        Counted(Dimension.REQUESTS, 10, window_s),
        Counted(Dimension.INPUT_TOKENS, 1_000, window_s),
        Counted(Dimension.OUTPUT_TOKENS, 100, window_s),
        Counted(Dimension.TOKENS, 10_000, window_s),
        Counted(Dimension.CONCURRENT, 4, LONGEST_S),
    )


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        (demand(30, 20), [1, 30, 20, 50, 1]),
        (demand(30, 0), [1, 30, 0, 30, 1]),
        # More than a window has is all of it.
        (demand(2_000, 9_000), [1, 1_000, 100, 10_000, 1]),
        (demand(30, None), [1, 30, 100, 30 + UNBOUNDED_OUTPUT_TOKENS, 1]),
    ],
)
def test_a_request_needs_what_it_may_use_at_most(
    asked: Demand, needs: list[int]
) -> None:
    found = [each.needs(asked) for each in counted(ALL, longest_s=LONGEST_S)]
    assert found == needs


def test_what_was_used_is_counted_and_a_place_is_given_back() -> None:
    used = Used(input_tokens=7, output_tokens=5)
    found = [each.used(used) for each in counted(ALL, longest_s=LONGEST_S)]
    assert found == [1, 7, 5, 12, 0]


def test_refusals_double_what_is_withheld_up_to_a_half() -> None:
    tuning = Tuning(60.0)
    more = [tuning.refused(now_s) for now_s in (0.0, 10.0, 20.0, 30.0, 40.0)]
    assert more == pytest.approx([0.1, 0.1, 0.2, 0.1, 0.0])
    assert (tuning.share, tuning.refusals) == (0.5, 5)


def test_refusals_of_one_wave_are_one() -> None:
    tuning = Tuning(60.0)
    assert [tuning.refused(now_s) for now_s in (0.0, 0.1, 7.4)] == [0.1, 0.0, 0.0]
    assert (tuning.share, tuning.refusals) == (0.1, 1)
    assert tuning.refused(7.5) == pytest.approx(0.1)


def test_each_window_without_a_refusal_halves_what_is_withheld() -> None:
    tuning = Tuning(60.0)
    for now_s in (0.0, 10.0, 20.0):
        tuning.refused(now_s)
    assert tuning.share == pytest.approx(0.4)
    found = [tuning.due(now_s) for now_s in (79.0, 80.0, 81.0, 140.0, 200.0, 260.0)]
    assert found == pytest.approx([0.0, 0.2, 0.0, 0.1, 0.05, 0.0])
    assert tuning.share == 0.0
    assert tuning.due(1e9) == 0.0
