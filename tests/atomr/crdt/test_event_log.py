"""The causal log, and the traps that others have fallen into."""

from __future__ import annotations

import gc
import inspect
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr.crdt import (
    Assembly,
    AWLWWMap,
    AWSet,
    Batch,
    BoundError,
    Delta,
    Dot,
    Event,
    EventLog,
    GCounter,
    LogTail,
    MalformedError,
    Origin,
    ORMap,
    OwnedMap,
    Replicated,
    Took,
    VersionVector,
    Waiting,
    event_log,
    replicated,
    snapshots,
)
from atomr.crdt.event_log import MAX_ORIGINS
from atomr.crdt.snapshots import Cell
from atomr.crdt.waiting import MAX_EARLY_ORIGINS
from atomr.crdt.wire import Entry, pack
from tests.at_length import times

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B, C = (Origin(name, 1) for name in "abc")
KINDS: tuple[type[Replicated], ...] = (AWLWWMap, AWSet, GCounter, ORMap, OwnedMap)


def made_up(number: int, *, seq: int = 1, key: str = "k") -> Event:
    """Return an event of an origin that nobody else knows."""
    dot = Dot(Origin(f"x{number}", 1), seq)
    return Event("aw_lww_map/m", key, dot, (), 1, pack("v"))


def many_made_up(first: int, last: int) -> Iterator[Event]:
    """Yield one of each of many origins; one key for all would be a cell of them."""
    return (made_up(number, key=f"k{number}") for number in range(first, last))


def whole(log: EventLog) -> Assembly:
    """Return a log's snapshot as who fetched it has it."""
    return Assembly.of_chunks(log.snapshot(chunk_bytes=100))


def sync(to: EventLog, from_: EventLog, batch: Batch | None = None) -> int:
    """Bring one log what it lacks, message by message; return how many."""
    for number in itertools.count(1):
        front = from_.diff(to.vector, batch or Batch())
        if front is None:
            to.adopt(whole(from_))
        else:
            to.receive(front.events)
            if not front.more:
                return number
    raise AssertionError


def assert_equal(*logs: EventLog) -> None:
    for log in logs[1:]:
        assert log.vector == logs[0].vector
        assert log.state_hash == logs[0].state_hash
        cells = {i: r.cells() for i, r in log.replicas().items() if r.cells()}
        assert cells == {
            i: r.cells() for i, r in logs[0].replicas().items() if r.cells()
        }


def check_hash(log: EventLog) -> None:
    """Assert that the hash kept is that of what is there."""
    for replica in log.replicas().values():
        fresh = Replicated.of("", live=dict(replica.cells()), seen=log.seen)
        fresh.crdt_id = replica.crdt_id
        assert replica.state_hash == fresh.state_hash


def test_writes_are_events_and_arrive() -> None:
    a, b = EventLog(A), EventLog(B)
    a.open(AWLWWMap, "m").put("k", 1)
    a.open(AWSet, "s").add("x")
    assert sync(b, a) == 1

    assert b.open(AWLWWMap, "m").value == {"k": 1}
    assert b.open(AWSet, "s").value == {"x"}
    assert b.vector == VersionVector({A: 2})
    assert_equal(a, b)


def test_a_replica_of_a_log_is_not_joined_behind_its_back() -> None:
    replica = EventLog(A).open(AWSet, "s")
    with pytest.raises(BoundError, match="'aw_set/s'"):
        replica.join(Delta())


def test_one_name_with_two_types_is_two() -> None:
    a, b = EventLog(A), EventLog(B)
    a.open(AWSet, "x").add("set")
    a.open(AWLWWMap, "x").put("map", 1)
    sync(b, a)

    assert b.open(AWSet, "x").value == {"set"}
    assert b.open(AWLWWMap, "x").value == {"map": 1}
    assert b.open(AWSet, "x") is b.open(AWSet, "x")


