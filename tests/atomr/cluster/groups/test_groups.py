"""Groups of processes, on nodes with real links."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.cluster.groups import Joined, Left, ProcessGroups
from atomr.cluster.groups.roll import MAX_TIMES, Moved, Roll
from atomr.cluster.replicator import Replicator, ReplicatorOptions
from atomr.crdt import BadKeyError, Origin
from atomr.errors import NotAProcessError
from atomr.gossip.membership import Status
from atomr.process import exit_process, kill, receive, spawn, wait_exit
from tests.atomr.cluster.replicator.lab import (
    Lab,
    LabNode,
    LabPids,
    in_a_process,
    open_lab,
)
from tests.atomr.http2.conftest import Authority, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.refs import Pid


@attrs.frozen
class Member:
    """A node with its groups."""

    lab: Lab
    node: LabNode
    replicator: Replicator
    groups: ProcessGroups

    def worker(self, *groups: str) -> Pid:
        """Start a process that is in groups."""
        pid = self.node.do(spawn, trio.sleep_forever)
        for group in groups:
            self.groups.join(group, pid)
        return pid


async def start(lab: Lab, name: str) -> Member:
    replicator = Replicator(ReplicatorOptions(shards=2))
    groups = ProcessGroups(replicator, LabPids(lab))
    return Member(lab, await lab.start(name, replicator, groups), replicator, groups)


@asynccontextmanager
async def members(authority: Authority, names: str) -> AsyncIterator[list[Member]]:
    async with open_lab(authority) as lab:
        started = [await start(lab, name) for name in names]
        await lab.link(*names)
        yield started


def in_group(member: Member, *pids: Pid) -> bool:
    found = sorted(member.groups.members("g"), key=repr)
    return found == sorted(pids, key=repr)


async def test_members_are_known_on_all_nodes_as_often_as_they_joined(
    authority: Authority,
) -> None:
    async with members(authority, "abc") as (a, b, c):
        one, two = a.worker("g", "g"), b.worker("g", "other")
        for member in (a, b, c):
            await until(partial(in_group, member, one, one, two))
        assert a.groups.local_members("g") == (one, one)
        assert c.groups.local_members("g") == ()
        # Another group may be another shard's.
        await until(lambda: set(c.groups.groups()) == {"g", "other"})
        assert a.groups.leave("g", one)
        await until(lambda: in_group(c, one, two))
        assert a.groups.leave("g", one)
        assert not a.groups.leave("g", one)
        await until(lambda: in_group(c, two))
        kill(two)
        await until(lambda: c.groups.groups() == ())
        assert a.groups.local == b.groups.local == {}


async def test_a_monitor_is_told_of_who_joins_and_leaves(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        early = b.worker("g")
        await until(lambda: in_group(a, early))
        told: list[Any] = []

        async def watcher() -> None:
            ref, present = a.groups.monitor("g")
            told.append((ref, present))
            while True:
                told.append(await receive())

        watching = a.node.do(spawn, watcher)
        await until(lambda: told)
        ref = told[0][0]
        here, there = a.worker("g"), b.worker("g")
        b.worker("another")
        await until(lambda: len(told) == 3)
        b.groups.leave("g", there)
        await until(lambda: len(told) == 4)
        b.node.end()
        await until(lambda: len(told) == 5)
        assert told == [
            (ref, (early,)),
            Joined(ref, "g", (here,)),
            Joined(ref, "g", (there,)),
            Left(ref, "g", (there,)),
            Left(ref, "g", told[4].pids),
        ]
        assert [p.number for p in told[4].pids] == [early.number]
        assert a.groups.demonitor(ref)
        assert not a.groups.demonitor(ref)
        kill(here)
        kill(watching)
        await until(lambda: a.groups.groups() == ())
        assert len(told) == 5


async def test_members_of_a_suspect_are_hidden_until_it_is_trusted_again(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        one = b.worker("g")
        await until(lambda: in_group(a, one))
        a.node.peers.judge(b.node.origin, Status.SUSPECT)
        await until(lambda: in_group(a))
        assert in_group(b, one)
        a.node.peers.judge(b.node.origin, Status.ALIVE)
        await until(lambda: in_group(a, one))


async def test_members_are_hidden_while_their_node_is_cut_off(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        one, two = a.worker("g"), b.worker("g")
        await until(lambda: in_group(a, one, two))
        a.node.cut(b.node)
        await until(lambda: in_group(a, one) and in_group(b, two))
        three = b.worker("g")
        await a.lab.link("a", "b")
        await until(
            lambda: in_group(a, one, two, three) and in_group(b, one, two, three)
        )


async def test_members_outlive_a_crash_of_the_replicator(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        one, two = a.worker("g"), b.worker("g")
        await until(lambda: in_group(a, one, two))
        before = a.replicator.running()
        exit_process(before.pid, RuntimeError("a bug"))
        await until(lambda: a.replicator.server not in {None, before})
        await until(lambda: in_group(a, one, two) and in_group(b, one, two))


async def test_only_living_processes_of_the_node_join(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        dead = a.worker()
        kill(dead)
        await wait_exit(dead)
        with pytest.raises(NotAProcessError, match="has ended"):
            a.groups.join("g", dead)
        with pytest.raises(NotAProcessError):
            a.groups.join("g")
        await a.node.run(in_a_process, a.groups.join, "g")
        assert a.groups.members("g") == ()
        assert b.groups.members("g") == ()


async def test_a_join_that_is_refused_leaves_nothing(authority: Authority) -> None:
    async with members(authority, "a") as (a,):
        pid = a.worker(*["g"] * MAX_TIMES)
        with pytest.raises(BadKeyError):
            a.groups.join("x" * 10_000, pid)
        with pytest.raises(ValueError, match="1000 times already"):
            a.groups.join("g", pid)
        assert a.groups.local == {pid: {"g": MAX_TIMES}}
        a.groups.put_again()


A, B = Origin("a", 1), Origin("b", 1)


def test_a_node_that_lies_of_its_members_makes_no_endless_list() -> None:
    roll = Roll()
    (moved,) = roll.refresh("g", 1, {A: ["x", 2**62]})
    assert moved.by == MAX_TIMES


def test_the_roll_says_what_is_new() -> None:
    roll = Roll()
    assert roll.refresh("g", 1, {A: ["x", 2], B: "nothing of ours"}) == [
        Moved(A, 1, "x", 2)
    ]
    assert roll.refresh("g", 1, {A: ["x", 1], B: ["y", 1]}) == [
        Moved(A, 1, "x", -1),
        Moved(B, 1, "y", 1),
    ]
    assert list(roll.members("g")) == [(A, 1, ("x", 1)), (B, 1, ("y", 1))]
    assert roll.refresh("g", 1, {A: ["x", 1], B: ["y", 1]}) == []
    assert roll.rows() == (("g", 1),)
    assert roll.refresh("g", 1, {}) == [Moved(A, 1, "x", -1), Moved(B, 1, "y", -1)]
    assert roll.groups() == ()
