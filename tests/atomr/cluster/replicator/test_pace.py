"""When a replicator is woken, without a clock and without a loop."""

from __future__ import annotations

import random

import pytest

from atomr.cluster.replicator import ReplicatorOptions
from atomr.cluster.replicator.core import Core
from atomr.cluster.replicator.facts import Tell
from atomr.cluster.replicator.frames import Carried, Hello, Overview, lives_of
from atomr.cluster.replicator.pace import NEVER, TICK_S, Pace
from atomr.crdt import AWLWWMap, Origin
from atomr.gossip.replication import Digest, Push

PUSH_S = 0.002


class Cores:
    """Replicators whose messages arrive at once."""

    def __init__(self, names: str, *, shards: int = 1, **more: int) -> None:
        self.now_s = 100.0
        self.woken = 0
        self.heard: list[tuple[str, str, object]] = []
        numbers = iter(range(1, 10_000))
        options = ReplicatorOptions(shards=shards, **more)  # type: ignore[arg-type]
        self.cores = {
            name: Core(
                Origin(name, 1),
                options,
                draw=random.Random(at),
                new_boot=lambda: next(numbers),
                now_s=self.now_s,
            )
            for at, name in enumerate(names)
        }
        for one in self.cores.values():
            for other in self.cores.values():
                if one is not other:
                    one.peer_up(other.node, self.now_s)
        self.move()

    def move(self) -> None:
        moved = True
        while moved:
            moved = False
            for name, core in self.cores.items():
                for out in core.take():
                    assert isinstance(out, Tell), out
                    moved = True
                    self.heard.append((name, out.to.name, out.message))
                    self.cores[out.to.name].receive(
                        core.node, out.message, now_s=self.now_s, now_ms=0
                    )

    def run(self, for_s: float) -> None:
        end_s = self.now_s + for_s
        while True:
            name = min(self.cores, key=lambda n: self.cores[n].next_deadline_s)
            at_s = self.cores[name].next_deadline_s
            if at_s > end_s:
                self.now_s = end_s
                return
            assert at_s >= self.now_s - TICK_S
            self.now_s = max(self.now_s, at_s)
            self.cores[name].wake(self.now_s)
            self.woken += 1
            self.move()

    def put(self, name: str, key: str) -> None:
        core = self.cores[name]
        shard = core.shard_of("m", key)
        shard.open(AWLWWMap, "m").put(key, 1, now_ms=1)
        core.wrote(shard, self.now_s)


def test_replicators_that_agree_are_woken_some_times_in_ten_seconds() -> None:
    cores = Cores("abcde", shards=32)
    for number in range(200):
        cores.put("abcde"[number % 5], f"k{number}")
    cores.run(10.0)
    assert len({core.shards[0].log.state_hash for core in cores.cores.values()}) == 1
    cores.woken, cores.heard = 0, []
    cores.run(60.0)
    # Each five seconds, and when it says what it knows.
    assert cores.woken <= 5 * (60 / 5 + 60 / 10 + 2)
    assert {type(message) for _, _, message in cores.heard} == {Overview}


def test_a_write_is_pushed_in_time_though_a_round_comes_between() -> None:
    cores = Cores("ab")
    cores.run(4.0)
    cores.put("a", "k")
    core, written_s = cores.cores["a"], cores.now_s
    assert core.next_deadline_s == pytest.approx(written_s + PUSH_S)
    core.shards[0].machine.round_at_s = cores.now_s = written_s + PUSH_S / 2
    core.wake(cores.now_s)
    assert core.next_deadline_s == pytest.approx(written_s + PUSH_S)
    cores.heard = []
    cores.run(2 * PUSH_S)
    pushes = [m for _, _, m in cores.heard if isinstance(m, Carried)]
    assert any(isinstance(message.frame, Push) for message in pushes)


def test_writes_of_one_turn_go_out_together_however_long_it_takes() -> None:
    cores = Cores("ab")
    cores.run(4.0)
    for number in range(10):
        cores.put("a", f"k{number}")
        cores.now_s += PUSH_S
    a = cores.cores["a"]
    assert a.take() == []
    assert a.next_deadline_s < cores.now_s
    cores.heard = []
    cores.run(PUSH_S / 2)
    [push] = [
        message.frame
        for _, _, message in cores.heard
        if isinstance(message, Carried) and isinstance(message.frame, Push)
    ]
    assert [event.key for event in push.events] == [
        f"k{number}" for number in range(10)
    ]


def test_a_peer_that_holds_something_else_is_told_what_we_know() -> None:
    cores = Cores("ab", shards=2)
    cores.put("a", "k")
    cores.run(4.0)
    a, b = cores.cores.values()
    shard = a.shard_of("m", "k")
    cores.heard = []
    marks = [each.mark for each in b.shards]
    marks[shard.number] += 1
    lives = lives_of(each.origin for each in b.shards)
    a.receive(b.node, Overview(lives, tuple(marks)), now_s=cores.now_s, now_ms=0)
    cores.move()
    name, to, carried = cores.heard[0]
    assert (name, to) == ("a", "b")
    assert isinstance(carried, Carried)
    assert isinstance(carried.frame, Digest)
    assert not carried.frame.is_answer
    # It knows the same, and says so.
    assert [(n, t) for n, t, _ in cores.heard] == [("a", "b"), ("b", "a")]