def test_a_type_that_is_not_known_here_is_kept_and_passed_on() -> None:
    a, b, c = EventLog(A), EventLog(B), EventLog(C)

    class Newer(AWLWWMap):
        KIND = "newer"
        __slots__ = ()

    a.open(Newer, "n").put("k", 1)
    sync(b, a)
    sync(c, b)

    assert c.open(Newer, "n").value == {"k": 1}
    assert_equal(a, b, c)


def events_of(log: EventLog) -> list[Event]:
    front = log.diff({})
    assert front is not None
    return list(front.events)


def test_trap_01_a_truncated_message_delays_and_loses_nothing() -> None:
    a, b = EventLog(A), EventLog(B)
    catalogue = a.open(AWLWWMap, "m")
    for n in range(10_000):
        catalogue.put(f"key{n}", n)
    assert sync(b, a, Batch(events=200)) == 50

    assert len(b.open(AWLWWMap, "m")) == len(catalogue) == 10_000
    assert_equal(a, b)


def test_trap_01_twenty_cuts_and_restarts_lose_nothing_either() -> None:
    draw = random.Random(65)
    a, b = EventLog(A), EventLog(B)
    catalogue = a.open(AWLWWMap, "m")
    for n in range(10_000):
        catalogue.put(f"key{n}", n)
    for boot in range(20):
        # A cut in the middle, then a new life that starts with nothing.
        for _ in range(draw.randrange(1, 50)):
            front = a.diff(b.vector, Batch(events=200))
            assert front is not None
            b.receive(front.events)
        if draw.random() < 0.5:
            b = EventLog(Origin("b", boot + 2))
        b.open(AWLWWMap, "m").put(f"extra{boot}", boot)
        sync(a, b, Batch(events=200))
    sync(b, a, Batch(events=200))

    assert len(a.open(AWLWWMap, "m")) == len(b.open(AWLWWMap, "m")) == 10_020
    assert_equal(a, b)


def test_trap_02_a_gap_is_not_closed_by_what_comes_after_it() -> None:
    a, b = EventLog(A), EventLog(B)
    for n in range(5):
        a.open(AWSet, "s").add(n)
    first, _, *others = events_of(a)
    took = b.receive([first, *others])

    assert took == Took(applied=(first,), held=3)
    assert b.vector == VersionVector({A: 1})
    sync(b, a)
    assert b.open(AWSet, "s").value == {0, 1, 2, 3, 4}


def test_trap_03_a_removal_that_overtakes_its_addition_waits_for_it() -> None:
    a, b, c = EventLog(A), EventLog(B), EventLog(C)
    a.open(AWSet, "s").add("x")
    sync(b, a)
    b.open(AWSet, "s").remove("x")
    removal = events_of(b)[-1]
    assert c.receive([removal]) == Took(held=1)
    addition = events_of(a)[0]
    assert c.receive([addition]) == Took(applied=(addition, removal))

    assert c.open(AWSet, "s").value == frozenset()
    assert c.waiting == 0
    assert_equal(b, c)


def test_trap_04_deltas_with_something_missing_between_are_not_merged() -> None:
    a, b = EventLog(A), EventLog(B)
    for n in range(60):
        a.open(AWLWWMap, "m").put("k", n)
    late = events_of(a)[30:]
    assert b.receive(late) == Took(held=30)

    assert b.open(AWLWWMap, "m").value == {}


def test_trap_05_a_restarted_nodes_events_are_not_taken_for_known_ones() -> None:
    peer, before = EventLog(C), EventLog(A)
    before.open(GCounter, "n").increment(5)
    sync(peer, before)
    after = EventLog(Origin("a", 2))
    after.open(GCounter, "n").increment(1)
    sync(peer, after)

    assert peer.open(GCounter, "n").value == 6


def test_trap_05_events_that_claim_to_be_our_own_are_refused() -> None:
    a, liar = EventLog(A), EventLog(A)
    liar.open(GCounter, "n").increment(100)
    assert a.receive(events_of(liar)) == Took(refused=1)
    with pytest.raises(MalformedError, match="that we did not make"):
        a.adopt(whole(liar))

    assert a.vector == VersionVector()


