"""Replication step by step, where the simulator would not say what went wrong."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from atomr.crdt import (
    AWLWWMap,
    AWSet,
    Dot,
    EventLog,
    LogTail,
    MalformedError,
    Origin,
    OwnedMap,
    VersionVector,
)
from atomr.crdt import Event as LogEvent
from atomr.gossip.replication import (
    Applied,
    AskSnapshot,
    Digest,
    Diverged,
    Effect,
    Event,
    Events,
    Frame,
    Gone,
    Joined,
    MustReset,
    PeerDown,
    PeerUp,
    Push,
    Quorum,
    Received,
    Replication,
    ReplicationOptions,
    Reset,
    Retired,
    Send,
    SnapshotPart,
    Suspicious,
    Woke,
    Wrote,
    decode,
    encode,
)
from atomr.gossip.replication.retiring import MAX_RETIRED
from atomr.testing.simulation import Quality, Simulation, check
from tests.atomr.gossip.replication_bars import heal_s, idle, propagation_s, traffic
from tests.atomr.gossip.replication_scenarios import SCENARIOS
from tests.atomr.gossip.replication_world import (
    World,
    add_nodes,
    are_equal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

DAY_S = 86_400.0

FORGED = LogEvent("aw_set/s", "x", Dot(Origin("a", 1), 1), (), 0, b"")


class Lab:
    """Replicators whose frames arrive at once, unless the test keeps them."""

    def __init__(
        self,
        names: str,
        *,
        tail: int = 1_000,
        options: ReplicationOptions | None = None,
    ) -> None:
        self.now_s = 0.0
        self.facts: list[tuple[str, Effect]] = []
        self.frames: list[tuple[str, str, Frame]] = []
        self.lost: set[type[Any]] = set()
        self.tail = tail
        self.options = options or ReplicationOptions()
        self.machines: dict[str, Replication] = {}
        for name in names:
            self.boot(name)

    def boot(self, name: str, boot: int = 1) -> Replication:
        log = EventLog(Origin(name, boot), tail=LogTail(max_events=self.tail))
        machine = Replication(
            log, draw=random.Random(7), now_s=self.now_s, options=self.options
        )
        self.machines[name] = machine
        return machine

    def log(self, name: str) -> EventLog:
        return self.machines[name].log

    def put(self, name: str, key: str | int, value: object = 1) -> None:
        self.log(name).open(AWLWWMap, "m").put(key, value)
        self.do(name, Wrote())

    def meet(self, *names: str) -> None:
        for one in names or self.machines:
            for other in names or self.machines:
                self.do(one, PeerUp(self.log(other).origin))

    def do(self, name: str, event: Event) -> None:
        """Let it happen, and all that follows from it at once."""
        queue = deque(self.step(name, event))
        while queue:
            to, event = queue.popleft()
            queue += self.step(to, event)

    def step(self, name: str, event: Event) -> Iterable[tuple[str, Event]]:
        machine = self.machines[name]
        for effect in machine.handle(event, self.now_s):
            if not isinstance(effect, Send):
                self.facts.append((name, effect))
                continue
            frame = decode(encode(effect.frame))
            assert frame == effect.frame
            self.frames.append((name, effect.to.name, frame))
            target = self.machines.get(effect.to.name)
            if target is None or target.log.origin != effect.to:
                continue
            if type(frame) not in self.lost:
                yield effect.to.name, Received(machine.log.origin, frame)

    def run(self, for_s: float) -> None:
        """Let time pass, and wake whoever wants to be."""
        end_s = self.now_s + for_s
        while True:
            name, machine = min(
                self.machines.items(), key=lambda item: item[1].next_deadline_s
            )
            if machine.next_deadline_s > end_s:
                break
            self.now_s = max(self.now_s, machine.next_deadline_s)
            self.do(name, Woke())
        self.now_s = end_s

    def sent(self, kind: type[Any]) -> list[tuple[str, str]]:
        return [(from_, to) for from_, to, f in self.frames if isinstance(f, kind)]

    def assert_equal(self) -> None:
        logs = [machine.log for machine in self.machines.values()]
        assert len({log.vector for log in logs}) == 1
        assert len({log.state_hash for log in logs}) == 1


# --- pushes -------------------------------------------------------------------------


def test_what_is_written_together_is_pushed_together_to_all() -> None:
    lab = Lab("abc")
    lab.meet()
    lab.frames.clear()
    lab.put("a", "k")
    lab.put("a", "l")
    lab.run(0.006)

    pushes = [(to, f) for _, to, f in lab.frames if isinstance(f, Push)]
    assert [(to, len(push.events)) for to, push in pushes] == [("b", 2), ("c", 2)]
    lab.assert_equal()


def test_of_more_than_sixteen_peers_three_get_a_push() -> None:
    lab = Lab("abcdefghijklmnopqr")
    lab.meet()
    lab.put("a", "k")
    lab.run(0.006)
    assert len(set(lab.sent(Push))) == 3
    lab.run(2.0)

    lab.assert_equal()


def test_nobody_pushes_what_is_not_his_own() -> None:
    lab = Lab("ab")
    lab.meet()
    lab.put("a", "k")
    lab.run(0.5)

    assert lab.sent(Push) == [("a", "b")]


def test_applied_events_are_told_in_their_order() -> None:
    lab = Lab("ab")
    lab.meet()
    lab.put("a", "k")
    lab.put("a", "l")
    lab.run(0.006)

    [(name, applied)] = lab.facts
    assert (name, type(applied)) == ("b", Applied)
    assert [event.key for event in applied.events] == ["k", "l"]  # type: ignore[union-attr]


def test_a_megabyte_is_pushed_and_asked_for_in_frames_of_their_size() -> None:
    lab = Lab("ab")
    lab.meet()
    for n in range(20):
        lab.put("a", n, "x" * 100_000)
    lab.run(2.0)

    assert max(len(encode(frame)) for _, _, frame in lab.frames) < 200_000
    lab.assert_equal()


# --- rounds -------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [Push, Events])
def test_what_a_lost_frame_carried_comes_with_a_later_round(lost: type[Any]) -> None:
    lab = Lab("ab")
    lab.meet()
    lab.lost = {lost}
    lab.put("a", "k")
    lab.run(0.5)
    lab.lost = set()
    lab.run(0.5)

    lab.assert_equal()
    assert lab.log("b").open(AWLWWMap, "m").value == {"k": 1}


def test_news_are_told_by_four_rounds_that_come_sooner_and_then_it_is_quiet() -> None:
    lab = Lab("abc")
    lab.meet()
    lab.run(5.0)
    lab.frames.clear()
    lab.put("a", "k")
    lab.run(0.25)
    news = lab.sent(Digest)
    lab.frames.clear()
    lab.run(10.0)

    # Three nodes, each to two others, each 50 ms for 200 ms; then each 200 ms.
    assert 18 <= len(news) <= 30
    assert 280 <= len(lab.sent(Digest)) <= 340


def test_a_digest_is_not_answered_with_what_a_push_carries_just_now() -> None:
    lab = Lab("ab")
    lab.meet()
    lab.lost = {Push}
    lab.put("a", "k")
    lab.run(0.006)
    digest = Digest((), (), 0, is_answer=True)
    asked = Received(lab.log("b").origin, digest)
    assert lab.machines["a"].handle(asked, lab.now_s) == []
    lab.now_s += 0.051

    answer = [
        effect.frame
        for effect in lab.machines["a"].handle(asked, lab.now_s)
        if isinstance(effect, Send) and not isinstance(effect.frame, Digest)
    ]
    assert [type(frame) for frame in answer] == [Events]


def test_who_lacks_much_gets_it_batch_by_batch_without_waiting_for_rounds() -> None:
    lab = Lab("a", options=ReplicationOptions(batch_events=100))
    for n in range(1_000):
        lab.put("a", n)
    lab.run(1.0)
    lab.boot("b")
    lab.meet()

    assert len(lab.sent(Events)) == 10
    lab.assert_equal()


def test_trap_07_dead_peers_cost_nothing() -> None:
    lab = Lab("ab")
    lab.meet()
    lab.do("a", PeerDown(lab.log("b").origin))
    del lab.machines["b"]
    lab.frames.clear()
    for n in range(100):
        lab.put("a", n)
    lab.run(5.0)

    assert lab.frames == []


def test_trap_11_a_restarted_node_gets_what_it_lacks_from_one_peer() -> None:
    lab = Lab("abcde", tail=10)
    lab.meet()
    for n in range(100):
        lab.put("a", n)
        lab.run(0.01)
    lab.run(1.0)
    lab.frames.clear()
    lab.boot("e", boot=2)
    lab.meet()
    # All four say at once that they know more.
    lab.run(0.05)

    parts = [(from_, f) for from_, _, f in lab.frames if isinstance(f, SnapshotPart)]
    assert len({from_ for from_, _ in parts}) == 1
    lab.run(1.0)
    lab.assert_equal()
    assert len(lab.sent(SnapshotPart)) == 1
    assert lab.sent(Events) == []


def test_a_peers_earlier_life_is_no_peer_any_more() -> None:
    lab = Lab("ab")
    lab.meet()
    lab.boot("b", boot=2)
    lab.do("a", PeerUp(Origin("b", 2)))

    assert list(lab.machines["a"].peers) == [Origin("b", 2)]


# --- snapshots ----------------------------------------------------------------------

PARTS = ReplicationOptions(chunk_bytes=200)


def with_snapshot_under_way(lost: set[type[Any]]) -> Lab:
    """Return a lab in which b lacks more than a's log holds."""
    lab = Lab("a", tail=10, options=PARTS)
    for n in range(50):
        lab.put("a", n)
    lab.run(1.0)
    lab.boot("b")
    lab.lost = lost
    lab.meet()
    return lab


