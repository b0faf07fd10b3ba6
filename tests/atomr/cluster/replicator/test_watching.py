"""Who is told of changes, and what becomes of those who do not keep up."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr import telemetry
from atomr.cluster.replicator import (
    ABSENT,
    Changed,
    Missed,
    Replicator,
    ReplicatorOptions,
)
from atomr.crdt import AWSet, GCounter, LWWRegister, Origin, RWSet
from atomr.errors import NotAProcessError
from atomr.gossip.membership import Status
from atomr.process import is_alive, kill, receive, spawn
from tests.atomr.cluster.replicator.lab import Lab, LabNode, open_lab
from tests.atomr.http2.conftest import Authority, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.cluster.replicator.handles import Watchable
    from atomr.refs import Pid

MAP = "aw_lww_map"


@attrs.frozen
class Member:
    """A node with a replicator."""

    node: LabNode
    replicator: Replicator

    def recorder(self, handle: Watchable, seen: list[Any]) -> Pid:
        """Start a process that is told, and remembers."""

        async def record() -> None:
            handle.subscribe()
            while True:
                seen.append(await receive())

        return self.node.do(spawn, record)

    def watched(self, handle: Watchable) -> bool:
        return (handle.kind.KIND, handle.name) in self.replicator.running().watchers


async def start(lab: Lab, name: str) -> Member:
    replicator = Replicator(ReplicatorOptions(shards=2))
    return Member(await lab.start(name, replicator), replicator)


@asynccontextmanager
async def members(authority: Authority, names: str) -> AsyncIterator[list[Member]]:
    async with open_lab(authority) as lab:
        started = [await start(lab, name) for name in names]
        await lab.link(*names)
        yield started


async def test_changes_of_all_nodes_come_with_what_was_there_before(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        here, there = a.replicator.open_map("m"), b.replicator.open_map("m")
        here.put("early", 0)
        seen: list[Any] = []
        a.recorder(here, seen)
        await until(lambda: a.watched(here))
        here.put("k", 1)
        here.put("k", 1)
        await until(lambda: there.get("k") == 1)
        there.put("k", None)
        await until(lambda: here.get("k", 0) is None)
        there.remove("early")
        there.remove("k")
        await until(lambda: len(seen) == 4)
        assert seen[:2] == [
            Changed(MAP, "m", "k", ABSENT, 1),
            Changed(MAP, "m", "k", 1, None),
        ]
        assert sorted(seen[2:], key=str) == [
            Changed(MAP, "m", "early", 0, ABSENT),
            Changed(MAP, "m", "k", None, ABSENT),
        ]


async def test_what_comes_in_a_snapshot_is_told_key_by_key(
    authority: Authority,
) -> None:
    async with open_lab(authority) as lab:
        a, b = await start(lab, "a"), await start(lab, "b")
        here, there = a.replicator.open_map("m"), b.replicator.open_map("m")
        seen: list[Any] = []
        a.recorder(here, seen)
        await until(lambda: a.watched(here))
        for key in range(20):
            there.put(key, key)
        for shard in b.replicator.running().core.shards:
            shard.log.tail.cut(shard.log.vector)
        await lab.link("a", "b")
        await until(lambda: len(seen) == 20)
        assert {told.key: told.new for told in seen} == {key: key for key in range(20)}


async def test_an_owned_map_tells_of_owners_that_come_and_go(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        here, there = a.replicator.open_owned("o"), b.replicator.open_owned("o")
        seen: list[Any] = []
        a.recorder(here, seen)
        await until(lambda: a.watched(here))
        there.put("k", 1)
        await until(lambda: len(seen) == 1)
        a.node.peers.judge(b.node.origin, Status.SUSPECT)
        await until(lambda: len(seen) == 2)
        assert here.get("k") == {}
        a.node.peers.judge(b.node.origin, Status.ALIVE)
        await until(lambda: len(seen) == 3)
        b.node.end()
        await until(lambda: len(seen) == 4)
        owner = b.node.origin
        come = Changed("owned_map", "o", "k", ABSENT, 1, owner)
        gone = Changed("owned_map", "o", "k", 1, ABSENT, owner)
        assert seen == [come, gone, come, gone]


async def test_values_of_all_types_are_watched(authority: Authority) -> None:
    async with members(authority, "a") as (a,):
        open_ = a.replicator.open
        count, tags = open_(GCounter, "count"), open_(AWSet, "tags")
        name, banned = open_(LWWRegister, "name"), open_(RWSet, "banned")
        seen: list[Any] = []
        handles: tuple[Watchable, ...] = (count, tags, name, banned)
        for handle in handles:
            a.recorder(handle, seen)
        await until(lambda: all(map(a.watched, handles)))
        count.write(lambda c: c.increment(3))
        count.write(lambda c: c.increment(2))
        tags.write(lambda t: t.add("x"))
        tags.write(lambda t: t.remove("x"))
        name.write(lambda n: n.assign("tiny"))
        banned.write(lambda b: b.remove("nobody"))
        banned.write(lambda b: b.add("eve"))
        await until(lambda: len(seen) == 6)
        told = [(t.kind, t.key, t.old, t.new) for t in seen]
        assert sorted(told, key=str) == [
            ("aw_set", "x", ABSENT, True),
            ("aw_set", "x", True, ABSENT),
            ("g_counter", "", 0, 3),
            ("g_counter", "", 3, 5),
            ("lww_register", "", ABSENT, "tiny"),
            ("rw_set", "", frozenset(), frozenset({"eve"})),
        ]


async def test_trap_16_one_that_blocks_or_crashes_touches_nobody(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with members(authority, "ab") as (a, b):
        here, there = a.replicator.open_map("m"), b.replicator.open_map("m")
        seen: list[Any] = []

        async def block(_: object) -> None:
            await trio.sleep_forever()

        def crash(_: object) -> None:
            raise RuntimeError("a bug of the callback")

        blocked = a.node.do(lambda: here.watch(block, room=5))
        crashed = a.node.do(here.watch, crash)
        a.node.do(here.watch, seen.append)
        await until(lambda: len(a.replicator.running().watchers) == 3)
        for number in range(50):
            there.put(number, number)
        await until(lambda: len(seen) == 50)
        assert {told.key for told in seen} == set(range(50))
        await until(lambda: not is_alive(crashed))
        assert is_alive(blocked)
        assert blocked._process is not None
        assert blocked._process.queue_size in {4, 5}
        assert "a bug of the callback" in caplog.text
        here.put("next", 1)
        await until(lambda: there.get("next"))
        assert len(a.replicator.running().watchers) == 2


async def test_who_does_not_keep_up_is_told_how_much_it_missed(
    authority: Authority,
) -> None:
    async with members(authority, "a") as (a,):
        here = a.replicator.open_map("m")
        seen: list[Any] = []
        counted: list[Any] = []
        go_on = trio.Event()

        async def slow() -> None:
            here.subscribe(room=3)
            await go_on.wait()
            while True:
                seen.append(await receive())

        telemetry.attach(
            "k", ("atomr", "replicator"), lambda _, m, __: counted.append(m)
        )
        try:
            pid = a.node.do(spawn, slow)
            await until(lambda: a.watched(here))
            for number in range(10):
                here.put("k", number)
            go_on.set()
            await until(lambda: len(seen) == 4)
            here.put("k", "last")
            await until(lambda: len(seen) == 5)
        finally:
            telemetry.detach("k")
        assert [type(told) for told in seen] == [Changed] * 3 + [Missed, Changed]
        assert [t.new for t in seen if isinstance(t, Changed)] == [0, 1, 2, "last"]
        assert seen[3] == Missed(MAP, "m", 7)
        assert counted == [{"count": 7}]
        kill(pid)


async def test_who_unsubscribes_is_told_nothing_more(authority: Authority) -> None:
    async with members(authority, "a") as (a,):
        here = a.replicator.open_map("m")
        seen: list[Any] = []

        async def once() -> None:
            here.subscribe()
            seen.append(await receive())
            seen.append(here.unsubscribe())
            seen.append(here.unsubscribe())
            seen.append(await receive())

        a.node.do(spawn, once)
        await until(lambda: a.watched(here))
        here.put("k", 1)
        await until(lambda: len(seen) == 3)
        here.put("k", 2)
        assert not a.watched(here)
        await until(lambda: not views(a))
        assert seen == [Changed(MAP, "m", "k", ABSENT, 1), True, False]
        with pytest.raises(NotAProcessError):
            here.subscribe()
        with pytest.raises(ValueError, match="room=0"):
            here.watch(print, room=0)


def views(member: Member) -> int:
    """Return how many views are kept for watchers."""
    return sum(len(s.views) for s in member.replicator.running().core.shards)


async def test_after_a_crash_of_the_replicator_one_subscribes_again(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        here = a.replicator.open_map("m")
        before = a.replicator.running()
        kill(before.pid)
        await until(lambda: a.replicator.server not in {None, before})
        assert not a.watched(here)
        seen: list[Any] = []
        a.recorder(here, seen)
        await until(lambda: a.watched(here))
        b.replicator.open_map("m").put("k", 1)
        await until(lambda: seen)
        assert seen == [Changed(MAP, "m", "k", ABSENT, 1)]


def test_absent_shows_as_its_name() -> None:
    assert repr(Changed(MAP, "m", "k", ABSENT, 1, Origin("a", 1))).count("ABSENT") == 1
