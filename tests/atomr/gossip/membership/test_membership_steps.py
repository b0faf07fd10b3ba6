"""One membership, step by step: what it says to what it hears."""

from __future__ import annotations

import msgspec
import pytest

from atomr.crdt.origin import Origin
from atomr.gossip import membership as m
from atomr.gossip.membership.frames import (
    Ack,
    Digest,
    Gossip,
    Nack,
    Ping,
    PingRequest,
    Table,
)
from tests.atomr.gossip.membership.alone import (
    ALIVE,
    CLUSTER,
    DEAD,
    LEFT,
    SUSPECT,
    Alone,
    facts,
    frames,
    member,
)

replace = msgspec.structs.replace


# --- who is there -------------------------------------------------------------------


def test_whoever_speaks_is_a_member() -> None:
    a = Alone()

    assert a.hears("b") == [m.Changed(None, member("b"))]
    assert a.hears("b") == []


def test_a_new_life_takes_the_place_of_the_old_one_whatever_that_said() -> None:
    a = Alone()
    a.hears("b", incarnation=9)

    said = a.hears("c", member("b", boot=2))

    old, new = member("b", incarnation=9), member("b", boot=2)
    assert facts(said) == [m.Changed(None, member("c")), m.Changed(old, new)]


def test_an_old_life_that_still_speaks_is_told_of_the_new_one() -> None:
    a = Alone()
    a.hears("b", boot=2)

    said = a.hears("b", member("c"), boot=1)

    assert said == [m.Send("b:1", Gossip(CLUSTER, a.membership.me, (member("b", 2),)))]
    assert a.status("c") is None, "and nothing else that it says counts"


def test_seeds_that_come_later_are_asked_at_once() -> None:
    a = Alone()

    said = a.does(m.SeedsChanged(("a:1", "b:1")))

    assert said == [m.Send("b:1", Table(CLUSTER, a.membership.me, (), wants=True))]
    assert frames(a.waits(1.0)) == frames(said)


def test_seeds_that_come_later_are_not_asked_while_there_is_somebody() -> None:
    a = Alone(seeds=("b:1",))
    a.hears("b")

    assert a.does(m.SeedsChanged(("c:1",))) == []
    asked = [to for to, frame in frames(a.waits(20.0)) if isinstance(frame, Table)]
    assert set(asked) == {"c:1"}


def test_seeds_are_asked_for_their_tables_until_somebody_answers() -> None:
    a = Alone(seeds=("a:1", "b:1"))
    table = Table(CLUSTER, a.membership.me, (), True)
    assert frames(a.said) == [("b:1", table)]
    assert [to for to, _ in frames(a.waits(2.5))] == ["b:1", "b:1"]

    a.takes(Table(CLUSTER, member("b"), (member("c"),), False))

    assert a.status("c") is ALIVE
    asked = [frame for _, frame in frames(a.waits(5.0))]
    assert not [frame for frame in asked if isinstance(frame, Table)]


def test_a_table_is_answered_with_a_table_once() -> None:
    a = Alone()
    a.hears("c")

    said = a.takes(Table(CLUSTER, member("b"), (), True))

    rows = member("c"), member("b")
    table = Table(CLUSTER, a.membership.me, rows, False)
    assert frames(said) == [("b:1", table)]
    assert frames(a.takes(Table(CLUSTER, member("b"), (), False))) == []


def test_an_equal_digest_is_not_answered_and_another_one_by_the_table() -> None:
    a = Alone()
    a.hears("b")

    assert a.takes(Digest(CLUSTER, member("b"), (), a.membership.digest())) == []
    [(to, frame)] = frames(a.takes(Digest(CLUSTER, member("b"), (), 1)))

    assert (to, frame) == (
        "b:1",
        Table(CLUSTER, a.membership.me, (member("b"),), True),
    )


def test_a_peer_that_fills_the_table_is_stopped_at_its_bound() -> None:
    a = Alone(options=m.MembershipOptions(max_members=10))

    a.hears("b", *(member(f"x{number}") for number in range(50)))

    assert len(a.membership.members) == 10


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_name_that_is_none_is_not_taken_up(name: str) -> None:
    a = Alone()

    a.hears("b", replace(member("c"), origin=Origin(name, 1)))

    assert list(a.membership.members) == ["a", "b"]


@pytest.mark.parametrize("status", [SUSPECT, DEAD])
def test_a_node_that_calls_itself_unwell_is_not_heard(status: m.Status) -> None:
    a = Alone()

    said = a.takes(Ping(CLUSTER, member("b", status=status), (), 1, "a"))

    assert said == []
    assert a.status("b") is None