def test_trap_06_a_peer_that_is_older_than_the_log_gets_a_snapshot() -> None:
    a, b = EventLog(A, tail=LogTail(max_events=10)), EventLog(B)
    keys = a.open(AWSet, "s")
    for n in range(100):
        keys.add(n)
        keys.remove(n - 1)
    assert a.diff(b.vector) is None
    b.open(AWSet, "s").add("own")
    b.adopt(whole(a))

    assert b.open(AWSet, "s").value == {99, "own"}
    assert b.vector == VersionVector({A: 199, B: 1})
    check_hash(b)
    sync(a, b)
    assert_equal(a, b)


@pytest.mark.parametrize("bound", [{"max_events": 10}, {"max_bytes": 1_000}])
def test_trap_07_the_log_is_bounded_whoever_is_away(bound: dict[str, int]) -> None:
    a = EventLog(A, tail=LogTail(**bound))
    for n in range(1_000):
        a.open(AWLWWMap, "m").put("k", n)

    assert 5 < len(a.tail) <= 12
    assert a.tail.bytes <= 1_100
    assert a.tail.base == {A: 1_000 - len(a.tail)}


def test_trap_07_early_events_are_bounded_and_come_again() -> None:
    a, b = EventLog(A), EventLog(B, waiting=Waiting(max_early=10))
    for n in range(100):
        a.open(AWSet, "s").add(n)
    _, *late = events_of(a)
    took = b.receive(late)

    assert (took.held, took.dropped, b.waiting) == (9, 90, 9)
    assert b.receive(late[:5]) == Took(known=5)
    sync(b, a)
    assert_equal(a, b)
    assert b.waiting == 0


def test_trap_08_a_departed_nodes_entry_leaves_the_vector_and_its_counts_stay() -> None:
    a, b = EventLog(A), EventLog(B)
    b.open(GCounter, "n").increment(5)
    b.open(OwnedMap, "members").put("group", "b:1")
    b.open(AWLWWMap, "m").put("k", "by b")
    sync(a, b)
    assert not a.retire(B)
    a.bury(B)
    assert not a.retire(B)  # its value in the map lives
    a.open(AWLWWMap, "m").put("k", "by a")
    assert a.retire(B)

    assert a.vector == VersionVector({A: 3})
    assert a.retired == {B: 3}
    assert a.open(GCounter, "n").value == 5
    assert a.open(OwnedMap, "members").value == {}
    assert a.open(AWLWWMap, "m").value == {"k": "by a"}
    newcomer = EventLog(C)
    sync(newcomer, a)
    assert_equal(a, newcomer)


def test_trap_09_what_a_retired_node_had_comes_back_by_no_road() -> None:
    a, b, old = EventLog(A), EventLog(B), EventLog(C)
    b.open(AWSet, "s").add("x")
    sync(a, b)
    sync(old, b)
    a.open(AWSet, "s").remove("x")
    assert a.retire(B)
    by_events = a.receive(events_of(old))
    a.adopt(whole(old))

    assert by_events == Took(known=1)
    assert a.open(AWSet, "s").value == frozenset()
    b.open(AWSet, "s").add("y")
    assert a.receive(events_of(b)[1:]) == Took(refused=1)


def test_trap_10_a_stamp_from_far_ahead_is_not_adopted() -> None:
    a, b = EventLog(A), EventLog(B)
    a.open(AWLWWMap, "m").put("k", 1, now_ms=3_600_000)
    b.open(AWLWWMap, "m")
    b.receive(events_of(a), now_ms=1_000)

    assert (b.clock.refused, b.clock.stamp) == (1, 0)
    assert b.open(AWLWWMap, "m")["k"] == 1
    b.open(AWLWWMap, "m").put("k", 2, now_ms=1_000)
    sync(a, b)
    assert a.open(AWLWWMap, "m")["k"] == 2


