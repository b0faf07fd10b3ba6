"""The clock of a lease goes on while the machine sleeps."""

from __future__ import annotations

from atomr.cluster.clock import SleeplessClock, slept_s, wall_us


def test_what_the_machine_slept_through_counts() -> None:
    now, slept = [10.0], [0.0]
    clock = SleeplessClock(lambda: now[0], lambda: slept[0])
    before_s = clock()

    now[0], slept[0] = 11.0, 3600.0

    assert clock() - before_s == 3601.0


def test_two_clocks_that_are_read_one_after_the_other_have_not_slept() -> None:
    now, slept = [10.0], [5.0]
    clock = SleeplessClock(lambda: now[0], lambda: slept[0])
    for slept[0] in (5.000002, 4.999, 5.009):
        assert clock() == 15.0


def test_this_machine_has_slept_for_some_time_or_none() -> None:
    assert slept_s() > -0.01


def test_microseconds_of_the_wall_clock_are_a_number_that_json_can_hold() -> None:
    assert 1e15 < wall_us() < 2**53