def test_a_snapshot_is_fetched_part_by_part() -> None:
    lab = with_snapshot_under_way(set())

    parts = [f.chunk.number for _, _, f in lab.frames if isinstance(f, SnapshotPart)]
    assert parts == list(range(11))
    assert [type(fact) for _, fact in lab.facts] == [Joined]
    lab.assert_equal()


def test_a_part_that_is_lost_is_asked_for_again_and_nothing_shows_before() -> None:
    lab = with_snapshot_under_way({AskSnapshot})
    assert lab.log("b").vector == VersionVector()
    assert len(lab.log("b").replicas()) == 0
    lab.lost = set()
    lab.run(1.5)

    lab.assert_equal()


def test_a_sender_that_dies_in_the_middle_is_given_up_for_another() -> None:
    lab = with_snapshot_under_way({AskSnapshot})
    lab.boot("c")
    del lab.machines["b"]
    lab.lost = set()
    lab.meet()
    lab.assert_equal()
    b = lab.boot("b")
    lab.lost = {AskSnapshot}
    lab.meet("a", "b")
    lab.do("b", PeerDown(lab.log("a").origin))
    lab.lost = set()
    lab.meet("b", "c")
    lab.run(1.0)

    assert b.log.vector == lab.log("c").vector


def test_a_sender_that_hangs_is_given_up_after_some_tries() -> None:
    lab = with_snapshot_under_way({AskSnapshot})
    lab.frames.clear()
    lab.run(30.0)

    # A part and two questions a second: nobody is flooded, whoever hangs.
    assert len(lab.sent(AskSnapshot)) <= 60
    assert len(lab.sent(SnapshotPart)) <= 30