def test_trap_12_keys_that_are_gone_take_no_room() -> None:
    a = EventLog(A, tail=LogTail(max_events=1))
    b = EventLog(B)
    for n in range(1_000):
        a.open(AWLWWMap, "m").put(n, n)
        a.open(AWLWWMap, "m").remove(n)
    chunks = a.snapshot()

    assert sum(len(chunk.cells) for chunk in chunks) == 0
    assert len(pack(chunks)) < 60
    b.adopt(whole(a))
    assert_equal(a, b)


def test_trap_13_equal_states_have_equal_bytes_however_they_came_about() -> None:
    a, b = EventLog(A), EventLog(B)
    for n in range(20):
        a.open(AWLWWMap, "m").put(n, {"z": 1, "a": {"y": 2, "b": 3}})
    for n in reversed(range(10, 30)):
        b.open(AWLWWMap, "m").put(n, {"a": {"b": 3, "y": 2}, "z": 1})
    sync(a, b)
    sync(b, a)

    assert a.open(AWLWWMap, "m").encode() == b.open(AWLWWMap, "m").encode()
    assert pack({"z": 1, "a": 2}) == pack({"a": 2, "z": 1})


def test_trap_19_nothing_in_a_join_can_wait() -> None:
    for module in (event_log, replicated, snapshots):
        for _, code in inspect.getmembers(module, inspect.isclass):
            waits = inspect.getmembers(code, inspect.iscoroutinefunction)
            assert waits == []


def test_trap_21_what_there_is_many_of_is_not_tracked_by_the_collector() -> None:
    a = EventLog(A)
    a.open(AWLWWMap, "m").put("k", 1)
    [event] = events_of(a)
    [entry] = a.open(AWLWWMap, "m").cells()["k"]

    assert [gc.is_tracked(x) for x in (event, event.dot, A, entry)] == [False] * 4


def test_equal_vectors_with_unequal_entries_are_told_and_repaired() -> None:
    a, b = EventLog(A), EventLog(B)
    a.open(AWSet, "s").add("x")
    a.open(AWSet, "s").add("y")
    sync(b, a)
    assert not b.diverges(a.vector, a.state_hash)
    # A bug that loses an entry, and nothing of the vector.
    b.open(AWSet, "s").apply(
        Event("aw_set/s", "x", Dot(A, 9), kills=(Dot(A, 1),), body=None)
    )
    assert b.diverges(a.vector, a.state_hash)
    assert not b.diverges(VersionVector(), a.state_hash)
    differs = a.open(AWSet, "s").marks().items() - b.open(AWSet, "s").marks().items()
    assert [key for key, _ in differs] == ["x"]

    a.adopt(whole(b))
    b.adopt(whole(a))
    assert_equal(a, b)


def test_a_dot_with_two_values_comes_to_one_on_all_nodes() -> None:
    a, b = EventLog(A), EventLog(B)
    forged = [
        Event("aw_lww_map/m", "k", Dot(C, 1), (), 1, pack(value)) for value in (1, 2)
    ]
    a.receive(forged[:1])
    b.receive(forged[1:])
    assert a.diverges(b.vector, b.state_hash)
    a.adopt(whole(b))
    b.adopt(whole(a))

    assert_equal(a, b)
    check_hash(a)


def test_a_snapshot_is_joined_with_its_last_chunk_and_never_before() -> None:
    a, b = EventLog(A, tail=LogTail(max_events=1)), EventLog(B)
    for n in range(50):
        a.open(AWLWWMap, "m").put(n, "x" * 100)
    chunks = a.snapshot(chunk_bytes=1_000)
    assembly = Assembly(chunks[0])
    order = [3, 0, *range(len(chunks) - 1, 0, -1)]
    are_whole = [assembly.add(chunks[number]) for number in order]

    assert len(chunks) == 8
    assert are_whole == [False] * 8 + [True]
    with pytest.raises(MalformedError, match="a part of it is not there"):
        b.adopt(Assembly.of_chunks(chunks[:-1]))
    assert (b.vector, len(b.replicas())) == (VersionVector(), 0)
    b.adopt(assembly)
    assert_equal(a, b)
    check_hash(b)