def test_an_overview_of_another_life_or_length_asks_for_a_hello() -> None:
    cores = Cores("ab", shards=2)
    cores.run(4.0)
    a, b = cores.cores.values()
    marks = tuple(shard.mark for shard in b.shards)
    lives = lives_of(shard.origin for shard in b.shards)
    for bad in (Overview(lives + 1, marks), Overview(lives, marks[:1])):
        cores.now_s += 2.0
        cores.heard = []
        a.receive(b.node, bad, now_s=cores.now_s, now_ms=0)
        cores.move()
        assert [type(message) for _, _, message in cores.heard] == [Hello, Hello]
    assert a.dropped == 2


def test_a_frame_of_an_earlier_life_of_a_log_is_dropped_and_a_hello_asked_for() -> None:
    cores = Cores("ab")
    cores.run(4.0)
    a, b = cores.cores.values()
    log = b.shards[0].log
    digest = Digest(((Origin("x", 1), 7),), (), 0, is_answer=False)
    cores.heard = []
    late = Carried(0, log.origin.boot - 1, digest)
    a.receive(b.node, late, now_s=cores.now_s, now_ms=0)
    cores.move()
    assert a.dropped == 1
    assert [type(message) for _, _, message in cores.heard] == [Hello, Hello]
    # Of the present one it is taken: it knows more, and is asked.
    cores.heard = []
    a.receive(b.node, Carried(0, log.origin.boot, digest), now_s=cores.now_s, now_ms=0)
    assert a.dropped == 1
    assert len(a.take()) == 1


def test_overviews_of_one_peer_are_looked_at_now_and_then() -> None:
    cores = Cores("ab", shards=2)
    cores.run(4.0)
    a, b = cores.cores.values()
    lives = lives_of(shard.origin for shard in b.shards)
    cores.heard = []
    for _ in range(10):
        a.receive(b.node, Overview(lives, (1, 2)), now_s=cores.now_s, now_ms=0)
    assert len(a.take()) == 2


@pytest.mark.parametrize(
    "bound", [{"max_log_events": 40}, {"max_log_bytes": 4 * 700}], ids=str
)
def test_what_all_shards_keep_for_peers_is_bounded_and_others_get_snapshots(
    bound: dict[str, int],
) -> None:
    cores = Cores("ab", shards=4, **bound)
    b = cores.cores["b"]
    cores.cores["a"].peer_down(b.node, cores.now_s)
    for number in range(400):
        cores.put("a", f"k{number}")
    kept = [len(shard.log.tail) for shard in cores.cores["a"].shards]
    assert max(kept) <= 10
    assert 0 < sum(kept) <= 40
    cores.cores["a"].peer_up(b.node, cores.now_s)
    cores.run(3.0)
    found = [len(shard.open(AWLWWMap, "m")) for shard in b.shards]
    assert sum(found) == 400


def test_wakings_are_at_ticks_and_later_than_now() -> None:
    pace = Pace(10.0)
    assert pace.due_at_s == 10.0
    pace.woken(10.0, round_at_s=12.0, push_at_s=NEVER)
    assert pace.due_at_s == pytest.approx(12.025)
    pace.round_by(12.02)
    assert pace.due_at_s == pytest.approx(12.025)
    pace.round_by(11.0)
    assert pace.due_at_s == pytest.approx(11.025)
    pace.push_by(10.002)
    assert pace.due_at_s == 10.002
    for _ in range(1_000):
        now_s = pace.due_at_s
        # A round that is due by a hair is not late twice at the same time.
        pace.woken(now_s, round_at_s=now_s, push_at_s=NEVER)
        assert pace.due_at_s > now_s


def test_who_is_woken_late_puts_its_rounds_off_for_a_while() -> None:
    pace = Pace(10.0)
    assert pace.put_off_s(10.009) == 0.0
    pace.woken(10.009, round_at_s=11.0, push_at_s=NEVER)
    late_s = 2.0
    now_s = pace.due_at_s + late_s + 0.01
    assert pace.put_off_s(now_s) == pytest.approx(2 * late_s)
    pace.woken(now_s, round_at_s=now_s + 1.0, push_at_s=NEVER)
    assert pace.put_off_s(now_s + 1.0) == pytest.approx(2 * (late_s - 0.5))
    pace.woken(now_s + 1.0, round_at_s=now_s + 10.0, push_at_s=NEVER)
    assert pace.put_off_s(now_s + 4.0) == 0.0
    pace.woken(now_s + 4.0, round_at_s=now_s + 5.0, push_at_s=NEVER)
    assert pace.put_off_s(now_s + 60.0) == 5.0


def test_who_stood_for_an_hour_is_in_time_again_after_some_seconds() -> None:
    pace = Pace(10.0)
    pace.woken(10.0, round_at_s=11.0, push_at_s=NEVER)
    now_s = 10.0 + 3600.0
    assert pace.put_off_s(now_s) == 5.0
    pace.woken(now_s, round_at_s=now_s + 5.0, push_at_s=NEVER)
    assert pace.put_off_s(now_s + 5.0) == 0.0


def test_a_node_whose_loop_is_late_asks_the_more_seldom() -> None:
    asked = []
    for late_s in (0.0, 1.0):
        cores = Cores("abc")
        a = cores.cores["a"]
        cores.run(3.0)
        cores.heard.clear()
        end_s = cores.now_s + 8.0
        while cores.now_s < end_s:
            a.shards[0].open(AWLWWMap, "m").put("k", cores.now_s)
            a.wrote(a.shards[0], cores.now_s)
            cores.now_s = a.next_deadline_s + late_s
            a.wake(cores.now_s)
            cores.move()
        asked.append(
            sum(
                isinstance(message, Carried)
                and isinstance(message.frame, Digest)
                and not message.frame.is_answer
                for name, _, message in cores.heard
                if name == "a"
            )
        )
    in_time, late = asked
    assert 0 < late < in_time / 10
