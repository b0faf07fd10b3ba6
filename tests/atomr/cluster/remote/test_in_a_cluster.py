"""Processes of other nodes, in a cluster as users open it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.cluster.remote import (
    NodeDown,
    NodeUp,
    RemoteProcesses,
    at,
    monitor_node,
)
from atomr.cluster.singleton import ClusterSingleton
from atomr.core.exits import KILL, NOCONNECTION
from atomr.core.messages import Down
from atomr.errors import CallError, NoNodeError, StartError
from atomr.otp import call, child, supervision_tree
from atomr.process import (
    current_node,
    exit_process,
    monitor,
    receive,
    spawn,
    wait_exit,
)
from tests.atomr.cluster.members.conftest import (  # noqa: F401 - fixtures
    WITHIN_S,
    open_member,
    options,
)
from tests.atomr.cluster.remote.servers import MESSAGES, Add, Counter, Get
from tests.atomr.http2.conftest import authority, until  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from atomr.otp import TreeNode
    from atomr.refs import Pid
    from tests.atomr.cluster.members.conftest import OpenMember


async def test_nodes_call_each_other_and_hear_of_each_other(
    open_member: OpenMember,  # noqa: F811
) -> None:
    heard: list[object] = []
    remote = RemoteProcesses(MESSAGES)

    async def watch(ready: trio.Event) -> None:
        monitor_node("a")
        up = await receive(lambda m: isinstance(m, NodeUp))
        heard.append(up.peer.name)  # type: ignore[attr-defined]
        counter = at("a", "counter")
        heard.append(await call(counter, Add(2)))
        ref = monitor(counter)
        heard.append(await call(counter, Get()))
        ready.set()
        down = await receive(lambda m: isinstance(m, Down) and m.ref is ref)
        heard.append(down.reason)  # type: ignore[attr-defined]
        gone = await receive(lambda m: isinstance(m, NodeDown) and m.peer is not None)
        heard.append(gone.name)  # type: ignore[attr-defined]

    with trio.fail_after(WITHIN_S):
        async with open_member("b", services=[remote]) as b:
            ready = trio.Event()
            watcher = spawn(watch, ready)
            services = [RemoteProcesses(MESSAGES)]
            async with open_member("a", b.address, services=services):
                await current_node().start(child(Counter, name="counter"))
                await ready.wait()
            await wait_exit(watcher)
    assert heard == ["a", 2, 2, NOCONNECTION, "a"]


def find(tree: TreeNode | None, name: str) -> Pid:
    assert tree is not None
    for child_ in tree.children:
        if child_.id == name:
            assert child_.pid is not None
            return child_.pid
        try:
            return find(child_, name)
        except LookupError:
            continue
    raise LookupError(name)


@pytest.mark.parametrize("crashing", ["remote", "links"])
async def test_a_crash_in_the_cluster_is_the_end_of_the_links_alone(
    open_member: OpenMember,  # noqa: F811
    crashing: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("CRITICAL", "atomr")
    remotes = [RemoteProcesses(MESSAGES), RemoteProcesses(MESSAGES)]

    async def asks(counter: Any) -> int:
        try:
            found: int = await call(counter, Add(1), timeout_s=0.5)
        except CallError:
            return 0
        return found

    with trio.fail_after(WITHIN_S):
        async with AsyncExitStack() as stack:
            b = await stack.enter_async_context(open_member("b", services=[remotes[1]]))
            node = current_node()
            await node.start(child(Counter, name="counter"))
            process = node.names["counter"]
            await stack.enter_async_context(
                open_member("a", b.address, services=[remotes[0]])
            )
            # One whose answer was lost, or late, has been counted all the same.
            while not await asks(at("b", "counter")):  # noqa: ASYNC110 - see until
                await trio.sleep(0.01)
            old = b.origin
            exit_process(find(supervision_tree(node), crashing), KILL)
            if crashing == "links":
                await until(lambda: b.origin != old)
            while not await asks(at("b", "counter")):  # noqa: ASYNC110 - the same
                await trio.sleep(0.01)
            # It has lived all the time.
            assert node.names["counter"] is process
            assert process.behaviour.total > 1  # type: ignore[attr-defined]
            # Its pid is its own in each life that this node has had.
            number = process.pid.number
            for origin in (old, b.origin):
                assert remotes[1].pid_of(origin, number) is process.pid
            # This is node a: a pid that it was not told is none of its own.
            with pytest.raises(ValueError, match="of another node"):
                await call(at("b", "counter"), process.pid)


async def test_a_singleton_whose_remote_processes_are_not_in_the_list_does_not_start(
    open_member: OpenMember,  # noqa: F811
) -> None:
    single = ClusterSingleton(
        child(Counter, id="counter"), RemoteProcesses(), voters=["a"]
    )
    with pytest.raises(StartError) as caught:
        async with open_member("a", services=[single]):
            pass
    assert isinstance(caught.value.reason, NoNodeError)
    assert "[remote, replicator, registry]" in str(caught.value.reason)