def test_of_a_snapshot_what_is_the_same_here_is_not_held_twice() -> None:
    a, b = EventLog(A), EventLog(B)
    theirs, ours = a.open(AWLWWMap, "m"), b.open(AWLWWMap, "m")
    for key in ("same", "written here", "written there"):
        theirs.put(key, 1)
    b.adopt(whole(a))
    theirs.put("written there", 2)
    [chunk] = a.snapshot()
    assembly = Assembly(chunk, ours=b.replicas())
    assembly.add(chunk)
    [cells], [marks] = assembly.cells.values(), assembly.marks.values()

    assert list(marks) == ["written there"]
    assert all((cells[key] is ours.cells()[key]) == (key not in marks) for key in cells)
    ours.put("written here", 3)
    b.adopt(assembly)
    assert dict(ours.items()) == {"same": 1, "written here": 3, "written there": 2}
    a.adopt(whole(b))
    assert_equal(a, b)
    check_hash(b)


def test_chunks_of_two_instants_are_no_snapshot() -> None:
    a = EventLog(A)
    for n in range(10):
        a.open(AWSet, "s").add(n)
    old = a.snapshot(chunk_bytes=200)
    a.open(AWSet, "s").add(0)
    new = a.snapshot(chunk_bytes=200)
    with pytest.raises(MalformedError, match="not of one instant"):
        Assembly.of_chunks([old[0], *new[1:]])


def test_a_snapshot_that_holds_what_it_has_not_seen_is_refused() -> None:
    a = EventLog(A)
    a.open(AWSet, "s").add("x")
    [chunk] = a.snapshot()
    lying = type(chunk)(0, 1, (), (), chunk.cells)
    with pytest.raises(MalformedError, match="held and not seen"):
        Assembly.of_chunks([lying])


NO_VALUES = {
    "a tag that is none": b"\xc1",
    "text that is none": b"\xa1\x80",
    "cut": b"\xa2a",
    "deep": b"\x91" * 100_000,
}


@pytest.mark.parametrize("body", NO_VALUES.values(), ids=NO_VALUES)
def test_an_event_whose_value_is_no_value_stops_its_origin_only(body: bytes) -> None:
    b = EventLog(B)
    bad = Event("aw_lww_map/m", "k", Dot(A, 1), (), 1, body)
    good = Event("aw_lww_map/m", "k", Dot(C, 1), (), 1, pack("v"))
    took = b.receive([bad, good])

    assert (took.refused, took.applied) == (1, (good,))
    assert b.vector == VersionVector({C: 1})


@pytest.mark.parametrize("body", NO_VALUES.values(), ids=NO_VALUES)
def test_a_snapshot_with_a_value_that_is_none_is_refused(body: bytes) -> None:
    a = EventLog(A)
    a.open(AWLWWMap, "m").put("k", 1)
    [chunk] = a.snapshot()
    [cell] = chunk.cells
    [entry] = cell.entries
    bad = Cell(cell.crdt, cell.key, (Entry(entry.dot, entry.stamp, body),))
    with pytest.raises(MalformedError):
        Assembly.of_chunks([type(chunk)(0, 1, chunk.vector, (), (bad,))])


def test_a_message_that_waited_and_comes_again_counts_once() -> None:
    a, b = EventLog(A), EventLog(B)
    counter = a.open(GCounter, "n")
    counter.increment(1)
    counter.increment(1)
    one, two = events_of(a)
    for events in ([two], [two], [one, two], [one]):
        b.receive(events)

    assert b.open(GCounter, "n").value == 2


Step = tuple[int, int, int, int]


