"""Processes that one node starts on another one, by a name that is allowed there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster.remote import RemoteProcesses, at, spawn_on
from atomr.core.exits import NORMAL
from atomr.core.messages import Down
from atomr.errors import (
    NoConnectionError,
    RemoteError,
    SpawnRefusedError,
    UnregisteredMessageError,
)
from atomr.otp import call, cast
from atomr.process import current_node, monitor, receive, self_pid, send
from tests.atomr.cluster.loopback import open_mesh
from tests.atomr.cluster.remote.servers import MESSAGES, Note, Unknown

if TYPE_CHECKING:
    from atomr.refs import Pid
    from tests.atomr.http2.conftest import Authority


async def worker(to: Pid, note: Note) -> None:
    send(to, (note, current_node().name))
    await receive()


def remote(_: str) -> list[RemoteProcesses]:
    return [RemoteProcesses(MESSAGES, spawns={"worker": worker})]


async def test_a_function_that_is_allowed_runs_on_the_other_node(
    authority: Authority,
) -> None:
    async def use() -> None:
        for node in ("a", "b"):
            pid = await spawn_on(node, "worker", self_pid(), Note("hello"))
            assert await receive() == (Note("hello"), node)
            ref = monitor(pid)
            send(pid, "end")
            assert await receive() == Down(ref, pid, NORMAL)

    async with open_mesh(authority, "ab", remote) as nodes:
        with trio.fail_after(10):
            await nodes["a"].run(use)


async def test_what_is_not_allowed_is_refused(authority: Authority) -> None:
    async def use(node: str) -> None:
        before = len(nodes[node].node.processes)
        for name in ("os.system", "atomr.process.spawn"):
            with pytest.raises(SpawnRefusedError) as caught:
                await spawn_on(node, name, "ls")
            assert str(caught.value) == (
                f"spawn_on({node!r}, {name!r}): it is not allowed there:"
                f" RemoteProcesses(..., spawns={{{name!r}: fn}}) on {node} allows it"
            )
        with pytest.raises(SpawnRefusedError, match="missing a required argument"):
            await spawn_on(node, "worker")
        assert len(nodes[node].node.processes) == before

    async with open_mesh(authority, "ab", remote) as nodes:
        with trio.fail_after(10):
            await nodes["a"].run(use, "b")
            await nodes["a"].run(use, "a")
            with pytest.raises(UnregisteredMessageError):
                await nodes["a"].run(spawn_on, "b", "worker", Unknown(1))
            with pytest.raises(NoConnectionError):
                await nodes["a"].run(spawn_on, "c", "worker")


async def test_the_process_of_the_service_outlives_nonsense(
    authority: Authority,
) -> None:
    async def use() -> None:
        service = at("b", "atomr.remote")
        cast(service, "nonsense")
        send(service, ["nonsense"])
        nonsense: list[object] = ["it", ("spawn", 1, ()), ("spawn", "worker", [])]
        for request in nonsense:
            with pytest.raises(RemoteError) as caught:
                await call(service, request)
            assert caught.value.type_name == "ValueError"

    async with open_mesh(authority, "ab", remote) as nodes:
        pid = nodes["b"].node.names["atomr.remote"].pid
        with trio.fail_after(10):
            await nodes["a"].run(use)
        assert nodes["b"].node.names["atomr.remote"].pid is pid


def plain() -> None:
    return


def test_only_async_functions_can_be_allowed() -> None:
    with pytest.raises(TypeError, match="spawns\\['worker'\\]"):
        RemoteProcesses(MESSAGES, spawns={"worker": plain})  # type: ignore[dict-item]
