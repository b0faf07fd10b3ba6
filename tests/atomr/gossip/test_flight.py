"""How long a peer is given, and what it is not sent twice."""

from __future__ import annotations

import pytest

from atomr.crdt import Dot, Event, Origin
from atomr.gossip.replication.flight import Flight, Probe
from atomr.gossip.replication.timeout import Timeout
from atomr.testing.simulation import Quality
from tests.atomr.gossip.replication_bars import slowed

A, B = Origin("a", 1), Origin("b", 1)


def event(seq: int) -> Event:
    return Event("aw_lww_map/m", "k", Dot(A, seq), (), 0, b"")


def flight(met: int = 0) -> Flight:
    return Flight(met, least_s=0.05, most_s=8.0)


# --- the time that a peer gets ------------------------------------------------------


def test_a_quick_peer_gets_the_least_time() -> None:
    timeout = Timeout(least_s=0.05, most_s=8.0)
    for _ in range(10):
        timeout.took(0.001)

    assert timeout.wait_s == 0.05


def test_a_slow_peer_gets_the_mean_and_four_times_what_it_varies() -> None:
    timeout = Timeout(least_s=0.05, most_s=8.0)
    timeout.took(1.0)
    assert timeout.wait_s == 1.0 + 4 * 0.5
    timeout.took(2.0)
    # As RFC 6298 has it: the variation first, then the mean.
    assert timeout.wait_s == pytest.approx(1.125 + 4 * (0.75 * 0.5 + 0.25 * 1.0))


def test_the_time_doubles_whenever_it_is_over_to_an_end() -> None:
    timeout = Timeout(least_s=0.05, most_s=1.0)
    waits = []
    for _ in range(6):
        timeout.expired()
        waits.append(timeout.wait_s)

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_what_arrives_ends_the_doubling() -> None:
    timeout = Timeout(least_s=0.05, most_s=8.0)
    for _ in range(5):
        timeout.expired()
    timeout.took(0.0)

    assert timeout.wait_s == 0.05


def test_a_peer_that_was_slow_is_a_quick_one_after_some_answers() -> None:
    timeout = Timeout(least_s=0.05, most_s=8.0)
    for _ in range(20):
        timeout.took(3.0)
    answers = 0
    while timeout.wait_s > 0.1:
        timeout.took(0.0)
        answers += 1

    assert answers < 50


# --- what is on its way -------------------------------------------------------------


def test_an_answer_is_on_its_way_until_its_time_is_over() -> None:
    one = flight()
    assert not one.is_under_way(1, 10.0)
    one.sent(5, 10.0)

    assert one.is_under_way(3, 10.09)
    assert not one.is_under_way(3, 10.11)


def test_what_follows_an_answer_goes_as_soon_as_that_has_arrived() -> None:
    one = flight()
    one.sent(5, 10.0)

    assert not one.is_under_way(6, 10.001)


def test_time_that_is_over_is_doubled_once_however_much_was_late() -> None:
    one = flight()
    for digest in range(5):
        one.is_under_way(1 + digest, 10.0 + digest / 1_000)
        one.sent(1 + digest, 10.0 + digest / 1_000)

    assert one.timeout.wait_s == 0.1


def test_a_newcomer_that_is_sent_what_is_old_is_not_slow() -> None:
    one = flight(met=1_000)
    for batch in range(10):
        assert not one.is_under_way(1 + 100 * batch, 10.0 + batch)
        one.sent(100 + 100 * batch, 10.0 + batch)

    assert one.timeout.wait_s == 0.05


def test_a_peer_is_as_slow_as_the_last_digest_that_lacked_what_it_was_sent() -> None:
    one = flight()
    one.measure(Probe(event(1), 1, 10.0))
    one.heard({}, 10.5)
    one.heard({}, 11.0)
    one.heard({A: 1}, 19.0)

    assert one.timeout.wait_s == 1.0 + 4 * 0.5


def test_what_was_sent_again_says_nothing_of_how_slow_a_peer_is() -> None:
    one = flight()
    one.measure(Probe(event(1), 1, 10.0))
    one.heard({}, 11.0)
    one.sent(1, 11.0)
    one.heard({A: 1}, 11.1)

    assert one.timeout.wait_s == 0.05


def test_it_is_not_measured_by_what_went_in_an_answer() -> None:
    one = flight()
    one.sent(5, 10.0)
    one.measure(Probe(event(5), 5, 10.0))
    one.heard({}, 12.0)
    one.heard({A: 5}, 13.0)

    assert one.timeout.wait_s == 0.05


def test_where_nothing_is_pushed_it_is_measured_by_answers() -> None:
    one = flight()
    one.sent(5, 10.0, last=event(5))
    one.heard({}, 11.0)
    one.heard({A: 5}, 12.0)

    assert one.timeout.wait_s == 1.0 + 4 * 0.5


def test_pushes_that_are_lost_now_and_then_make_no_peer_slow() -> None:
    timeout = Timeout(least_s=0.05, most_s=8.0)
    for seconds in [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4, 0.0]:
        timeout.took(seconds)
    assert timeout.wait_s > 0.2
    assert timeout.push_s == 0.05
    for _ in range(8):
        timeout.took(0.4)
    assert timeout.push_s == timeout.wait_s > 0.4


# --- a node that is slow ------------------------------------------------------------


@pytest.mark.parametrize(("late_s", "copies"), [(0.3, 2.0), (2.0, 4.0)])
def test_a_node_that_hears_all_late_hears_it_a_few_times_at_most(
    late_s: float, copies: float
) -> None:
    found = slowed(late_s, seed=1)

    assert found.slow < copies
    assert found.others < 1.4
    # No later than what was written last arrived there, and a round.
    assert found.equal_after_s < late_s + 0.5


def test_a_node_that_loses_all_for_a_while_has_it_soon_after() -> None:
    found = slowed(0.001, seed=1, lossy=Quality(loss=1.0))

    assert found.equal_after_s < 1.0


def test_a_slow_node_that_is_quick_again_is_treated_so() -> None:
    found = slowed(2.0, seed=1, then_quick_s=10.0)

    assert max(found.waits_s) < 0.2