def test_a_peer_that_takes_seconds_for_each_part_comes_to_an_end() -> None:
    lab = with_snapshot_under_way({AskSnapshot, SnapshotPart})
    asked_by_b: deque[tuple[float, Frame]] = deque()
    a, b = lab.machines["a"], lab.machines["b"]
    sent = 0
    for step in range(1_000):
        lab.now_s = 10.0 + step / 10
        for effect in b.handle(Woke(), lab.now_s):
            if isinstance(effect, Send):
                asked_by_b.append((lab.now_s, effect.frame))
        # All that b says is as old as it is slow.
        while asked_by_b and asked_by_b[0][0] <= lab.now_s - 3.0:
            _, frame = asked_by_b.popleft()
            for effect in a.handle(Received(b.log.origin, frame), lab.now_s):
                if not isinstance(effect, Send):
                    continue
                sent += isinstance(effect.frame, SnapshotPart)
                follows = b.handle(Received(a.log.origin, effect.frame), lab.now_s)
                asked_by_b.extend(
                    (lab.now_s, each.frame)
                    for each in follows
                    if isinstance(each, Send)
                )
        if b.log.vector == a.log.vector:
            break
    assert b.log.vector == a.log.vector
    assert lab.now_s < 50.0
    # Eleven parts, and less than three times each.
    assert sent < 33


