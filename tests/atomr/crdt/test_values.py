"""What each type shows in the cases that its page names."""

from __future__ import annotations

from typing import Any

import pytest

from atomr.crdt import (
    AWLWWMap,
    AWSet,
    BadKeyError,
    BoundedCounter,
    BoundError,
    Delta,
    DifferentCrdtError,
    DWFlag,
    GCounter,
    InsufficientRightsError,
    LWWRegister,
    MalformedError,
    NoOriginError,
    Origin,
    ORMap,
    OwnedMap,
    PNCounter,
    RWSet,
    ValueSizeError,
    WindowedGCounter,
)
from atomr.crdt.hybrid_clock import milliseconds

A, B = Origin("a", 1), Origin("b", 1)


def exchange(*replicas: Any) -> None:
    for one in replicas:
        for other in replicas:
            if one is not other:
                one.join(other)


def test_a_map_of_two_replicas_needs_three_lines() -> None:
    here, there = AWLWWMap(A), AWLWWMap(B)
    there.join(here.put("colour", "red"))
    assert there["colour"] == "red"


def test_an_overwrite_wins_over_what_it_has_seen_whatever_the_clocks_say() -> None:
    a, b = AWLWWMap(A), AWLWWMap(B)
    b.join(a.put("k", "old", now_ms=2_000_000_000_000))
    a.join(b.put("k", "new", now_ms=1_000))

    assert (a["k"], b["k"]) == ("new", "new")
    assert b.clock.refused == 1
    assert milliseconds(b.clock.stamp) == 1_000


def test_of_concurrent_puts_the_later_stamp_wins_and_both_are_conflicts() -> None:
    a, b = AWLWWMap(A), AWLWWMap(B)
    a.put("k", "late", now_ms=2_000)
    b.put("k", "early", now_ms=1_000)
    exchange(a, b)

    assert (a["k"], b["k"]) == ("late", "late")
    assert a.conflicts("k") == ("late", "early")
    b.join(a.put("k", "both read"))
    assert b.conflicts("k") == ("both read",)


def test_a_value_is_a_copy_that_nobody_can_change() -> None:
    a = AWLWWMap(A)
    value = {"hosts": ["x"]}
    a.put("k", value)
    value["hosts"].append("y")
    a["k"]["hosts"].append("z")

    assert a["k"] == {"hosts": ["x"]}


def test_a_removed_key_leaves_nothing_behind() -> None:
    a = AWLWWMap(A)
    for n in range(1_000):
        a.put(n, n)
        a.remove(n)

    assert a.cells() == {}
    assert len(a.encode()) < 40


@pytest.mark.parametrize(
    "key", [True, 1.0, None, b"x", ["x"], ("x", ("y",)), 2**64, "\ud800", "k" * 1025]
)
def test_a_key_that_others_would_read_otherwise_is_refused(key: Any) -> None:
    a = AWLWWMap(A)
    with pytest.raises(BadKeyError):
        a.put(key, 1)

    assert (a.cells(), a.seen.vector) == ({}, {})


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800"])
def test_a_value_that_cannot_be_sent_changes_nothing(value: object) -> None:
    a = AWLWWMap(A)
    with pytest.raises((TypeError, OverflowError, UnicodeEncodeError)):
        a.put("k", value)

    assert (a.cells(), a.seen.vector) == ({}, {})


def test_a_value_that_no_frame_can_carry_is_refused() -> None:
    a = AWLWWMap(A)
    with pytest.raises(ValueSizeError, match="a value of 131077 bytes"):
        a.put("k", "x" * 131_072)

    assert (a.cells(), a.seen.vector) == ({}, {})
    assert a.put("k", "x" * 131_000)


def test_a_delta_of_another_value_is_refused_whole() -> None:
    one, other = AWSet(A, name="one"), AWSet(B, name="other")
    mixed = one.add("x") + other.add("y")
    target = AWSet(name="one")
    with pytest.raises(DifferentCrdtError, match=r"'aw_set/one'.*'aw_set/other'"):
        target.join(mixed)
    with pytest.raises(DifferentCrdtError):
        target.join(other)

    assert target == AWSet(name="one")