# --- pings --------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_number() -> None:
    a = Alone()

    said = a.takes(Ping(CLUSTER, member("b"), (), 12, "a"))

    me = a.membership.me
    assert frames(said) == [("b:1", Ack(CLUSTER, me, (), 12, me.origin))]


def test_a_ping_for_another_node_at_this_address_is_not_answered() -> None:
    a = Alone()

    assert frames(a.takes(Ping(CLUSTER, member("b"), (), 12, "z"))) == []


def test_a_ping_of_a_suspect_is_answered_with_the_accusation() -> None:
    a = Alone()
    accused = member("b", status=SUSPECT, accusers=("c",))
    a.hears("b")
    a.hears("c", accused)

    [(_, frame)] = frames(a.takes(Ping(CLUSTER, member("b"), (), 1, "a")))

    assert frame.updates[0] == accused


def test_a_node_that_does_not_answer_is_suspected_and_then_dead() -> None:
    a = Alone()
    a.hears("b")

    said = facts(a.waits(10.0))

    suspect = member("b", status=SUSPECT, accusers=("a",))
    dead = member("b", status=DEAD)
    assert said == [m.Changed(member("b"), suspect), m.Changed(suspect, dead)]


def test_an_answer_in_time_keeps_a_member_alive() -> None:
    a = Alone()
    a.hears("b")
    for _ in range(100):
        for _, frame in frames(a.waits(0.1)):
            if isinstance(frame, Ping):
                target = Origin("b", 1)
                a.takes(Ack(CLUSTER, member("b"), (), frame.number, target))

    assert a.status("b") is ALIVE
    assert a.membership.health == 0


def test_an_answer_of_another_life_is_none() -> None:
    a = Alone()
    a.hears("b")
    for _ in range(100):
        for _, frame in frames(a.waits(0.1)):
            if isinstance(frame, Ping):
                target = Origin("b", 2)
                a.takes(Ack(CLUSTER, member("b"), (), frame.number, target))

    assert a.status("b") is DEAD


def test_a_helper_pings_for_another_and_passes_the_answer_on_once() -> None:
    a = Alone()
    a.hears("c")
    request = PingRequest(CLUSTER, member("b"), (), 40, Origin("c", 1))

    [(to, ping)] = frames(a.takes(request))
    assert (to, type(ping)) == ("c:1", Ping)
    assert isinstance(ping, Ping)
    answer = Ack(CLUSTER, member("c"), (), ping.number, Origin("c", 1))
    passed_on = Ack(CLUSTER, a.membership.me, (), 40, Origin("c", 1))

    [(to, ack)] = frames(a.takes(answer))
    assert (to, replace(ack, updates=())) == ("b:1", passed_on)
    assert frames(a.takes(answer)) == []


def test_a_helper_that_is_asked_again_answers_again() -> None:
    a = Alone()
    a.hears("c")
    request = PingRequest(CLUSTER, member("b"), (), 40, Origin("c", 1))
    [(_, ping)] = frames(a.takes(request))
    assert isinstance(ping, Ping)
    a.takes(Ack(CLUSTER, member("c"), (), ping.number, Origin("c", 1)))

    [(to, again)] = frames(a.takes(request))

    assert (to, type(again)) == ("b:1", Ack)


def test_a_helper_without_an_answer_says_so_in_time() -> None:
    a = Alone()
    a.hears("c")
    a.takes(PingRequest(CLUSTER, member("b"), (), 40, Origin("c", 1)))

    said = [x for x in frames(a.waits(0.45)) if isinstance(x[1], Nack)]

    [(to, nack)] = said
    assert (to, replace(nack, updates=())) == (
        "b:1",
        Nack(CLUSTER, a.membership.me, (), 40),
    )


def test_a_helper_dials_nobody_whom_it_does_not_know() -> None:
    a = Alone()

    said = a.takes(PingRequest(CLUSTER, member("b"), (), 40, Origin("evil", 1)))

    [(to, nack)] = frames(said)
    assert (to, type(nack)) == ("b:1", Nack)


def test_a_flood_of_requests_is_kept_within_bounds() -> None:
    a = Alone()
    a.hears("c")
    pings = 0
    for number in range(1000):
        request = PingRequest(CLUSTER, member("b"), (), number, Origin("c", 1))
        pings += len(frames(a.takes(request)))

    assert pings == 256


# --- suspicion ----------------------------------------------------------------------