def test_a_snapshot_is_not_kept_for_a_peer_that_is_gone_or_asks_no_more() -> None:
    lab = with_snapshot_under_way({AskSnapshot})
    a = lab.machines["a"]
    assert len(a._outgoing) == 1
    a.handle(PeerDown(Origin("b", 1)), lab.now_s)
    assert len(a._outgoing) == 0

    lab = with_snapshot_under_way({AskSnapshot})
    del lab.machines["b"]
    lab.run(40.0)
    assert len(lab.machines["a"]._outgoing) == 0


def test_what_was_written_while_a_snapshot_was_under_way_is_not_lost() -> None:
    lab = with_snapshot_under_way({AskSnapshot})
    lab.put("a", "late")
    lab.log("a").open(AWLWWMap, "m").remove(3)
    lab.put("b", "own")
    lab.lost = set()
    lab.run(3.0)

    lab.assert_equal()
    assert {"late", "own"} <= set(lab.log("b").open(AWLWWMap, "m"))
    assert 3 not in lab.log("b").open(AWLWWMap, "m")


# --- what only a bug or a liar sends ------------------------------------------------


def test_equal_vectors_with_unequal_hashes_are_told_and_repaired() -> None:
    lab = Lab("ab")
    lab.meet()
    lab.log("a").open(AWSet, "s").add("x")
    lab.put("a", "k")
    lab.run(0.5)
    # A bug that loses an entry, and nothing of the vector.
    lab.log("b").open(AWSet, "s").apply(
        LogEvent("aw_set/s", "x", Dot(Origin("a", 1), 9), (Dot(Origin("a", 1), 1),))
    )
    lab.facts.clear()
    lab.run(1.0)

    assert Diverged in {type(fact) for _, fact in lab.facts}
    lab.assert_equal()
    lab.facts.clear()
    lab.run(1.0)
    assert lab.facts == []


def test_a_peer_with_our_own_origin_is_not_believed() -> None:
    lab = Lab("a")
    a = lab.machines["a"]
    [fact] = a.handle(Received(a.log.origin, Push(())), 0.0)

    assert fact == Suspicious(a.log.origin, "it has our name and boot id")


def test_events_that_claim_to_be_ours_are_refused_and_told() -> None:
    lab = Lab("ab")
    peer = lab.log("b").origin
    [fact] = lab.machines["a"].handle(Received(peer, Push((FORGED,))), 0.0)

    assert fact == Suspicious(peer, "refused 1 of its events")


def test_a_snapshot_that_contradicts_itself_is_dropped_and_told() -> None:
    lab = with_snapshot_under_way({AskSnapshot})
    frames = [f for _, _, f in lab.frames if isinstance(f, SnapshotPart)]
    b, peer = lab.machines["b"], lab.log("a").origin
    wrong = msgspec.structs.replace(frames[0].chunk, number=99)
    [fact] = b.handle(Received(peer, SnapshotPart(frames[0].snapshot, wrong)), 1.0)

    assert fact == Suspicious(peer, "decode a snapshot: chunk 99 of 11")
    lab.lost = set()
    lab.run(2.0)
    lab.assert_equal()


