"""The states of a deployment, each step of the table, and what is refused."""

from __future__ import annotations

import re
from itertools import product

import pytest

from atomr_infer.policy.lifecycle import deployment_state
from atomr_infer.policy.lifecycle.deployment_state import (
    TRANSITIONS,
    Event,
    IllegalEventError,
    State,
    step,
    whole,
)


@pytest.mark.parametrize(
    ("events", "states"),
    [
        (
            [Event.PLACED, Event.STARTED, Event.READY, Event.UNPLACED, Event.ENDED],
            ["placing", "loading", "serving", "draining", "stopped"],
        ),
        ([Event.PLACED, Event.BROKE, Event.PLACED], ["placing", "failed", "placing"]),
        (
            [Event.PLACED, Event.STARTED, Event.READY, Event.WAITS, Event.READY],
            ["placing", "loading", "serving", "loading", "serving"],
        ),
        ([Event.UNPLACED, Event.PLACED], ["stopped", "placing"]),
    ],
)
def test_a_life_goes_through_the_table(events: list[Event], states: list[str]) -> None:
    state, seen = State.PENDING, []
    for event in events:
        state = step(state, event)
        seen.append(state.value)
    assert seen == states


def test_what_the_table_does_not_allow_is_refused() -> None:
    legal = {(state, event) for state, row in TRANSITIONS.items() for event in row}
    for state, event in set(product(State, Event)) - legal:
        with pytest.raises(IllegalEventError) as caught:
            step(state, event)
        assert (caught.value.state, caught.value.event) == (state, event)
    assert len(legal) == 15


def test_each_state_has_a_row_and_can_be_reached() -> None:
    reached = {after for row in TRANSITIONS.values() for after in row.values()}
    assert set(TRANSITIONS) == set(State)
    assert reached | {State.PENDING} == set(State)


def test_the_table_of_the_docstring_has_all_states() -> None:
    text = deployment_state.__doc__ or ""
    assert re.findall(r"^([a-z]+)  ", text, re.MULTILINE)[1:] == [
        state.value for state in State
    ]


@pytest.mark.parametrize(
    ("shares", "placed", "wanted", "expected"),
    [
        ([], False, True, "pending"),
        ([], True, True, "placing"),
        ([State.PLACING, State.FAILED], True, True, "placing"),
        ([State.LOADING, State.PLACING], True, True, "loading"),
        ([State.LOADING, State.SERVING], True, True, "serving"),
        ([State.FAILED], False, True, "failed"),
        ([State.FAILED], True, True, "placing"),
        ([State.DRAINING], True, True, "placing"),
        ([State.SERVING, State.DRAINING], False, False, "draining"),
        ([State.STOPPED, State.FAILED], False, False, "stopped"),
        ([], False, False, "stopped"),
    ],
)
def test_the_whole_is_as_good_as_its_best_share(
    shares: list[State],
    placed: bool,
    wanted: bool,
    expected: str,
) -> None:
    assert whole(shares, placed=placed, wanted=wanted).value == expected
