"""Replicators on nodes with real links."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from atomr import telemetry
from atomr.cluster.replicator import (
    ABSENT,
    Changed,
    NotReplicatingError,
    Replicator,
    ReplicatorOptions,
)
from atomr.cluster.replicator.facts import Alarm, Tell
from atomr.cluster.replicator.frames import Carried, Hello
from atomr.crdt import (
    AWLWWMap,
    BadKeyError,
    Dot,
    Event,
    GCounter,
    Origin,
    PNCounter,
)
from atomr.errors import short
from atomr.gossip.replication import (
    Diverged,
    Events,
    Push,
    ReplicationOptions,
    SnapshotPart,
    Suspicious,
)
from tests.atomr.cluster.replicator.lab import open_lab
from tests.atomr.http2.conftest import Authority, until

LATER = "snapshot part"


def rests(replicator: Replicator, key: str) -> bool:
    """Return whether the shard of a key has found that all hold the same."""
    shard = replicator.running().core.shard_of("m", key)
    return shard.machine.round_at_s > trio.current_time() + 0.3


def knows(replicator: Replicator, name: str) -> bool:
    """Return whether a node's hello has come."""
    neighbour = replicator.running().core.neighbours.get(name)
    return neighbour is not None and neighbour.logs is not None


async def test_what_is_put_on_one_node_is_read_on_the_others(
    authority: Authority,
) -> None:
    replicators = {name: Replicator() for name in "abc"}
    maps = {name: r.open_map("catalogue") for name, r in replicators.items()}
    async with open_lab(authority) as lab:
        for name, replicator in replicators.items():
            await lab.start(name, replicator)
        await lab.link("a", "b", "c")
        maps["a"].put("tiny", {"port": 1})
        maps["b"].put("large", [1, None])
        await until(lambda: all(len(m) == 2 for m in maps.values()))
        assert [m.value for m in maps.values()] == [
            {"tiny": {"port": 1}, "large": [1, None]}
        ] * 3
        maps["c"].remove("tiny")
        await until(lambda: not any("tiny" in m for m in maps.values()))
        counters = [r.open(GCounter, "requests") for r in replicators.values()]
        for counter in counters:
            counter.write(lambda c: c.increment(2))
        await until(lambda: [c.read().value for c in counters] == [6, 6, 6])


async def test_a_replicator_that_does_not_run_says_so() -> None:
    replicator = Replicator(ReplicatorOptions(shards=1))
    with pytest.raises(NotReplicatingError) as caught:
        replicator.open_map("m").put("k", 1)
    assert caught.value.name == "replicator"