def test_questions_for_parts_that_there_are_not_are_not_answered() -> None:
    lab = with_snapshot_under_way({AskSnapshot})
    a, peer = lab.machines["a"], lab.log("b").origin
    for frame in (AskSnapshot(1, 99), AskSnapshot(99, 0)):
        assert a.handle(Received(peer, frame), 0.0) == []
    assert a.handle(Received(Origin("x", 1), AskSnapshot(1, 0)), 0.0) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"\x91\x63",
        b"\x92\x01\x91\x00",
        encode(Push((FORGED,))).replace(b"aw_set", b"\xff" * 6),
        b"\x91" * 100_000,
        b"\xdd\xff\xff",
    ],
)
def test_bytes_that_are_no_frame_are_refused(content: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(content)


def test_a_frame_cut_anywhere_is_refused() -> None:
    lab = Lab("a")
    lab.put("a", "k")
    content = encode(Push(lab.log("a").diff({}).events))  # type: ignore[union-attr]
    for length in range(len(content)):
        with pytest.raises(MalformedError):
            decode(content[:length])


# --- origins that are gone ----------------------------------------------------------


def with_a_dead_node() -> tuple[Lab, Origin]:
    lab = Lab("abc")
    lab.meet()
    lab.log("c").open(OwnedMap, "members").put("all", "c")
    lab.put("c", "k")
    lab.run(1.0)
    lab.put("a", "k", "over it")
    lab.run(1.0)
    dead = lab.log("c").origin
    del lab.machines["c"]
    for name in "ab":
        lab.do(name, PeerDown(dead))
    return lab, dead


def test_trap_08_a_dead_origin_leaves_all_vectors() -> None:
    lab, dead = with_a_dead_node()
    for name in "ab":
        lab.do(name, Gone(dead))
    lab.run(5.0)

    retired = [(name, fact) for name, fact in lab.facts if isinstance(fact, Retired)]
    assert sorted(retired) == [("a", Retired(dead)), ("b", Retired(dead))]
    assert dead not in lab.log("a").vector
    assert lab.log("b").open(OwnedMap, "members").value == {}
    lab.assert_equal()


def test_one_who_was_not_told_learns_of_it_from_a_digest() -> None:
    lab, dead = with_a_dead_node()
    lab.do("a", Gone(dead))
    lab.run(5.0)

    assert lab.log("a").retired == lab.log("b").retired == {dead: 2}


def test_one_that_is_there_again_before_it_was_retired_stays() -> None:
    lab = Lab("abc")
    lab.meet()
    back = lab.log("c").origin
    lab.put("c", "k")
    lab.run(0.3)
    for name in "ab":
        lab.do(name, PeerDown(back))
        lab.do(name, Gone(back))
    lab.run(3.0)
    for name in "ab":
        lab.do(name, PeerUp(back))
    lab.put("a", "k", "nothing of it lives now")
    lab.run(5.0)

    assert not any(isinstance(fact, Retired | MustReset) for _, fact in lab.facts)
    assert all(log.vector[back] == 1 for log in map(lab.log, "abc"))


def test_nothing_is_retired_without_a_majority() -> None:
    lab, dead = with_a_dead_node()
    for name in "ab":
        lab.do(name, Quorum(is_held=False))
        lab.do(name, Gone(dead))
    lab.run(5.0)
    assert dead in lab.log("a").vector
    for name in "ab":
        lab.do(name, Quorum(is_held=True))
    lab.run(5.0)

    assert dead not in lab.log("a").vector


def test_trap_09_a_retired_node_that_comes_back_is_told_to_reset() -> None:
    lab, dead = with_a_dead_node()
    for name in "ab":
        lab.do(name, Gone(dead))
    lab.run(5.0)
    back = lab.boot("c")
    back.log.open(AWLWWMap, "m").put("stale", 1)
    lab.facts.clear()
    lab.meet()
    lab.run(1.0)

    assert ("c", MustReset(lab.log("a").origin)) in lab.facts
    assert "stale" not in lab.log("a").open(AWLWWMap, "m")


def test_one_that_knows_more_of_a_retired_origin_is_told_to_reset() -> None:
    lab, dead = with_a_dead_node()
    for name in "ab":
        lab.do(name, Gone(dead))
    lab.run(5.0)
    digest = Digest(((dead, 99),), (), 0, is_answer=False)
    [send] = lab.machines["a"].handle(Received(Origin("d", 1), digest), lab.now_s)

    assert send == Send(Origin("d", 1), Reset(Origin("d", 1)))


def test_a_snapshot_of_one_that_knows_more_is_answered_by_a_reset() -> None:
    lab, dead = with_a_dead_node()
    for name in "ab":
        lab.do(name, Gone(dead))
    lab.run(5.0)
    d = EventLog(Origin("d", 1))
    for seq in range(1, 4):
        d.receive(
            [LogEvent("aw_lww_map/m", f"d{seq}", Dot(dead, seq), (), seq, b"\x01")]
        )
    (chunk,) = d.snapshot()
    part = SnapshotPart(1, chunk)
    sent = lab.machines["a"].handle(Received(Origin("d", 1), part), lab.now_s)

    assert sent == [Send(Origin("d", 1), Reset(Origin("d", 1)))]
    assert "d3" not in lab.log("a").open(AWLWWMap, "m")


def test_nobody_is_retired_while_another_node_is_away_for_a_moment() -> None:
    lab = Lab("abcd", options=ReplicationOptions(away_s=60.0))
    lab.meet()
    lab.put("d", "d")
    lab.log("c").open(OwnedMap, "members").put("all", "c")
    lab.do("c", Wrote())
    lab.run(1.0)
    dead, away = lab.log("c").origin, lab.log("d").origin
    machine = lab.machines.pop("d")
    del lab.machines["c"]
    for name in "ab":
        lab.do(name, PeerDown(dead))
        lab.do(name, PeerDown(away))
        lab.do(name, Gone(dead))
    lab.run(30.0)
    assert dead in lab.log("a").vector
    # It is back: what it knows counts, and then there is nothing to wait for.
    lab.machines["d"] = machine
    lab.meet()
    lab.do("d", Gone(dead))
    lab.run(5.0)
    assert not any(dead in log.vector for log in map(lab.log, "abd"))
    assert not any(isinstance(fact, MustReset) for _, fact in lab.facts)


def test_who_is_away_for_long_is_waited_for_no_more() -> None:
    lab = Lab("abcd", options=ReplicationOptions(away_s=60.0))
    lab.meet()
    lab.put("d", "d")
    lab.log("c").open(OwnedMap, "members").put("all", "c")
    lab.do("c", Wrote())
    lab.run(1.0)
    dead, away = lab.log("c").origin, lab.log("d").origin
    for name in "cd":
        del lab.machines[name]
    for name in "ab":
        lab.do(name, PeerDown(dead))
        lab.do(name, PeerDown(away))
        lab.do(name, Gone(dead))
    lab.run(59.0)
    assert dead in lab.log("a").vector
    lab.run(5.0)
    assert dead not in lab.log("a").vector


def test_a_retired_origin_is_forgotten_after_a_week() -> None:
    lab, dead = with_a_dead_node()
    for name in "ab":
        lab.do(name, Gone(dead))
    lab.run(5.0)
    lab.now_s += 7 * DAY_S
    lab.run(5.0)

    assert lab.log("a").retired == lab.log("b").retired == {}


def test_the_latest_of_many_retired_origins_are_remembered() -> None:
    lab = Lab("a")
    lives = [Origin("c", boot) for boot in range(MAX_RETIRED + 50)]
    for life in lives:
        lab.log("a").receive([LogEvent("aw_set/s", "x", Dot(life, 1), (), 0, None)])
        lab.do("a", Gone(life))
    lab.run(5.0)

    assert list(lab.log("a").retired) == lives[50:]
    assert list(lab.log("a").vector) == []


def test_what_a_peer_says_to_have_retired_is_remembered_if_it_was_known() -> None:
    lab = Lab("ab")
    lab.meet()
    made_up = tuple((Origin("x", boot), 0) for boot in range(100))
    digest = Digest((), made_up, 0, is_answer=True)
    lab.do("a", Received(lab.log("b").origin, digest))
    lab.run(5.0)

    assert lab.log("a").retired == {}


def test_nobody_believes_that_a_peer_is_gone() -> None:
    lab = Lab("abc")
    lab.meet()
    lab.put("c", "k")
    lab.run(0.3)
    lab.put("a", "k", "nothing of it lives now")
    lab.run(0.3)
    peer = lab.log("c").origin
    says = Digest(lab.log("b").vector.pairs(), ((peer, 1),), 0, is_answer=True)
    lab.do("a", Received(lab.log("b").origin, says))
    lab.run(5.0)

    assert not any(isinstance(fact, Retired | MustReset) for _, fact in lab.facts)
    assert lab.log("a").vector[peer] == 1


def test_one_without_a_majority_for_a_week_must_reset_before_it_says_anything() -> None:
    lab = Lab("ab")
    lab.put("a", "k")
    lab.do("a", Quorum(is_held=False))
    lab.now_s += 7 * DAY_S + 1.0
    lab.do("a", Quorum(is_held=True))
    event = Received(lab.log("b").origin, Digest((), (), 0, is_answer=False))

    assert MustReset(lab.log("a").origin) in lab.machines["a"].handle(event, lab.now_s)


# --- figures and runs ---------------------------------------------------------------


@pytest.mark.parametrize(("per_s", "most"), [(200, 1.05), (2_000, 1.3)])
def test_events_come_once_and_seldom_twice(per_s: int, most: float) -> None:
    assert traffic(5, per_s, 11).copies <= most


def test_an_idle_node_sends_less_than_two_kilobytes_a_second() -> None:
    assert idle(5, 1)[0] <= 2_000.0


@pytest.mark.slow
def test_one_of_sixty_four_idle_nodes_sends_less_than_fifteen() -> None:
    assert idle(64, 1)[0] <= 15_000.0


def test_two_thousand_keys_that_differ_are_equal_seconds_after_a_split() -> None:
    assert heal_s(12, differing=2_000, split_s=20.0) <= 5.0


@pytest.mark.slow
def test_ten_thousand_keys_that_differ_are_equal_seconds_after_ten_minutes() -> None:
    assert heal_s(12) <= 5.0


def test_half_of_all_messages_lost_delays_and_loses_nothing() -> None:
    simulation = Simulation(13)
    add_nodes(simulation, World(), 5)
    simulation.start()
    simulation.set_quality(Quality(loss=0.5, duplicate=0.2, reorder=0.3, reorder_s=0.5))
    for n in range(50):
        name = simulation.random.choice(simulation.names)
        simulation.node(name).log.open(AWLWWMap, "m").put(n, n)
    simulation.run_until(lambda: are_equal(simulation), within_s=20.0)

    assert len(simulation.node("n3").log.open(AWLWWMap, "m")) == 50


@pytest.mark.slow
def test_sixteen_nodes_have_a_write_in_time_though_a_fifth_of_all_is_lost() -> None:
    took_s = sorted(propagation_s(16, 0.2, 1))

    assert took_s[int(0.95 * len(took_s))] <= 0.35


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_replicas_become_equal_whatever_goes_wrong(scenario: Any) -> None:
    assert check(scenario, range(25)) >= 25