def run(steps: list[Step], tail: int) -> list[EventLog]:
    """Let three logs write, and exchange cut, doubled and shuffled messages."""
    logs = [
        EventLog(o, tail=LogTail(max_events=tail), waiting=Waiting(max_early=4))
        for o in (A, B, C)
    ]
    in_flight: list[Any] = []
    for what, at, n, other in steps:
        log = logs[at]
        if what == 0:
            log.open(AWSet, "s").add(n % 3)
        elif what == 1:
            log.open(AWSet, "s").remove(n % 3)
        elif what == 2:
            log.open(AWLWWMap, "m").put(n % 2, n)
        elif what == 3:
            log.open(ORMap, "o").remove("k")
            log.open(ORMap, "o").field("k", AWSet).add(n)
        elif what == 4:
            log.open(GCounter, "c").increment(n)
        elif in_flight and what == 5:
            # Whatever was under way to whomever arrives, and stays under way.
            log.receive(in_flight[n % len(in_flight)])
        else:
            front = log.diff(logs[other].vector, Batch(events=1 + n % 3))
            if front is None:
                logs[other].adopt(whole(log))
            else:
                in_flight.append(front.events[n % 2 :])
                logs[other].receive(front.events)
        check_hash(log)
    return logs


step = st.tuples(
    st.integers(0, 7), st.integers(0, 2), st.integers(0, 5), st.integers(0, 2)
)


def check_convergence(steps: list[Step], tail: int) -> None:
    logs = run(steps, tail)
    for _ in range(2):
        for to, from_ in itertools.permutations(logs, 2):
            sync(to, from_, Batch(events=2))

    assert_equal(*logs)
    # What it all comes to is the join of what each wrote.
    total = sum(n for what, _, n, _ in steps if what == 4)
    assert logs[0].open(GCounter, "c").value == total


@given(steps=st.lists(step, max_size=30), tail=st.integers(2, 30))
@settings(max_examples=200)
def test_logs_become_equal_whatever_is_cut_doubled_and_shuffled(
    steps: list[Step], tail: int
) -> None:
    check_convergence(steps, tail)


@pytest.mark.slow
@given(steps=st.lists(step, max_size=60), tail=st.integers(2, 60))
@settings(max_examples=times(400))
def test_logs_become_equal_in_many_histories(steps: list[Step], tail: int) -> None:
    check_convergence(steps, tail)


# --- origins that a peer makes up -----------------------------------------------------


def test_a_snapshot_that_knows_more_of_a_retired_origin_changes_nothing() -> None:
    one, other = EventLog(A), EventLog(B)
    one.receive([made_up(0), made_up(0, seq=2)])
    other.receive([made_up(0)])
    other.open(AWLWWMap, "m").remove("k")
    assert other.retire(Origin("x0", 1))
    before = dict(other.vector)
    with pytest.raises(MalformedError, match="more of a retired origin"):
        other.adopt(whole(one))
    assert dict(other.vector) == before
    assert "k" not in other.open(AWLWWMap, "m")
    # What it holds is what it has seen: others take its snapshot.
    EventLog(C).adopt(whole(other))


def test_there_is_an_end_to_the_origins_that_a_peer_can_make_up() -> None:
    log = EventLog(A)
    took = log.receive(many_made_up(0, MAX_ORIGINS + 100))
    assert (len(took.applied), took.refused) == (MAX_ORIGINS, 100)
    assert len(log.vector) == MAX_ORIGINS
    # What is known goes on, and so do our own.
    assert len(log.receive([made_up(0, seq=2)]).applied) == 1
    log.open(AWLWWMap, "m").put("own", 1)
    assert log.written == 1
    assert len(log.vector) == MAX_ORIGINS + 1


def test_there_is_an_end_to_the_origins_of_events_that_wait() -> None:
    log = EventLog(A)
    took = log.receive(made_up(n, seq=2) for n in range(MAX_EARLY_ORIGINS + 100))
    assert (took.held, took.dropped) == (MAX_EARLY_ORIGINS, 100)
    assert log.waiting == MAX_EARLY_ORIGINS


def test_a_snapshot_of_made_up_origins_is_refused_and_changes_nothing() -> None:
    one, other = EventLog(A), EventLog(B)
    one.receive(many_made_up(0, MAX_ORIGINS))
    other.receive(many_made_up(-200, 0))
    before = dict(other.vector)
    with pytest.raises(MalformedError, match="more than 4096 origins"):
        other.adopt(whole(one))
    assert dict(other.vector) == before
