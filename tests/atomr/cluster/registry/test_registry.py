"""Names of the cluster, on nodes with real links."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr.cluster.registry import ClusterRegistry, NameConflictError
from atomr.cluster.replicator import Replicator, ReplicatorOptions
from atomr.cluster.replicator.server import wall_ms
from atomr.core.messages import Exit
from atomr.errors import AlreadyStartedError, NameTakenError
from atomr.gossip.membership import Status
from atomr.otp import GenServer, Reply, child
from atomr.process import (
    call,
    exit_process,
    is_alive,
    kill,
    receive,
    spawn,
    trap_exit,
    wait_exit,
)
from tests.atomr.cluster.replicator.lab import (
    Lab,
    LabNode,
    LabPids,
    in_a_process,
    open_lab,
)
from tests.atomr.http2.conftest import WITHIN_S, Authority, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.refs import Pid


@attrs.frozen
class Member:
    """A node with its registry."""

    lab: Lab
    node: LabNode
    replicator: Replicator
    registry: ClusterRegistry

    async def hold(self, *keys: str) -> Pid:
        """Start a process that registers."""
        holds = trio.Event()

        async def holder() -> None:
            for key in keys:
                self.registry.register(key)
            holds.set()
            await trio.sleep_forever()

        pid = self.node.do(spawn, holder)
        with trio.fail_after(WITHIN_S):
            await holds.wait()
        return pid


async def start(lab: Lab, name: str) -> Member:
    replicator = Replicator(ReplicatorOptions(shards=2))
    registry = ClusterRegistry(replicator, LabPids(lab))
    return Member(
        lab, await lab.start(name, replicator, registry), replicator, registry
    )


@asynccontextmanager
async def members(authority: Authority, names: str) -> AsyncIterator[list[Member]]:
    async with open_lab(authority) as lab:
        started = [await start(lab, name) for name in names]
        await lab.link(*names)
        yield started


def holds(member: Member, key: str, pid: Pid) -> bool:
    return member.registry.whereis(key) is pid


async def later() -> None:
    """Wait for the clock's next millisecond: claims of one are ordered by nodes."""
    now_ms = wall_ms()
    await until(lambda: wall_ms() > now_ms)


