"""Whether a limit is known to have no room."""

from __future__ import annotations

import pytest

from atomr_infer.policy.limits.demand import Demand
from atomr_infer.serving.limits.known_full import KNOWN_S, KnownFull


def ask(tokens: int) -> Demand:
    return Demand(deployment="m", model="m", input_tokens=tokens)


def full(*, has_others: bool = True) -> KnownFull:
    needs = (lambda _: 1, lambda demand: demand.input_tokens)
    return KnownFull(needs, has_others=has_others)


def test_a_node_without_others_knows_at_once() -> None:
    assert full(has_others=False).refuses(ask(1), 0.0)
    assert not full().refuses(ask(1), 0.0)


@pytest.mark.parametrize(
    ("tokens", "after_s", "refuses"),
    [
        (100, 0.0, True),
        (101, KNOWN_S - 0.01, True),
        (99, 0.0, False),
        (100, KNOWN_S, False),
    ],
)
def test_who_needs_as_much_as_one_that_got_nothing_gets_nothing_for_a_moment(
    tokens: int, after_s: float, *, refuses: bool
) -> None:
    known = full()
    known.note(ask(100), 5.0)
    assert known.refuses(ask(tokens), 5.0 + after_s) is refuses
