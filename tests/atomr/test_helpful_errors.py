"""What a mistake is answered with: which it is, and the way out."""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import atomr.otp
from atomr.errors import (
    CallCycleError,
    CallTimeoutError,
    NoNodeError,
    NoProcessError,
    NoRegistryError,
    ServerDownError,
    StartError,
    WrongThreadError,
)
from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    NoReply,
    PubSub,
    RegistryRef,
    Reply,
    Restart,
    Supervisor,
    call,
    child,
    start_child,
    which_children,
)
from atomr.process import current_node, exit_process, is_alive, link, self_pid, spawn
from atomr.process.node import open_node

if TYPE_CHECKING:
    from atomr.refs import Pid
    from tests.atomr.conftest import CleanNode


class Divider(GenServer):
    """Divides 12."""

    def handle_call(self, request: int, from_: From) -> Reply:
        return Reply(12 // request)


async def test_the_callers_traceback_shows_where_the_server_failed(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Divider, restart=Restart.TEMPORARY))
        with pytest.raises(ServerDownError) as caught:
            await call(pid, 0)
        assert caught.value.__cause__ is caught.value.reason
        shown = "".join(traceback.format_exception(caught.value))
        assert "return Reply(12 // request)" in shown


@pytest.mark.parametrize("dynamic", [False, True])
async def test_a_child_that_asks_its_supervisor_while_that_starts_it_is_told_so(
    clean_node: CleanNode, schedule: int, dynamic: bool
) -> None:
    above: list[Pid] = []

    class Curious(GenServer):
        async def init(self) -> None:
            await which_children(above[0])

    async with clean_node() as node:
        make = DynamicSupervisor if dynamic else Supervisor
        spec = child(Curious, restart=Restart.TEMPORARY)
        above.append(await node.start(child(make)))
        with pytest.raises(StartError) as caught:
            await start_child(above[0], spec)
        error = caught.value.reason
        assert isinstance(error, CallCycleError)
        asker, asked, again = error.chain
        assert (asked, again) == (above[0], asker)
        # Afterwards it waits for nobody, and may be asked.
        assert [row for row in await which_children(above[0]) if row.pid] == []


async def test_one_who_asks_a_supervisor_that_starts_another_just_waits(
    clean_node: CleanNode, schedule: int
) -> None:
    go = trio.Event()

    class Slow(GenServer):
        async def init(self) -> None:
            await go.wait()

    async with clean_node() as node:
        top = await node.start(child(DynamicSupervisor))
        counts: list[int] = []

        async def ask() -> None:
            counts.append(len(await which_children(top)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_child, top, child(Slow))
            await trio.testing.wait_all_tasks_blocked()
            asker = spawn(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert is_alive(asker)
            go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert counts == [1]


async def test_a_deadlock_that_is_an_exit_reason_still_says_so(
    clean_node: CleanNode,
) -> None:
    class Selfish(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(await call(self_pid(), request))

    async with clean_node() as node:
        pid = await node.start(child(Selfish, restart=Restart.TEMPORARY))
        with pytest.raises(ServerDownError, match="deadlock <Pid 1 Selfish>"):
            await call(pid, 1)


async def test_a_call_from_another_thread_is_refused_before_it_is_served_there(
    clean_node: CleanNode,
) -> None:
    served_in: list[int] = []

    class Where(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            served_in.append(threading.get_ident())
            return Reply(None)

    async with clean_node() as node:
        pid = await node.start(Where())

        async def ask() -> None:
            await call(pid, 1)

        # Another run of trio, in a thread, as an asyncio library's might be.
        with pytest.raises(WrongThreadError, match=r"use atomr\.interop\.from_thread"):
            await trio.to_thread.run_sync(trio.run, ask)
        assert served_in == []
        await call(pid, 1)
        assert served_in == [threading.get_ident()]


async def test_a_time_out_that_is_no_number_is_refused_where_it_would_count(
    clean_node: CleanNode,
) -> None:
    class Silent(GenServer):
        def handle_call(self, request: object, from_: From) -> NoReply:
            return NoReply()

    async with clean_node() as node:
        pid = await node.start(Silent())
        with pytest.raises(ValueError, match="timeout_s=nan"):
            await call(pid, 1, timeout_s=float("nan"))
        with pytest.raises(CallTimeoutError):
            await call(pid, 1, timeout_s=-1)
        process = node.processes[pid.number]
        assert not process.deferred


async def test_code_that_is_no_trio_task_is_told_what_to_use() -> None:
    with pytest.raises(NoNodeError, match="this task runs outside open_node"):
        current_node()
    with pytest.raises(NoNodeError, match="this is no trio task; a thread talks to"):
        await trio.to_thread.run_sync(current_node)


async def test_a_registry_that_does_not_run_is_named(clean_node: CleanNode) -> None:
    names: RegistryRef[str, int] = RegistryRef("names")
    async with clean_node():
        with pytest.raises(NoRegistryError) as caught:
            names.lookup("key")
        assert str(caught.value) == "no registry runs under the name 'names'"
        assert isinstance(caught.value, NoProcessError)
        with pytest.raises(NoRegistryError, match="the name 'news'"):
            PubSub[str]("news").broadcast("weather", "rain")


async def test_exits_and_links_take_names(clean_node: CleanNode) -> None:
    ended: list[str] = []

    async def run(name: str, other: str | None) -> None:
        try:
            if other is not None:
                link(other)
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async with clean_node():
        spawn(run, "a", None, name="a")
        spawn(run, "b", "a", name="b")
        await trio.testing.wait_all_tasks_blocked()
        exit_process("a", ValueError("linked"))
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["a", "b"]
        assert not is_alive("a")


def test_a_star_import_leaves_the_standard_library_alone() -> None:
    assert "sys" not in atomr.otp.__all__
    assert atomr.otp.sys.get_state.__module__ == "atomr.otp.sys"


def test_a_node_outside_trio_says_what_is_missing() -> None:
    async def main() -> None:
        async with open_node():
            pass

    with pytest.raises(NoNodeError, match=r"open_node\(\) needs trio: run"):
        main().send(None)
