"""Homes that move, step by step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest

from atomr.crdt import Origin
from atomr.gossip.escrow import (
    FIRST,
    UNKNOWN,
    Denied,
    Escrow,
    Granted,
    Limit,
    Mode,
    Past,
)
from atomr.gossip.escrow.frames import Offer, Open, Voting
from atomr.gossip.escrow.seat import VotedSeat, terms_of
from atomr.testing.simulation import Scenario, check
from tests.at_length import times
from tests.atomr.gossip.home_scenarios import LONG, SCENARIOS
from tests.atomr.gossip.test_escrow import Lab

# The home is "a"; each owns 2, and 54 are lent.
LIMIT = Limit("rpm", 60, 60.0, ("a", "b", "c"), away_s=10.0)
LAPSE_S = terms_of("a", LIMIT.voters, 10.0).lapse_s
GONE_S = LAPSE_S + 1.0 + LIMIT.lapse_s + LIMIT.cooling_s
"""A seat is vacant, somebody takes it, and what was lent before has cooled."""


def lab(**terms: Any) -> Lab:
    made = Lab(attrs.evolve(LIMIT, **terms))
    made.run(0.3)
    return made


def heir(made: Lab) -> str:
    """Return who all that are there think lends."""
    (home,) = {node.home("rpm") for node in made.nodes.values()}
    return home


def drop(made: Lab, name: str) -> None:
    """End a node for good."""
    del made.nodes[name]


def test_a_home_that_never_had_another_lends_at_once() -> None:
    made = lab()

    assert heir(made) == "a"
    assert made.use("b", 60) == 56


def test_a_home_that_is_gone_is_followed_by_another_one_that_lends_all() -> None:
    made = lab()
    assert isinstance(made.acquire("b", 30), Granted)
    drop(made, "a")
    made.run(LAPSE_S + 1.0)
    assert heir(made) in ("b", "c")
    assert made.use("b", 60) + made.use("c", 60) <= 2 + 2 + 2

    made.run(GONE_S - LAPSE_S + 60.0)
    assert made.use("b", 60) + made.use("c", 60) == 58


def test_what_is_lent_again_is_lent_when_the_old_leases_and_a_window_are_over() -> None:
    made = lab(floor_fraction=0.0)
    assert isinstance(made.acquire("b", 60), Granted)
    drop(made, "a")
    made.run(LAPSE_S - 0.5 + LIMIT.lapse_s + LIMIT.cooling_s - 3.4)  # it was renewed
    assert made.use("c", 60) == 0
    made.run(5.5)
    assert made.use("c", 60) == 60


def test_who_is_denied_hears_when_the_new_home_lends() -> None:
    made = lab()
    assert made.use("b", 2) == 2
    drop(made, "a")
    made.run(4.0)
    first = made.acquire("b", 30)
    until_s = made.now_s
    while isinstance(first, Denied) and first.retry_after_s < 5.0:
        made.run(0.3)
        first = made.acquire("b", 30)
    assert isinstance(first, Denied)
    # The lease of a, that of whom it lent to, and a window.
    assert first.retry_after_s == pytest.approx(GONE_S - until_s, abs=4.0)
    made.run(10.0)
    made.acquire("b", 30)
    made.run(1.0)
    again = made.acquire("b", 30)
    assert isinstance(again, Denied)
    at_s = made.now_s + again.retry_after_s
    assert at_s == pytest.approx(GONE_S, abs=4.0)
    made.run_to(at_s + 0.1)
    assert isinstance(made.acquire("b", 30), Granted)


def test_the_first_home_takes_nothing_away_when_it_is_back() -> None:
    made = lab()
    drop(made, "a")
    made.run(LAPSE_S + GONE_S)
    home = heir(made)
    made.boot("a", boot=2, past=Past(quiet_s=LAPSE_S + GONE_S))
    made.run(20.0)

    assert home != "a"
    assert heir(made) == home
    assert made.use("a", 60) == 56


def test_a_restarted_home_lends_when_what_it_lent_before_has_cooled() -> None:
    made = lab()
    assert isinstance(made.acquire("b", 56), Granted)
    made.boot("a", boot=2)
    made.run(GONE_S - 2.0)
    assert made.use("c", 60) == 2
    made.run(3.0)
    assert made.use("c", 60) == 54


def test_the_side_without_a_majority_has_its_floors_only() -> None:
    made = lab()
    made.cut = {"a"}
    made.run(GONE_S + 1.0)

    assert made.nodes["b"].home("rpm") != "a"
    assert made.use("a", 60) == 2
    assert made.use("b", 60) == 56


def test_a_cluster_that_was_quiet_for_long_enough_lends_at_once() -> None:
    made = Lab(LIMIT, past=Past(quiet_s=LAPSE_S + 1.2 * GONE_S))
    made.run(0.3)
    assert made.use("b", 60) == 56
    made = Lab(LIMIT, past=Past(quiet_s=30.0))
    made.run(1.0)
    assert heir(made) == "a"
    assert made.use("b", 60) == 0
    made = Lab(LIMIT, past=UNKNOWN)
    made.run(LAPSE_S + 1.0)
    assert heir(made) == "a"
    assert made.use("b", 60) == 0


@pytest.mark.parametrize(
    "terms",
    [
        {"voters": ("a", "b")},
        {"window_s": 900.0},
        {"away_s": None},
        {"drift": 0.06},
        {"mode": Mode.SOFT},
    ],
    ids=str,
)
def test_a_limit_of_other_terms_stays_where_it_is(terms: dict[str, Any]) -> None:
    limit = attrs.evolve(LIMIT, **terms)
    made = Lab(limit)
    drop(made, limit.home)
    for name in made.nodes:
        made.use(name, 1)
    made.run(30.0)

    assert not limit.moves
    assert made.sent(Voting) == []


def test_a_limit_that_moves_says_how_long_in_its_terms() -> None:
    assert LIMIT.moves
    other = attrs.evolve(LIMIT, away_s=11.0)
    assert LIMIT.terms != other.terms
    stays = attrs.evolve(LIMIT, window_s=900.0)
    assert stays.terms == attrs.evolve(stays, away_s=11.0).terms
    with pytest.raises(ValueError, match=r"away_s=0\.0: expected above 0"):
        attrs.evolve(LIMIT, away_s=0.0)


def test_nobody_lends_before_what_earlier_lives_have_voted_for_is_over() -> None:
    made = Lab(LIMIT, past=UNKNOWN)
    made.run(LAPSE_S - 1.0)
    made.acquire("b", 30)
    made.run(0.5)
    assert made.sent(Offer) == []
    made.run(2.5)
    assert made.sent(Offer) != []


def test_a_node_that_is_no_voter_finds_the_new_home() -> None:
    made = lab()
    made.boot("x", past=FIRST)
    assert made.use("x", 3) == 3
    drop(made, "a")
    made.run(LAPSE_S + GONE_S)
    first = isinstance(made.acquire("x", 1, wait_s=1.5), Granted)
    made.run(4.0)

    assert first + made.use("x", 60) == 54
    assert made.nodes["x"].home("rpm") in ("b", "c")


def test_a_new_home_that_dies_too_is_followed_by_whoever_is_left() -> None:
    made = lab(voters=("a", "b", "c", "d", "e"))
    for _ in range(2):
        drop(made, heir(made))
        made.run(GONE_S + 10.0)
    left = sorted(made.nodes)

    assert heir(made) in left
    assert sum(made.use(name, 60) for name in left) == 60 - 2 * made.limit.floor


def test_who_ends_its_last_limit_leaves_the_seat_to_others_at_once() -> None:
    made = lab()
    made.run(LAPSE_S)
    made.nodes["a"].remove("rpm", made.now_s)
    made.deliver("a", made.nodes["a"].advance(made.now_s))
    drop(made, "a")
    made.run(LAPSE_S / 2 + 1.0)

    assert heir(made) in ("b", "c")


def test_more_limits_cost_no_more_messages_and_none_costs_none() -> None:
    rates = {}
    for number in (0, 1, 100):
        made = Lab(LIMIT)
        made.nodes = {name: Escrow(Origin(name, 1)) for name in "abc"}
        homes = Counter[str]()
        for at in range(1_000):
            limit = attrs.evolve(LIMIT, name=f"rpm {at}")
            if limit.home == "a" and homes["a"] < number:
                homes["a"] += 1
                for node in made.nodes.values():
                    node.add(limit, made.now_s, past=FIRST)
        made.run(10.0)
        made.frames.clear()
        made.run(60.0)
        rates[number] = len(made.frames) / 60.0
    assert rates[0] == 0.0
    assert 0.0 < rates[1] <= 1.4
    assert rates[100] == rates[1]


def test_all_seats_of_three_voters_cost_one_message_and_a_half_a_second_and_node() -> (
    None
):
    made = Lab(LIMIT)
    for at in range(20):
        limit = attrs.evolve(LIMIT, name=f"rpm {at}")
        for node in made.nodes.values():
            node.add(limit, made.now_s, past=FIRST)
    made.run(10.0)
    made.frames.clear()
    made.run(60.0)

    assert 0.5 < len(made.frames) / 60.0 / 3 <= 1.5


def test_votes_of_a_seat_that_is_not_known_change_nothing() -> None:
    made = lab()
    node = made.nodes["z"] = Escrow(Origin("z", 1))
    limit = attrs.evolve(LIMIT, voters=("a", "b", "z"), name="other")
    node.add(limit, made.now_s, past=FIRST)
    made.frames.clear()
    made.run(2.0 * LAPSE_S)
    leases = {
        name: {
            frame.said.lease
            for who, _, frame in made.frames
            if who == name and isinstance(frame, Voting)
        }
        for name in "az"
    }

    assert leases["z"] == {terms_of(limit.home, limit.voters, 10.0).name}
    assert leases["a"] == {terms_of("a", LIMIT.voters, 10.0).name}


def test_an_offer_that_nobody_waits_for_any_more_is_left_alone() -> None:
    made = lab()
    assert made.use("b", 10) == 10
    (offer,) = [frame for frame in made.sent(Open) if frame.limit == "rpm"][:1]

    assert made.nodes["c"].receive("b", offer, made.now_s) != []  # it says who lends
    assert made.use("b", 60) == 46


def test_who_has_no_vote_asks_the_next_one_when_the_one_it_asks_is_silent() -> None:
    terms = terms_of("a", LIMIT.voters, 10.0)
    seat = VotedSeat(terms, "a", Origin("z", 1), voted_until_s=0.0)
    asked = [seat.holder]
    seat.doubt("nobody")
    assert seat.holder == "a"
    for _ in range(3):
        seat.doubt(seat.holder)
        asked.append(seat.holder)
    seat.heard_of("a", "c")

    assert asked[0] == asked[3] == "a"
    assert sorted(asked[:3]) == ["a", "b", "c"]
    assert seat.holder == "c"


@pytest.mark.parametrize(
    "scenario", [*SCENARIOS, *LONG], ids=lambda scenario: scenario.name
)
def test_no_window_has_too_many_uses_wherever_the_home_is(scenario: Scenario) -> None:
    check(scenario, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", LONG, ids=lambda scenario: scenario.name)
def test_that_holds_for_more_seeds(scenario: Scenario) -> None:
    check(scenario, range(2, 2 + times(14)))
