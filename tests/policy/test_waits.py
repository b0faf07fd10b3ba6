"""Times to wait, as a person says them."""

from __future__ import annotations

import math

import pytest

from atomr_infer.policy.waits import wait_in_words


@pytest.mark.parametrize(
    ("wait_s", "words"),
    [
        (0.0, "0 s"),
        (0.01234, "0.0123 s"),
        (5.0, "5 s"),
        (51.26, "51.3 s"),
        (119.9, "120 s"),
        (120.0, "2 min"),
        (120.1, "2 min 1 s"),
        (3_599.5, "1 h"),
        (3_600.0, "1 h"),
        (75_700.0, "21 h 2 min"),
        (86_399.0, "1 d"),
        (90_000.5, "1 d 2 h"),
        (math.inf, "inf s"),
    ],
)
def test_a_wait_is_told_in_two_units_at_most(wait_s: float, words: str) -> None:
    assert wait_in_words(wait_s) == words
