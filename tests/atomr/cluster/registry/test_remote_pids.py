"""Names and groups whose members are called over the links."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr.cluster import open_cluster
from atomr.cluster.groups import ProcessGroups
from atomr.cluster.registry import ClusterRegistry
from atomr.cluster.remote import RemoteProcesses
from atomr.cluster.replicator import (
    NotReplicatingError,
    Replicator,
    ReplicatorOptions,
)
from atomr.core.child_spec import Restart
from atomr.core.exits import NORMAL
from atomr.core.messages import Down
from atomr.errors import NoNodeError, NoProcessError, StartError
from atomr.otp import From, GenServer, Reply, child
from atomr.process import (
    call,
    cast,
    link,
    monitor,
    open_node,
    receive,
    spawn,
    stop,
    wait_exit,
)
from tests.atomr.cluster.members.conftest import options  # noqa: F401 - a fixture
from tests.atomr.cluster.replicator.lab import Lab, LabNode, open_lab
from tests.atomr.http2.conftest import Authority, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr.cluster import ClusterOptions
    from atomr.cluster.service import ClusterService


class Counter(GenServer):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.total = 0

    def handle_call(self, request: int, from_: object) -> Reply:
        self.total += request
        return Reply(self.total)

    def handle_cast(self, message: int) -> None:
        self.total += message


class Asked(GenServer):
    """Says who asks."""

    def handle_call(self, request: str, from_: From) -> Reply:
        return Reply("nobody" if from_.pid is None else from_.pid)


@attrs.frozen
class Member:
    """A node with names, groups and the processes of other nodes."""

    node: LabNode
    registry: ClusterRegistry
    groups: ProcessGroups


async def start(lab: Lab, name: str) -> Member:
    replicator = Replicator(ReplicatorOptions(shards=2))
    remote = RemoteProcesses()
    registry = ClusterRegistry(replicator, remote)
    groups = ProcessGroups(replicator, remote)
    node = await lab.start(name, remote, replicator, registry, groups)
    return Member(node, registry, groups)


@asynccontextmanager
async def members(authority: Authority, names: str) -> AsyncIterator[list[Member]]:
    async with open_lab(authority) as lab:
        started = [await start(lab, name) for name in names]
        await lab.link(*names)
        yield started


async def test_a_name_is_called_watched_and_gone_over_the_link(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b):
        name = b.registry.via("counter")
        there = a.registry.via("counter")
        counter = child(Counter, name=name, restart=Restart.TEMPORARY)
        pid = await b.node.node.start(counter)
        await until(lambda: a.registry.whereis("counter") is not None)
        assert a.registry.whereis("counter") is not pid
        assert await a.node.run(call, there, 2) == 2
        a.node.do(cast, there, 40)
        assert await a.node.run(call, there, 0) == 42
        told: list[object] = []

        async def watcher() -> None:
            told.append(monitor(there))
            told.append(await receive())

        a.node.do(spawn, watcher)
        await until(lambda: told)
        await b.node.run(stop, pid)
        await until(lambda: len(told) == 2)
        assert told[1] == Down(told[0], told[1].pid, NORMAL)  # type: ignore[arg-type, attr-defined]
        await until(lambda: a.registry.whereis("counter") is None)
        with pytest.raises(NoProcessError):
            await a.node.run(call, there, 1)


async def test_all_members_of_a_group_are_called(authority: Authority) -> None:
    async with members(authority, "abc") as (a, b, c):
        for member in (a, b, c):
            pid = await member.node.node.start(child(Counter))
            member.groups.join("counters", pid)
        await until(lambda: len(a.groups.members("counters")) == 3)
        pids = a.groups.members("counters")
        totals = [await a.node.run(call, pid, 7) for pid in pids]
        assert totals == [7, 7, 7]
        assert len(set(pids)) == 3
        c.node.end()
        await until(lambda: len(a.groups.members("counters")) == 2)


async def test_a_process_of_a_node_inside_the_clusters_node_is_refused(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b), open_node("inner") as inner:
        await b.node.node.start(child(Counter, name=b.registry.via("there")))
        await until(lambda: a.registry.whereis("there") is not None)
        said = r"is of another node, 'inner'; start it on 'a', the node around open_cl"
        with pytest.raises(StartError, match=rf"names\['w'\].*{said}"):
            await inner.start(child(Counter, name=a.registry.via("w")))
        with pytest.raises(ValueError, match=r"\['w'\]: .*@b> is of another node$"):
            there = a.registry.whereis("there")
            assert there is not None
            a.registry.via("w").register(there)
        assert b.registry.whereis("w") is a.registry.whereis("w") is None
        pid = await inner.start(child(Counter, restart=Restart.TEMPORARY))
        with pytest.raises(ValueError, match=rf"join\('g'\).*{said}"):
            a.groups.join("g", pid)
        with pytest.raises(ValueError, match=rf"a message to another node.*{said}"):
            await a.node.run(call, a.registry.via("there"), pid)
        # One that has ended, whose number a process of the outer node has.
        await stop(pid)
        assert pid.number in a.node.node.processes
        with pytest.raises(ValueError, match="was of another node than 'a'"):
            await a.node.run(call, a.registry.via("there"), pid)


async def test_a_process_of_a_node_inside_calls_others_but_does_not_link(
    authority: Authority,
) -> None:
    async with members(authority, "ab") as (a, b), open_node("inner"):
        pid = await b.node.node.start(child(Asked))
        b.groups.join("g", pid)
        await until(lambda: a.groups.members("g"))
        (there,) = a.groups.members("g")
        found: list[object] = []

        async def inner() -> None:
            # Who asks has no address over there.
            found.append(await call(there, "who"))
            with pytest.raises(ValueError, match="start it on 'a', the node around"):
                link(there)

        await wait_exit(spawn(inner))
        assert found == ["nobody"]


@pytest.mark.parametrize("kind", [ClusterRegistry, ProcessGroups])
async def test_what_is_not_in_the_list_or_behind_its_user_is_named_at_the_start(
    options: Callable[..., ClusterOptions],  # noqa: F811
    kind: type[ClusterRegistry | ProcessGroups],
) -> None:
    async def problem(*services: ClusterService) -> BaseException:
        with pytest.raises(StartError) as caught:
            async with open_node("a"), open_cluster(options("a"), services):
                pass
        assert remedy in str(caught.value)
        assert isinstance(caught.value.reason, BaseException)
        return caught.value.reason

    remedy = "before its users, as in [remote, replicator, registry]"
    remote, replicator = RemoteProcesses(), Replicator()
    names = kind(replicator, remote)
    error = await problem(replicator, names)
    assert isinstance(error, NoNodeError)
    assert str(error).startswith("RemoteProcesses() does not run: it must be among")
    assert str(error).endswith(remedy)
    error = await problem(remote, names, replicator)
    assert isinstance(error, NotReplicatingError)
    assert remedy in str(error)