def test_trap_15_the_type_is_a_part_of_the_id() -> None:
    with pytest.raises(DifferentCrdtError):
        RWSet().join(AWSet(A).add("x"))
    with pytest.raises(DifferentCrdtError):
        RWSet.decode(AWSet(A).encode())


def test_trap_14_a_map_has_no_counters_in_it() -> None:
    a: Any = ORMap(A)
    for kind in (GCounter, PNCounter, BoundedCounter, WindowedGCounter, ORMap):
        with pytest.raises(TypeError, match=f"field of {kind.__name__}: expected one"):
            a.field("k", kind)


def test_trap_05_a_restarted_node_counts_on_under_another_boot_id() -> None:
    before, peer = GCounter(Origin("a", 1)), GCounter(B)
    for _ in range(3):
        peer.join(before.increment(10))
    after = GCounter(Origin("a", 2))
    peer.join(after.increment(1))
    after.join(peer)

    assert (peer.value, after.value) == (31, 31)


def test_trap_10_stamps_never_run_backwards_and_far_ones_are_refused() -> None:
    a = LWWRegister(A)
    stamps = [
        a.assign(n, now_ms=now).events[0].stamp for n, now in enumerate((9, 5, 9, 10))
    ]

    assert stamps == sorted(set(stamps))
    assert a.clock.witness((510 << 16) + 7, now_ms=10)
    assert not a.clock.witness((511 << 16) + 7, now_ms=10)
    assert (a.clock.refused, a.clock.stamp) == (1, (510 << 16) + 7)


def test_a_fragment_cannot_be_written_to() -> None:
    with pytest.raises(NoOriginError, match="'aw_set/x'"):
        AWSet(name="x").add(1)