def test_an_accusation_of_this_node_is_refuted_with_a_greater_incarnation() -> None:
    a = Alone()
    a.hears("b")
    accused = replace(a.membership.me, status=DEAD, incarnation=4)

    said = a.hears("b", accused)

    assert facts(said) == [m.Refuted(accused, 5)]
    assert a.membership.me.incarnation == 5
    assert a.membership.health == 1, "it may have been its own fault"
    [update] = [x for _, frame in frames(a.waits(0.05)) for x in frame.updates]
    assert update == a.membership.me


def test_an_accusation_that_was_refuted_long_ago_is_no_news() -> None:
    a = Alone()
    a.hears("b", replace(a.membership.me, status=SUSPECT, incarnation=4))

    said = a.hears("b", replace(a.membership.me, status=DEAD, incarnation=4))

    assert said == []


def test_a_refutation_ends_a_suspicion() -> None:
    a = Alone()
    a.hears("b")
    a.hears("c", member("b", status=SUSPECT, accusers=("c",)))

    said = a.hears("c", member("b", incarnation=1))

    suspect = member("b", status=SUSPECT, accusers=("c",))
    assert facts(said) == [m.Changed(suspect, member("b", incarnation=1))]


def test_accusers_add_up_and_shorten_the_time() -> None:
    many = [f"m{number}" for number in range(8)]
    alone, agreed = Alone(), Alone()
    for a, accusers in ((alone, ("x",)), (agreed, ("v", "w", "x", "y", "z"))):
        a.hears("b")
        a.hears("c", *map(member, many))
        for accuser in accusers:
            a.hears("c", member("b", status=SUSPECT, accusers=(accuser,)))

    assert agreed.membership.members["b"].accusers == ("v", "w", "x", "y", "z")
    # By their own probes they find out too, in time.
    assert [_dies_within(a, 4.1) for a in (alone, agreed)] == [False, True]


def _dies_within(a: Alone, for_s: float) -> bool:
    a.waits(for_s)
    return a.status("b") is DEAD


def test_a_reset_link_is_suspicious_at_once() -> None:
    a = Alone()
    a.hears("b")

    said = a.does(m.LinkReset(Origin("b", 1)))

    suspect = member("b", status=SUSPECT, accusers=("a",))
    assert facts(said) == [m.Changed(member("b"), suspect)]


def test_a_reset_link_of_an_old_life_is_not() -> None:
    a = Alone()
    a.hears("b", boot=2)

    assert a.does(m.LinkReset(Origin("b", 1))) == []


def test_a_late_wake_is_held_against_oneself() -> None:
    a = Alone()
    a.hears("b")
    a.waits(0.5)
    assert a.membership.next_deadline_s is not None
    a.now_s = a.membership.next_deadline_s + 30.0

    said = a.does(m.Woke())

    assert facts(said) == []
    assert a.membership.health == 1
    assert facts(a.waits(0.3)) == [], "those who were asked have their time still"


def test_a_wake_that_comes_too_early_does_nothing() -> None:
    a = Alone()
    a.hears("b")
    a.waits(0.001)

    assert a.does(m.Woke()) == []


# --- the end ------------------------------------------------------------------------


def test_goodbye_is_said_to_all_and_is_the_end() -> None:
    a = Alone()
    a.hears("b", member("c"))

    said = a.does(m.Leave())

    me = a.membership.me
    assert me.status is LEFT
    assert frames(said) == [
        ("b:1", Gossip(CLUSTER, me, ())),
        ("c:1", Gossip(CLUSTER, me, ())),
    ]
    assert a.membership.next_deadline_s is None
    assert a.hears("b", member("d")) == []
    assert a.does(m.Leave()) == []


def test_a_node_that_left_has_left_at_once() -> None:
    a = Alone()
    a.hears("b")
    left = member("b", incarnation=1, status=LEFT)

    assert a.takes(Gossip(CLUSTER, left, ())) == [m.Changed(member("b"), left)]
    assert [to for to, _ in frames(a.waits(60.0))] == [], "nobody asks after it"


def test_a_frame_that_was_on_its_way_does_not_bring_it_back() -> None:
    a = Alone()
    a.takes(Gossip(CLUSTER, member("b", incarnation=1, status=LEFT), ()))

    said = a.takes(Ping(CLUSTER, member("b"), (), 1, "a"))

    assert facts(said) == []
    assert a.status("b") is LEFT


def test_news_of_oneself_is_told_with_a_new_incarnation() -> None:
    a = Alone()
    a.hears("b")

    said = a.does(m.MetaChanged(99))

    me = a.membership.me
    assert (me.meta, me.incarnation) == (99, 1)
    assert facts(said) == [m.Changed(replace(me, meta=0, incarnation=0), me)]
