"""Contexts, ranges and vectors beside plain sets of dots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr.crdt import CausalContext, HybridClock, Origin, VersionVector, seq_ranges
from atomr.crdt.hybrid_clock import milliseconds

if TYPE_CHECKING:
    from atomr.crdt.seq_ranges import Ranges

A, B = Origin("a", 1), Origin("b", 2**64 - 1)

seqs = st.sets(st.integers(1, 12))
dots = st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 8)), max_size=12)
vectors = st.dictionaries(st.sampled_from([A, B]), st.integers(0, 5))


def ranges_of(numbers: set[int]) -> Ranges:
    found: Ranges = ()
    for number in numbers:
        found = seq_ranges.union(found, ((number, number),))
    return found


def numbers_of(ranges: Ranges) -> set[int]:
    return {n for low, high in ranges for n in range(low, high + 1)}


def context_of(some: list[tuple[Origin, int]]) -> CausalContext:
    context = CausalContext()
    for origin, seq in some:
        context.add(origin, seq)
    return context


def dots_of(context: CausalContext) -> set[tuple[Origin, int]]:
    return {(o, n) for o, ranges in context.ranges() for n in numbers_of(ranges)}


@given(one=seqs, other=seqs)
def test_ranges_are_sets_of_numbers(one: set[int], other: set[int]) -> None:
    x, y = ranges_of(one), ranges_of(other)

    assert numbers_of(x) == one
    assert seq_ranges.union(x, y) == ranges_of(one | other)
    assert seq_ranges.without(x, sorted(other)) == ranges_of(one - other)
    assert {n for n in range(14) if seq_ranges.contains(x, n)} == one


@given(one=dots, other=dots)
def test_contexts_are_sets_of_dots(
    one: list[tuple[Origin, int]], other: list[tuple[Origin, int]]
) -> None:
    x, y = context_of(one), context_of(other)
    assert dots_of(x) == set(one)
    assert all(x.contains(o, n) == ((o, n) in one) for o in (A, B) for n in range(1, 9))
    before = x.copy()
    x.join(y)

    assert x == context_of([*reversed(other), *one])
    assert dots_of(before) == set(one)


@given(some=dots)
def test_trap_02_only_what_has_no_gap_below_is_in_the_vector(
    some: list[tuple[Origin, int]],
) -> None:
    context = context_of(some)
    for origin in (A, B):
        known = {seq for o, seq in some if o == origin}
        prefix = next(n for n in range(10) if n + 1 not in known)
        assert context.vector.get(origin, 0) == prefix
        assert origin not in context.cloud or min(context.cloud[origin])[0] > prefix + 1


def test_a_dot_that_is_taken_is_above_all_that_are_seen() -> None:
    context = context_of([(A, 1), (A, 5)])

    assert [context.take(A), context.take(A), context.take(B)] == [6, 7, 1]
    assert dots_of(context) == {(A, 1), (A, 5), (A, 6), (A, 7), (B, 1)}


@given(one=vectors, other=vectors)
def test_vectors_are_values_in_an_order(
    one: dict[Origin, int], other: dict[Origin, int]
) -> None:
    x, y = VersionVector(one), VersionVector(other)
    joined = x | y
    below = all(one.get(o, 0) <= other.get(o, 0) for o in (A, B))

    assert (x <= y) == below == (joined == y)
    assert {o: joined[o] for o in (A, B)} == {o: max(x[o], y[o]) for o in (A, B)}
    assert (x == y) == (x <= y <= x)
    assert x != y or hash(x) == hash(y)
    assert VersionVector(dict(x.pairs())) == x
    assert x.missing_from(y) == sum(max(0, x[o] - y[o]) for o in (A, B))


def test_a_vector_shows_its_origins_in_their_order() -> None:
    vector = VersionVector({B: 1, A: 2})

    assert repr(vector) == "VersionVector({a#1: 2, b#ffffffffffffffff: 1})"
    assert (len(vector), A in vector, vector.covers(A, 2)) == (2, True, True)
    assert (vector[Origin("c", 1)], vector.covers(A, 3)) == (0, False)
    assert vector != {A: 2}


@given(walls=st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_stamps_rise_whatever_the_walls_clock_does(walls: list[int]) -> None:
    clock = HybridClock()
    stamps = [clock.tick(wall) for wall in walls]

    assert stamps == sorted(set(stamps))
    assert milliseconds(stamps[-1]) >= max(walls)


@pytest.mark.parametrize(("ahead_ms", "adopted"), [(500, True), (501, False)])
def test_a_stamp_is_adopted_up_to_half_a_second_ahead(
    ahead_ms: int, adopted: bool
) -> None:
    clock = HybridClock()
    clock.tick(1_000)
    stamp = (1_000 + ahead_ms) << 16

    assert clock.witness(stamp, 1_000) is adopted
    assert (clock.tick(1_000) > stamp) is adopted
    assert clock.refused == (not adopted)