def test_a_field_is_joined_with_its_map_only() -> None:
    field = ORMap(A).field("k", AWSet)
    with pytest.raises(BoundError):
        field.join(AWSet(B).add(1))


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        (b"", "Input data was truncated"),
        (b"\xff", "Expected `array`"),
        (b"\x91" * 5_000, "Expected|truncated|depth"),
    ],
)
def test_bytes_that_are_no_state_are_refused(encoded: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        AWSet.decode(encoded)
    with pytest.raises(MalformedError, match=problem):
        Delta.decode(encoded)


def test_text_that_is_none_is_refused() -> None:
    a = AWLWWMap(A)
    delta = a.put("text", 1)
    with pytest.raises(MalformedError, match=r"(?i)utf-8"):
        AWLWWMap.decode(a.encode().replace(b"text", b"\xff" * 4))
    with pytest.raises(MalformedError, match=r"(?i)utf-8"):
        Delta.decode(delta.encode().replace(b"text", b"\xff" * 4))


def test_a_state_cut_anywhere_is_refused() -> None:
    a = AWLWWMap(A)
    a.put("k", 1)
    encoded = a.encode()
    for length in range(len(encoded)):
        with pytest.raises(MalformedError):
            AWLWWMap.decode(encoded[:length])


def test_windows_count_their_seconds_and_old_seconds_go() -> None:
    a, b = WindowedGCounter(A), WindowedGCounter(B)
    for second in range(10):
        b.join(a.add(2, now_s=100 + second, keep_s=4))
        a.join(b.add(1, now_s=100 + second, keep_s=4))

    assert a.value(now_s=109.9, window_s=2) == 6
    assert a.value(now_s=109, window_s=3) == 9
    assert len(a.cells()) == 8


def test_a_flag_that_was_never_set_is_off() -> None:
    assert DWFlag(A).value is False


def test_owners_write_their_own_and_hidden_ones_are_left_out() -> None:
    a, b = OwnedMap(A), OwnedMap(B)
    a.put("svc", "a:1")
    b.put("svc", "b:1")
    exchange(a, b)
    a.join(b.remove("svc") + b.put("svc", "b:2"))

    assert a.value == {"svc": {A: "a:1", B: "b:2"}}
    assert a.owners("svc", hidden={B}) == (A,)
    assert list(a.items(hidden={A})) == [("svc", B, "b:2")]
    assert (a.get("svc", B), b.get("gone", A, "none")) == ("b:2", "none")
    b.join(a.remove("svc"))
    assert b.value == {"svc": {B: "b:2"}}


def test_a_dead_owners_entries_are_dropped_and_its_counts_are_kept() -> None:
    owned, counter = OwnedMap(A), GCounter(A)
    owned.join(OwnedMap(B).put("svc", 1))
    counter.join(GCounter(B).increment(5))
    counter.increment(2)

    assert len(owned.bury(B).events) == len(counter.bury(B).events) == 1
    assert (owned.value, counter.value) == ({}, 7)
    for replica in (owned, counter):
        dots = {e.dot.origin for cell in replica.cells().values() for e in cell}
        assert B not in dots


def test_two_nodes_that_bury_the_same_counts_do_not_double_them() -> None:
    a, b, dead = PNCounter(A), PNCounter(B), PNCounter(Origin("d", 1))
    delta = dead.increment(5) + dead.decrement(2)
    a.join(delta)
    b.join(delta)
    a.bury(dead.origin)  # type: ignore[arg-type]
    b.bury(dead.origin)  # type: ignore[arg-type]
    exchange(a, b)

    assert (a.value, b.value) == (3, 3)


def test_a_ledger_cannot_spend_or_move_what_it_does_not_hold() -> None:
    a = BoundedCounter(A)
    a.mint("a", 10)
    a.move("a", "b", amount=4)
    before = a.encode()
    with pytest.raises(InsufficientRightsError, match="wanted 7 units, holds 6"):
        a.spend("a", 7)
    with pytest.raises(InsufficientRightsError, match="wanted 7 units, holds 6"):
        a.move("a", "b", amount=7)
    with pytest.raises(InsufficientRightsError, match="wanted 1 units, holds 0"):
        a.spend("stranger", 1)
    assert a.encode() == before

    assert (a.rights("a"), a.rights("b"), a.remaining, a.value) == (6, 4, 10, 0)
    assert (a.minted("a"), a.moved("a", "b"), a.moved("a", "a")) == (10, 4, 0)
    assert a.ledgers() == ("a", "b")


def test_a_ledger_goes_on_after_a_restart_where_it_was() -> None:
    before, peer = BoundedCounter(A), BoundedCounter(B)
    peer.join(before.mint("a", 10) + before.spend("a", 4))
    after = BoundedCounter(Origin("a", 2))
    after.join(peer)
    peer.join(after.spend("a", 6))

    assert (peer.value, peer.remaining, peer.spent("a")) == (10, 0, 10)


@pytest.mark.parametrize("amount", [-1, 1.5, True, "1"])
def test_an_amount_is_a_whole_number_from_0(amount: Any) -> None:
    for write in (
        GCounter(A).increment,
        PNCounter(A).decrement,
        lambda n: BoundedCounter(A).mint("a", n),
        lambda n: WindowedGCounter(A).add(n, now_s=1),
    ):
        with pytest.raises((TypeError, ValueError), match="amount="):
            write(amount)


def test_a_peers_keys_of_another_shape_count_nothing_and_break_nothing() -> None:
    odd: Any
    for kind in (PNCounter, WindowedGCounter, BoundedCounter, ORMap):
        odd = kind(A)
        odd._write("odd")
        odd._write(("odd",))
        odd._write((1, 2, "odd", 4))
        if isinstance(odd, WindowedGCounter):
            assert odd.value(now_s=1, window_s=1) == 0
            odd.add(1, now_s=5)
        else:
            assert odd.value in (0, {})