async def test_snapshots_wait_for_room_on_the_link_and_end_with_it(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    options = ReplicatorOptions(shards=4)
    a, b = Replicator(options), Replicator(options)
    async with open_lab(authority) as lab:
        here = await lab.start("a", a)
        there = await lab.start("b", b)
        # What waits for room on a link that ends is told nobody, and harms nobody.
        for key in range(64):
            a.open_map("m").put(key, "x" * 60_000)
        for shard in a.running().core.shards:
            shard.log.tail.cut(shard.log.vector)
        await lab.link("a", "b")
        chunk = a.running().core.shards[0].log.snapshot()[0]
        part = Tell(there.origin, Carried(0, 7, SnapshotPart(1, chunk)), is_bulk=True)
        while not here.peers.refused:
            a.running()._tell(part)
        waiting = [p for p in here.node.processes.values() if p.pid.label == LATER]
        assert len(waiting) == here.peers.refused == 1
        # It looks whether there is room.
        await trio.lowlevel.checkpoint()
        here.cut(there)
        await until(lambda: not there.peers.up)
        await lab.link("a", "b")
        await until(lambda: len(b.open_map("m")) == 64)
        assert a.open_map("m").value == b.open_map("m").value
    assert "crashed" not in caplog.text


async def test_peers_with_another_number_of_shards_are_left_alone(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = (
        Replicator(ReplicatorOptions(shards=4)),
        Replicator(ReplicatorOptions(shards=2)),
    )
    told: list[Any] = []
    telemetry.attach("k", ("atomr", "replicator"), lambda e, _, d: told.append((e, d)))
    try:
        async with open_lab(authority) as lab:
            await lab.start("a", a)
            other = await lab.start("b", b)
            await lab.link("a", "b")
            await until(lambda: len(told) >= 2)
            a.open_map("m").put("k", 1)
            assert "k" not in b.open_map("m")
    finally:
        telemetry.detach("k")
    problem = (
        "it has 2 shards, this node 4: give all nodes the same"
        " ReplicatorOptions(shards=...)"
    )
    assert (
        told[0]
        == (
            ("atomr", "replicator", "alarm"),
            {
                "name": "replicator",
                "shard": None,
                "peer": other.origin,
                "problem": problem,
            },
        )
        or told[1][1]["problem"] == problem
    )
    said = f"replicator 'replicator' and that of {other.origin}: {problem}; nothing of"
    assert said in caplog.text


async def test_what_differs_at_rest_is_found_told_and_repaired_on_all_nodes(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    options = ReplicatorOptions(shards=4, quiet_s=0.2)
    a, b = Replicator(options), Replicator(options)
    told: list[Any] = []
    watched: list[Any] = []
    telemetry.attach(
        "k", ("atomr", "replicator", "alarm"), lambda _, __, d: told.append(d)
    )
    try:
        async with open_lab(authority) as lab:
            here = await lab.start("a", a)
            await lab.start("b", b)
            await lab.link("a", "b")
            a.open_map("m").put("k", "v")
            await until(lambda: "k" in b.open_map("m"))
            await until(lambda: all(rests(r, "k") for r in (a, b)))
            here.do(a.open_map("m").watch, watched.append)
            # A bug that loses an entry, and nothing of the vector.
            shard = b.running().core.shard_of("m", "k")
            dot = Dot(a.running().core.shards[shard.number].origin, 1)
            late = Event("aw_lww_map/m", "k", Dot(dot.origin, 9), (dot,))
            shard.open(AWLWWMap, "m").apply(late)
            assert "k" not in b.open_map("m")
            # Nobody can know which is right: what one side has lost is removed.
            await until(lambda: watched)
            assert watched == [Changed("aw_lww_map", "m", "k", "v", ABSENT)]
            one, other = (r.running().core.shards[shard.number] for r in (a, b))
            await until(lambda: one.log.state_hash == other.log.state_hash)
    finally:
        telemetry.detach("k")
    assert {(row["problem"], row["shard"]) for row in told} == {
        ("diverged", shard.number)
    }
    assert "it is being repaired, and please report it" in caplog.text


async def test_alarms_do_not_fill_the_log(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    a, peer = Replicator(), Origin("b", 1)
    async with open_lab(authority) as lab:
        await lab.start("a", a)
        for number in range(100):
            fact = Suspicious(peer, f"lie {number}")
            a.running()._report(Alarm(None, peer, fact))
        a.running()._report(Alarm(0, peer, Diverged(peer, 1, 2)))
    said = [line.getMessage() for line in caplog.records]
    assert [line.partition("; ")[0] for line in said if "lie" in line] == [
        f"replicator 'replicator' and that of b#1: lie {number}"
        for number in (0, 1, 3, 7, 15, 31, 63)
    ]
    assert said[-1].startswith("replicator 'replicator': shard 0 and that of b#1: div")
    assert "it is being repaired" in said[-1]


async def test_frames_beyond_the_bound_are_dropped_and_come_again(
    authority: Authority,
) -> None:
    a, b = Replicator(), Replicator(ReplicatorOptions(max_waiting=8))
    async with open_lab(authority) as lab:
        await lab.start("a", a)
        await lab.start("b", b)
        await lab.link("a", "b")
        for key in range(500):
            a.open_map("m").put(key, key)
        await until(lambda: len(b.open_map("m")) == 500)
        assert b.running().inbox.overrun > 0


@pytest.mark.parametrize("as_snapshot", [False, True], ids=["events", "snapshot"])
async def test_a_node_knows_when_it_has_been_told_what_another_one_knew(
    authority: Authority, *, as_snapshot: bool
) -> None:
    slow = ReplicationOptions(batch_events=1, chunk_bytes=64)
    a, b = (Replicator(ReplicatorOptions(shards=2, replication=slow)) for _ in "ab")
    held: list[Any] = []
    is_dammed, told = True, b._told

    def held_back(link: Any, message: Any) -> None:
        frame = message.frame if isinstance(message, Carried) else None
        if is_dammed and isinstance(frame, Events | SnapshotPart):
            held.append((link, message))
        else:
            told(link, message)

    b._told = held_back  # type: ignore[method-assign] # in between
    assert b.told() == {}
    async with open_lab(authority) as lab:
        await lab.start("a", a)
        await lab.start("b", b)
        for key in range(50):
            a.open_map("m").put(key, key)
        if as_snapshot:
            for shard in a.running().core.shards:
                shard.log.tail.cut(shard.log.vector)
        await lab.link("a", "b")
        await until(lambda: len(held) >= 2)
        assert b.told() == {"a": False}
        is_dammed = False
        for link, message in held:
            told(link, message)
        await until(lambda: b.told() == {"a": True})
        assert len(b.open_map("m")) == 50
        await until(lambda: a.told() == {"b": True})
        here, there = lab.nodes["a"], lab.nodes["b"]
        here.cut(there)
        await until(lambda: b.told() == {})
        await lab.link("a", "b")
        await until(lambda: b.told() == {"a": True})


async def test_a_flood_of_hellos_is_bounded_and_one_that_was_dropped_comes_again(
    authority: Authority,
) -> None:
    a, b = Replicator(), Replicator(ReplicatorOptions(max_waiting=2))
    async with open_lab(authority) as lab:
        here = await lab.start("a", a)
        await lab.start("b", b)
        for _ in range(100):
            b.running().arrive(here.origin, Hello((1,), is_answer=False))
        inbox = b.running().inbox
        assert (inbox.waiting, inbox.overrun) == (4, 96)
        await lab.link("a", "b")
        await until(lambda: knows(b, "a"))


async def test_a_frame_of_a_stranger_or_of_a_life_that_is_over_is_dropped(
    authority: Authority,
) -> None:
    a, b = Replicator(), Replicator()
    async with open_lab(authority) as lab:
        here = await lab.start("a", a)
        there = await lab.start("b", b)
        await lab.link("a", "b")
        await until(lambda: knows(b, "a"))
        before = b.running().core.dropped
        event = Event("aw_lww_map/m", "k", Dot(Origin("a", 7), 1), (), 1, b"\x01")
        here.peers.tell(there.origin, a.service_name, Carried(0, 7, Push((event,))))
        here.peers.tell(there.origin, a.service_name, Carried(99, 7, Push((event,))))
        await until(lambda: b.running().core.dropped == before + 2)
        b.running().core.receive(
            Origin("nobody", 1), Carried(0, 7, Push((event,))), now_s=0.0, now_ms=0
        )
        assert b.running().core.dropped == before + 3
        assert b.open_map("m").value == {}


async def test_an_event_under_the_name_of_the_receiver_is_told(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = Replicator(), Replicator()
    async with open_lab(authority) as lab:
        here = await lab.start("a", a)
        there = await lab.start("b", b)
        await lab.link("a", "b")
        await until(lambda: knows(b, "a"))
        ours = a.running().core.shards[0].origin
        theirs = b.running().core.shards[0].origin
        event = Event("aw_lww_map/m", "k", Dot(theirs, 1), (), 1, b"\x01")
        here.peers.tell(
            there.origin, a.service_name, Carried(0, ours.boot, Push((event,)))
        )
        await until(lambda: "refused 1 of its events" in caplog.text)
        assert b.open_map("m").value == {}


async def test_a_map_reads_as_a_dictionary_does(authority: Authority) -> None:
    replicator = Replicator(ReplicatorOptions(shards=4))
    async with open_lab(authority) as lab:
        node = await lab.start("a", replicator)
        numbers = replicator.open_map("numbers")
        for number in range(20):
            numbers.put(number, number * 2)
        assert len(numbers) == 20
        assert sorted(numbers) == list(range(20))
        assert dict(numbers.items()) == numbers.value
        assert (numbers[3], 3 in numbers, 20 in numbers) == (6, True, False)
        assert numbers.get(20, "none") == "none"
        assert numbers.conflicts(3) == (6,)
        with pytest.raises(KeyError):
            numbers[20]
        with pytest.raises(BadKeyError):
            numbers.put(1.5, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name=7"):
            replicator.open_map(7)  # type: ignore[arg-type]
        presence = replicator.open_owned("presence")
        presence.put("k", 1)
        assert presence.value == {"k": {node.origin: 1}}
        assert presence.owners("k") == (node.origin,)
        presence.remove("k")
        assert presence.value == {}
        status = replicator.running().format_status()
        assert status == {
            "shards": 4,
            "keys": 20,
            "neighbours": [],
            "waiting": 0,
            "overrun": 0,
        }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"shards": 0}, "shards=0"),
        ({"shards": 2_000}, "at most 1024"),
        ({"quiet_s": 0}, "quiet_s=0"),
        ({"max_waiting": 0}, "max_waiting=0"),
        ({"max_log_events": 0}, "max_log_events=0"),
        ({"max_log_bytes": 0}, "max_log_bytes=0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        ReplicatorOptions(**options)


@pytest.mark.parametrize("kind", ["counter", int, PNCounter()])
def test_a_value_of_no_replicated_type_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Replicator().open(kind, "m")
    assert str(caught.value) == (
        f"open({short(kind)}, 'm'): expected a type of atomr.crdt, as in"
        ' open(PNCounter, "sold"); maps have open_map and open_owned'
    )


def test_one_text_is_no_list_of_voters() -> None:
    with pytest.raises(TypeError, match="voters='ams': expected several names"):
        ReplicatorOptions(voters="ams")