class Echo(GenServer):
    """Says its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def handle_call(self, request: str, from_: object) -> Reply:
        return Reply((self.name, request))


async def test_a_server_is_called_by_its_name_from_each_node(
    authority: Authority,
) -> None:
    async with members(authority, "abc") as (a, b, c):
        echo = child(lambda: Echo("echo"), name=a.registry.via("echo"), id="echo")
        pid = await a.node.node.start(echo)
        for member in (a, b, c):
            await until(partial(holds, member, "echo", pid))
            address = member.registry.via("echo")
            assert await member.node.run(call, address, "hi") == ("echo", "hi")
        assert list(b.registry.items()) == [("echo", pid)]
        assert a.registry.keys(pid) == ("echo",)


async def test_a_name_that_another_node_has_is_taken(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        holder = await a.hold("x")
        await until(lambda: b.registry.whereis("x"))
        taken = child(lambda: Echo("x"), name=b.registry.via("x"), id="x")
        with pytest.raises(AlreadyStartedError) as caught:
            await b.node.node.start(taken)
        assert caught.value.pid is holder
        with pytest.raises(NameTakenError, match="names\\['x'\\]"):
            await b.node.run(in_a_process, b.registry.register, "x")


async def test_the_end_of_a_process_frees_its_name_everywhere(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        holder = await a.hold("x")
        await until(lambda: b.registry.whereis("x") is holder)
        kill(holder)
        await until(lambda: a.registry.whereis("x") is None)
        await until(lambda: b.registry.whereis("x") is None)
        other = await b.hold("x")
        await until(lambda: a.registry.whereis("x") is other)


async def test_after_a_cut_the_first_keeps_the_name_and_the_other_is_told(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        await until(lambda: a.node.peers.up and b.node.peers.up)
        a.node.cut(b.node)
        await until(lambda: not b.node.peers.up)
        first = await b.hold("x")
        await later()
        told = trio.Event()
        seen: list[object] = []

        async def loser() -> None:
            trap_exit(True)
            a.registry.register("x")
            a.registry.register("y")
            seen.append(await receive())
            told.set()
            await trio.sleep_forever()

        second = a.node.do(spawn, loser)
        await until(lambda: a.registry.whereis("x") is second)
        assert b.registry.whereis("x") is first
        await a.lab.link("a", "b")
        with trio.fail_after(WITHIN_S):
            await told.wait()
        (exit_signal,) = seen
        assert isinstance(exit_signal, Exit)
        reason = exit_signal.reason
        assert isinstance(reason, NameConflictError)
        assert (reason.registry, reason.key, reason.winner) == ("names", "x", first)
        await until(lambda: b.registry.whereis("y") is second)
        assert a.registry.whereis("x") is b.registry.whereis("x") is first
        assert a.registry.keys(second) == ("y",)
        # Its end takes away its own name, and not the winner's.
        kill(second)
        await until(lambda: b.registry.whereis("y") is None)
        assert a.registry.whereis("x") is b.registry.whereis("x") is first


async def test_who_does_not_trap_exits_ends_with_the_conflict(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        await until(lambda: a.node.peers.up and b.node.peers.up)
        b.node.cut(a.node)
        await until(lambda: not a.node.peers.up)
        first = await a.hold("x")
        await later()
        second = await b.hold("x")
        await a.lab.link("a", "b")
        reason = await wait_exit(second)
        assert isinstance(reason, NameConflictError)
        assert str(reason) == f"names['x']: {first!r} had that name before"
        assert is_alive(first)


async def test_names_of_a_node_that_is_gone_are_hidden_at_once_and_free(
    authority: Authority,
) -> None:
    async with members(authority, "abc") as (a, b, c):
        holder = await c.hold("x", "z")
        await until(lambda: a.registry.whereis("x") is holder)
        await until(lambda: b.registry.whereis("x") is holder)
        c.node.end()
        await until(lambda: "c" not in a.node.peers.up)
        await until(lambda: a.registry.whereis("x") is None)
        assert list(a.registry.items()) == []
        other = await a.hold("x")
        await until(lambda: b.registry.whereis("x") is other)


async def test_names_of_a_suspect_are_hidden_until_it_is_trusted_again(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        holder = await b.hold("x")
        await until(lambda: a.registry.whereis("x") is holder)
        a.node.peers.judge(b.node.origin, Status.SUSPECT)
        await until(lambda: a.registry.whereis("x") is None)
        a.node.peers.judge(b.node.origin, Status.ALIVE)
        await until(lambda: a.registry.whereis("x") is holder)


async def test_names_outlive_a_crash_of_the_replicator(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        one, two = await a.hold("x"), await b.hold("y")
        await until(lambda: a.registry.whereis("y") is two)
        before = a.replicator.running()
        exit_process(before.pid, RuntimeError("a bug"))
        await until(lambda: a.replicator.server not in {None, before})
        assert a.registry.whereis("x") is one
        await until(lambda: a.registry.whereis("y") is two)
        await until(lambda: b.registry.whereis("x") is one)
        await until(lambda: len(b.registry.names.value) == 2)


async def test_a_process_lets_go_of_its_name(authority: Authority) -> None:
    async with members(authority, "a") as (a,):
        seen: list[object] = []

        async def holder() -> None:
            a.registry.register("x")
            seen.append(a.registry.unregister("x"))
            seen.append(a.registry.unregister("x"))

        await wait_exit(a.node.do(spawn, holder))
        assert seen == [True, False]
        assert a.registry.whereis("x") is None
        assert a.registry.held == {}


async def test_what_is_no_claim_counts_for_nothing(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        b.registry.names.put("x", "not a claim")
        b.registry.names.put("y", [1, 2])
        await until(lambda: len(a.registry.names.value) == 2)
        assert a.registry.whereis("x") is None
        holder = await a.hold("x")
        await until(lambda: b.registry.whereis("x") is holder)


async def test_a_name_stays_taken_while_a_replicator_begins_anew(
    authority: Authority,
) -> None:
    async with members(authority, "a") as (a,):
        holder = await a.hold("x")
        # As after its restart, before the registry has put its names again.
        a.registry.names.remove("x")
        assert a.registry.whereis("x") is holder

        async def other() -> None:
            with pytest.raises(NameTakenError):
                a.registry.register("x")

        await wait_exit(a.node.do(spawn, other))
        assert a.registry.keys(holder) == ("x",)
