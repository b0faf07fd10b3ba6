"""The limit that 429s tune, by example and over long runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.policy.limits.concurrency import AdaptiveLimit


def test_it_starts_at_its_maximum_and_successes_do_not_raise_that() -> None:
    limit = AdaptiveLimit(4)
    assert not limit.succeeded()
    assert limit.limit == 4


def test_a_refusal_cuts_to_a_share_of_what_runs() -> None:
    limit = AdaptiveLimit(256)
    assert limit.refused(0, running=10)
    assert limit.limit == 7


def test_a_wave_of_refusals_cuts_once() -> None:
    limit = AdaptiveLimit(100)
    wave = limit.generation
    cuts = [limit.refused(wave, running=100) for _ in range(50)]
    assert cuts == [True] + [False] * 49
    assert limit.limit == 70


def test_a_refusal_after_the_cut_cuts_again_down_to_one() -> None:
    limit = AdaptiveLimit(100)
    for _ in range(20):
        limit.refused(limit.generation, running=limit.limit)
    assert limit.limit == 1


def test_a_round_of_successes_gives_one_permit_back() -> None:
    limit = AdaptiveLimit(100)
    limit.refused(0, running=10)
    grown = [limit.succeeded() for _ in range(8)]
    assert grown.count(True) == 1
    assert limit.limit == 8


@given(
    maximum=st.integers(1, 50),
    outcomes=st.lists(st.one_of(st.none(), st.integers(1, 60)), max_size=200),
)
def test_the_limit_stays_between_one_and_its_maximum_and_comes_back(
    maximum: int, outcomes: list[int | None]
) -> None:
    limit = AdaptiveLimit(maximum)
    for running in outcomes:
        before = limit.limit
        if running is None:
            assert limit.succeeded() is (limit.limit > before)
        else:
            assert limit.refused(limit.generation, running) is (limit.limit < before)
        assert 1 <= limit.limit <= maximum
    for _ in range(maximum * maximum + maximum):
        limit.succeeded()
    assert limit.limit == maximum
