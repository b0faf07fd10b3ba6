"""The laws of a lattice, for each type, on states, deltas and parts of both.

The examples are histories of three replicas with few keys, so that most have
conflicts.  `make test` runs some of each; the slow tests run many more.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr.crdt import Delta, Replicated
from tests.at_length import times
from tests.atomr.crdt.histories import SPECIFIED, TYPES, World, shown, specified, steps

FEW = settings(max_examples=15)
# Beside those, as `make test` has drawn others.
MANY = settings(max_examples=times(85))

types = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)


def pieces(world: World) -> list[Any]:
    """Return states, deltas, diffs and irreducible parts of a history."""
    found: list[Any] = [r.copy() for r in world.replicas]
    found += [done.delta for done in world.done if done.delta]
    for replica in world.replicas:
        for other in world.replicas:
            found.append(replica.diff(other.seen.as_vector()))
        found += replica.decompose()
    return found


def as_state(kind: type[Replicated], piece: Any) -> Any:
    """Return a piece as a state of its own."""
    return kind() | piece


def check_semilattice(kind: type[Replicated], data: st.DataObject) -> None:
    found = pieces(World.new(kind).run(data.draw(steps(kind))))
    piece = st.sampled_from(found)
    a, b, c = (data.draw(piece) for _ in range(3))
    x, y = as_state(kind, a), as_state(kind, b)

    assert x | b == y | a
    assert (x | b) | c == x | (y | c)
    assert x | a == x
    assert x <= x | b


def check_deltas_equal_states(kind: type[Replicated], data: st.DataObject) -> None:
    world = World.new(kind).run(data.draw(steps(kind)))
    deltas = [done.delta for done in world.done]
    by_deltas, by_states = kind(), kind()
    for delta in data.draw(st.permutations(deltas)):
        by_deltas.join(delta)
    for replica in data.draw(st.permutations(world.replicas)):
        by_states.join(replica)

    assert by_deltas == by_states
    assert by_deltas.state_hash == by_states.state_hash
    assert shown(by_deltas) == shown(by_states)


def check_decompose_rejoins(kind: type[Replicated], data: st.DataObject) -> None:
    world = World.new(kind).run(data.draw(steps(kind)))
    state = data.draw(st.sampled_from(world.replicas))
    parts = list(state.decompose())
    rejoined = kind()
    for part in data.draw(st.permutations(parts)):
        rejoined.join(part)

    assert rejoined == state
    for part in parts:
        assert list(part.decompose()) == [part]


def check_diff_completes(kind: type[Replicated], data: st.DataObject) -> None:
    world = World.new(kind).run(data.draw(steps(kind)))
    one, other = world.replicas[:2]
    diff = one.diff(other.seen.as_vector())

    assert other | diff == other | one
    for key, cell in diff.cells().items():
        for entry in cell:
            assert entry not in other.cells().get(key, ())


def check_encoding(kind: type[Replicated], data: st.DataObject) -> None:
    world = World.new(kind).run(data.draw(steps(kind)))
    for piece in pieces(world):
        encoded = piece.encode()
        decoded = (Delta if isinstance(piece, Delta) else kind).decode(encoded)
        assert decoded == piece
        assert decoded.encode() == encoded
    world.settle()
    assert len({replica.encode() for replica in world.replicas}) == 1
    assert len({replica.state_hash for replica in world.replicas}) == 1


def check_specification(kind: type[Replicated], data: st.DataObject) -> None:
    world = World.new(kind).run(data.draw(steps(kind)))
    for replica, known in zip(world.replicas, world.known, strict=True):
        expected = specified(kind, list(known.values()))
        if kind.__name__ == "LWWRegister" and expected:
            assert shown(replica) <= expected
            assert shown(replica)
        else:
            assert shown(replica) == expected
    world.settle()
    assert shown(world.replicas[0]) == shown(world.replicas[1])
    assert shown(world.replicas[0]) == shown(world.replicas[2])


LAWS = [
    check_semilattice,
    check_deltas_equal_states,
    check_decompose_rejoins,
    check_diff_completes,
    check_encoding,
]


@types
@given(data=st.data())
@FEW
def test_join_is_commutative_associative_and_idempotent(
    kind: type[Replicated], data: st.DataObject
) -> None:
    check_semilattice(kind, data)


@types
@given(data=st.data())
@FEW
def test_deltas_in_any_order_make_the_same_state_as_whole_states(
    kind: type[Replicated], data: st.DataObject
) -> None:
    check_deltas_equal_states(kind, data)


@types
@given(data=st.data())
@FEW
def test_a_state_is_the_join_of_what_it_decomposes_to(
    kind: type[Replicated], data: st.DataObject
) -> None:
    check_decompose_rejoins(kind, data)


@types
@given(data=st.data())
@FEW
def test_a_diff_brings_whoever_has_the_vector_to_the_state(
    kind: type[Replicated], data: st.DataObject
) -> None:
    check_diff_completes(kind, data)


@types
@given(data=st.data())
@FEW
def test_equal_states_have_equal_bytes_and_hashes_and_decode_to_themselves(
    kind: type[Replicated], data: st.DataObject
) -> None:
    check_encoding(kind, data)


@pytest.mark.parametrize("kind", SPECIFIED, ids=lambda kind: kind.__name__)
@given(data=st.data())
@FEW
def test_a_replica_shows_what_the_writes_it_knows_of_should_come_to(
    kind: type[Replicated], data: st.DataObject
) -> None:
    check_specification(kind, data)


@pytest.mark.slow
@types
@pytest.mark.parametrize("check", LAWS, ids=lambda check: check.__name__[6:])
def test_the_laws_hold_in_many_histories(kind: type[Replicated], check: Any) -> None:
    @given(data=st.data())
    @MANY
    def run(data: st.DataObject) -> None:
        check(kind, data)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECIFIED, ids=lambda kind: kind.__name__)
def test_the_specification_holds_in_many_histories(kind: type[Replicated]) -> None:
    @given(data=st.data())
    @MANY
    def run(data: st.DataObject) -> None:
        check_specification(kind, data)

    run()
