"""Figures that membership is held to; most of them are other projects' own tests."""

from __future__ import annotations

import pytest

from tests.at_length import times
from tests.atomr.gossip.membership.bars import (
    Wrongs,
    death_s,
    idle_bytes_per_s,
    restart_s,
    reunion_s,
    wrongs,
)

slow = pytest.mark.slow


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_node_is_suspected_by_all_at_once_and_dead_in_five_seconds(
    seed: int,
) -> None:
    suspect_s, dead_s = death_s(5, seed, stops=False)

    assert suspect_s <= 0.1
    assert dead_s <= 5.0


@pytest.mark.parametrize("seed", range(5))
def test_a_stopped_node_is_dead_for_all_of_five_in_eight_seconds(seed: int) -> None:
    assert death_s(5, seed)[1] <= 8.0


@slow
@pytest.mark.parametrize("number", [40, 100])
def test_the_death_of_one_of_many_is_seen_by_all_in_ten_seconds(number: int) -> None:
    assert max(death_s(number, seed)[1] for seed in range(times(1))) <= 10.0


@slow
@pytest.mark.parametrize("number", [40, 100])
def test_it_is_seen_in_fifteen_seconds_though_half_of_all_frames_are_lost(
    number: int,
) -> None:
    assert max(death_s(number, seed, loss=0.5)[1] for seed in range(times(1))) <= 15.0


@slow
@pytest.mark.parametrize("number", [40, 100])
def test_nobody_dies_in_half_a_minute_in_which_half_of_all_frames_are_lost(
    number: int,
) -> None:
    for seed in range(times(1)):
        assert wrongs(number, seed, hours=30 / 3600, loss=0.5).deaths == 0


@slow
def test_in_an_hour_of_losses_and_stalls_nobody_dies_and_few_are_suspected() -> None:
    found = wrongs(32, 1, hours=1.0, loss=0.3, stallers=4)

    assert found.deaths == 0
    # Four nodes that stall 30 times an hour are rightly suspected 120 times.
    assert found.accusations <= 5.0
    assert found.healthy <= 0.1


def test_a_healthy_cluster_accuses_nobody_in_an_hour() -> None:
    assert wrongs(4, 0, hours=1.0, loss=0.0) == Wrongs(0, 0.0, 0.0)


@pytest.mark.parametrize("number", [5, pytest.param(64, marks=slow)])
def test_a_mass_restart_is_over_in_two_seconds(number: int) -> None:
    assert max(restart_s(number, seed) for seed in range(3)) <= 2.0


@pytest.mark.parametrize("number", [5, pytest.param(32, marks=slow)])
def test_two_sides_agree_five_seconds_after_their_first_contact(number: int) -> None:
    contact_s, agreed_s = reunion_s(number, 1, apart_s=60.0)

    assert contact_s <= 15.0
    assert agreed_s - contact_s <= 5.0


@pytest.mark.parametrize("number", [5, pytest.param(100, marks=slow)])
def test_an_idle_node_sends_a_hundred_bytes_a_second_however_many_there_are(
    number: int,
) -> None:
    assert idle_bytes_per_s(number, 0) <= 100.0
