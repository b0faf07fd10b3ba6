"""The parts of membership: order, times, updates, the table, frames."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr.crdt.origin import Origin
from atomr.gossip.membership import (
    Frame,
    FrameError,
    Member,
    MembershipOptions,
    Status,
    decode,
    encode,
)
from atomr.gossip.membership.frames import (
    Ack,
    Digest,
    Gossip,
    Nack,
    Ping,
    PingRequest,
    Table,
)
from atomr.gossip.membership.health import Health
from atomr.gossip.membership.member import precedence
from atomr.gossip.membership.roster import Roster
from atomr.gossip.membership.suspicion import suspicion_timeout_s
from atomr.gossip.membership.updates import UpdateQueue
from tests.atomr.gossip.membership.alone import member

replace = msgspec.structs.replace

# Few values, so that many are equal.
members = st.builds(
    member,
    st.just("b"),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(Status),
)


# --- order --------------------------------------------------------------------------


def later(one: Member, other: Member) -> Member:
    return one if one.supersedes(other) else other


@given(members, members, members)
def test_whoever_heard_the_same_believes_the_same(
    a: Member, b: Member, c: Member
) -> None:
    orders = [(a, b, c), (a, c, b), (b, a, c), (b, c, a), (c, a, b), (c, b, a)]
    believed = {
        precedence(later(later(first, second), third))
        for first, second, third in orders
    }

    assert len(believed) == 1


@given(members, members)
def test_exactly_one_of_two_counts_unless_they_say_the_same(
    a: Member, b: Member
) -> None:
    says_the_same = precedence(a) == precedence(b)

    assert a.supersedes(b) + b.supersedes(a) == (not says_the_same)


def test_a_greater_boot_id_counts_whatever_was_said_before() -> None:
    new = member("b", boot=2)

    assert all(new.supersedes(member("b", 1, 3, status)) for status in Status)


def test_who_lists_accusers_only_says_nothing_new() -> None:
    accused = member("b", status=Status.SUSPECT, accusers=("c",))

    assert not accused.supersedes(replace(accused, accusers=()))


# --- times --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "accusers", "seconds"),
    [
        (2, 1, 4.0),
        (3, 1, 4.0),
        (4, 1, 24.0),
        (4, 2, 11.4),
        (4, 3, 4.0),
        (64, 1, 43.3),
        (64, 2, 20.6),
        (64, 3, 7.2),
        (64, 4, 7.2),
        (64, 5, 4.0),
        (64, 60, 4.0),
    ],
)
def test_a_suspect_has_the_less_time_the_more_accuse_it(
    size: int, accusers: int, seconds: float
) -> None:
    options = MembershipOptions()
    found_s = suspicion_timeout_s(options, members=size, accusers=accusers)

    assert round(found_s, 1) == seconds


def test_health_stays_between_well_and_its_bound() -> None:
    health = Health(2)
    scores = []
    for step in (health.improve, *[health.worsen] * 3, *[health.improve] * 4):
        step()
        scores.append(health.multiplier)

    assert scores == [1, 2, 3, 3, 2, 1, 1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_s": 0.0},
        {"probe_timeout_s": 1.0},
        {"helpers": -1},
        {"fanout": 0},
        {"gossip_s": float("nan")},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    [name] = wrong

    with pytest.raises(ValueError, match=f"^{name}="):
        MembershipOptions(**wrong)  # type: ignore[arg-type]


# --- updates ------------------------------------------------------------------------


def names(taken: list[Member]) -> list[str]:
    return [update.name for update in taken]


def test_an_update_is_told_a_bounded_number_of_times() -> None:
    queue = UpdateQueue(4)
    queue.add(member("b"))

    told = [names(queue.take(20, 5, but="")) for _ in range(6)]

    assert told == [["b"]] * 4 + [[]] * 2
    assert queue.waiting == {}


def test_those_told_least_go_first() -> None:
    queue = UpdateQueue(4)
    for name in "bcd":
        queue.add(member(name))

    told = [names(queue.take(2, 5, but="")) for _ in range(6)]

    assert sorted("".join(map("".join, told))) == sorted("bcd" * 4)
    assert {name for update in told[:2] for name in update} == set("bcd")


def test_a_later_update_takes_the_place_of_an_earlier_one() -> None:
    queue = UpdateQueue(4)
    queue.add(member("b"))
    queue.take(20, 5, but="")
    queue.add(member("b", incarnation=1))

    assert queue.take(20, 5, but="") == [member("b", incarnation=1)]
    assert queue.waiting.keys() == {"b"}


def test_nobody_is_told_of_itself() -> None:
    queue = UpdateQueue(4)
    queue.add(member("b"))
    queue.add(member("c"))

    assert names(queue.take(20, 5, but="b")) == ["c"]


# --- the table ----------------------------------------------------------------------


def test_equal_tables_have_equal_digests_in_whatever_order_they_were_filled() -> None:
    rows = [member("b"), member("c", status=Status.DEAD), member("d", boot=3)]
    digests = set()
    for seed in range(6):
        draw = random.Random(seed)
        roster = Roster(member("a"), draw)
        for row in draw.sample(rows, 3):
            roster.put(row, 1.0)
        digests.add(roster.digest())

    assert len(digests) == 1


@pytest.mark.parametrize(
    "other",
    [
        member("b", boot=2),
        member("b", incarnation=1),
        member("b", status=Status.DEAD),
        replace(member("b"), meta=1),
    ],
)
def test_tables_that_differ_have_different_digests(other: Member) -> None:
    digests = set()
    for row in (member("b"), other):
        roster = Roster(member("a"), random.Random(0))
        roster.put(row, 1.0)
        digests.add(roster.digest())

    assert len(digests) == 2


def test_a_suspicion_makes_no_difference_to_a_digest() -> None:
    roster = Roster(member("a"), random.Random(0))
    roster.put(member("b"), 1.0)
    before = roster.digest()

    roster.put(member("b", status=Status.SUSPECT), 1.0)

    assert roster.digest() == before


def test_each_member_is_probed_by_the_one_before_it_every_other_time() -> None:
    roster = Roster(member("m"), random.Random(3))
    for name in "czqd":
        roster.put(member(name), 0.0)

    targets = [target.name for _ in range(16) if (target := roster.next_target())]

    assert targets[::2] == ["q"] * 8
    assert [sorted(targets[1:8:2]), sorted(targets[9::2])] == [sorted("czqd")] * 2


def test_a_member_of_urgent_interest_is_next() -> None:
    roster = Roster(member("a"), random.Random(3))
    for name in "bcdef":
        roster.put(member(name), 0.0)
    roster.hurry("e")

    target = roster.next_target()

    assert target is not None
    assert target.name == "e"


def test_the_dead_are_shown_with_their_age_and_forgotten_in_the_end() -> None:
    roster = Roster(member("a"), random.Random(0))
    roster.put(member("b", status=Status.DEAD), 10.0)
    roster.put(member("c", status=Status.LEFT, age_s=50), 10.0)

    ages = {row.name: row.age_s for row in roster.table(15.9)}
    roster.forget(0.0)

    assert ages == {"b": 5, "c": 55}
    assert list(roster.members) == ["a", "b"]


# --- frames -------------------------------------------------------------------------

ME = member("b", boot=2**63, incarnation=7)
UPDATES = (member("c", status=Status.SUSPECT, accusers=("d", "e")),)
FRAMES: list[Frame] = [
    Ping(2**64 - 1, ME, UPDATES, 3, "c"),
    Ack(7, ME, (), 3, Origin("c", 9)),
    PingRequest(7, ME, UPDATES, 3, Origin("c", 9)),
    Nack(7, ME, (), 3),
    Gossip(7, ME, UPDATES),
    Digest(7, ME, (), 2**64 - 1),
    Table(7, ME, UPDATES, True),
]
IDS = [type(frame).__name__ for frame in FRAMES]


@pytest.mark.parametrize("frame", FRAMES, ids=IDS)
def test_a_frame_comes_back_from_its_bytes(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@pytest.mark.parametrize("frame", FRAMES, ids=IDS)
def test_a_frame_that_is_cut_short_or_too_long_is_none(frame: Frame) -> None:
    content = encode(frame)
    for end in range(len(content)):
        with pytest.raises(FrameError):
            decode(content[:end])
    with pytest.raises(FrameError):
        decode(content + b"\x00")
    with pytest.raises(FrameError):
        decode(content.replace(ME.address.encode(), b"\xff" * len(ME.address)))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_frame(content: bytes) -> None:
    with pytest.raises(FrameError, match=r"^decode\(\d+ bytes\): "):
        decode(content)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(ME, address=""),
        replace(ME, address="x" * 256),
        replace(ME, incarnation=-1),
        replace(ME, incarnation=2**53),
        replace(ME, status=9),
        replace(ME, age_s=-1),
        replace(ME, accusers=("x" * 256,)),
        replace(ME, accusers=("x",) * 17),
    ],
)
def test_a_record_beyond_its_bounds_is_refused(wrong: Member) -> None:
    with pytest.raises(FrameError):
        decode(encode(Gossip(7, wrong, ())))


def test_a_ping_is_small() -> None:
    assert len(encode(Ping(2**60, member("ams-1", 2**60), (), 100, "ams-2"))) < 60
