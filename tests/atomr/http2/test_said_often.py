"""What is said again and again."""

from __future__ import annotations

from atomr.http2.said_often import FIRST_PAUSE_S, MAX_KNOWN, MOST_PAUSE_S, SaidOften


def test_what_comes_each_second_is_said_with_longer_and_longer_pauses() -> None:
    said = SaidOften()
    found = [(at, said.now("x", float(at))) for at in range(4 * int(MOST_PAUSE_S))]
    told = [(at, more) for at, more in found if more is not None]
    assert told[:5] == [(0, 0), (10, 9), (30, 19), (70, 39), (150, 79)]
    assert told[-1][0] - told[-2][0] == MOST_PAUSE_S
    assert sum(more + 1 for _, more in told) <= len(found)


def test_what_differs_is_said_apart() -> None:
    said = SaidOften()
    assert [said.now(what, 0.0) for what in ("a", "b", "a")] == [0, 0, None]


def test_what_was_quiet_for_long_is_said_as_if_it_were_new() -> None:
    said = SaidOften()
    said.now("a", 0.0)
    said.now("a", 1.0)
    assert said.now("a", 2 * FIRST_PAUSE_S + MOST_PAUSE_S) == 0


def test_a_peer_with_ever_new_names_fills_no_memory() -> None:
    said = SaidOften()
    for number in range(3 * MAX_KNOWN):
        assert said.now(number, 0.0) == 0
    assert said.now(3 * MAX_KNOWN - 1, 0.0) is None
