"""Context variables: what other runtimes keep in a process dictionary."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    NoReply,
    Ok,
    Reply,
    Restart,
    call,
    cast,
    child,
    start_child,
)
from atomr.process import (
    Node,
    PlainProcess,
    attached,
    kill,
    send_after,
    spawn,
    wait_exit,
    whereis,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Plain(GenServer):
    """Notes what each callback sees, and sets another."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def note(self, callback: str) -> None:
        self.seen.append(f"{callback} {tenant.get()}")
        tenant.set(callback)

    def init(self) -> Ok:
        self.note("init")
        return Ok(continue_=None)

    def handle_continue(self, continuation: None) -> NoReply:
        self.note("continue")
        return NoReply()

    def handle_call(self, request: object, from_: From) -> Reply:
        self.note("call")
        return Reply(None)

    def handle_cast(self, message: object) -> None:
        self.note("cast")

    def handle_info(self, message: object) -> NoReply:
        self.note("info")
        return NoReply()

    def terminate(self, reason: object) -> None:
        self.note("terminate")


class AsyncCall(Plain):
    async def handle_call(  # type: ignore[override]
        self, request: object, from_: From
    ) -> Reply:
        await trio.lowlevel.checkpoint()
        return super().handle_call(request, from_)


class AsyncAll(AsyncCall):
    async def init(self) -> Ok:  # type: ignore[override]
        return super().init()

    async def terminate(self, reason: object) -> None:  # type: ignore[override]
        super().terminate(reason)


async def see(seen: list[str]) -> None:
    seen.append(tenant.get())
    tenant.set("the process's")


@pytest.fixture(params=[Plain, AsyncCall, AsyncAll])
def server(request: pytest.FixtureRequest) -> type[Plain]:
    kind: type[Plain] = request.param
    return kind


async def test_a_spawned_process_has_a_copy_of_its_starters_context(
    clean_node: CleanNode,
) -> None:
    seen: list[str] = []
    async with clean_node():
        tenant.set("ann")
        pid = spawn(see, seen)
        tenant.set("bob")
        await wait_exit(pid)

        assert (seen, tenant.get()) == (["ann"], "bob")


async def test_all_callbacks_of_a_server_share_one_context_which_no_caller_sees(
    clean_node: CleanNode, server: type[Plain], schedule: int
) -> None:
    seen: list[str] = []
    async with clean_node() as node:
        tenant.set("starter")
        pid = await node.start(child(lambda: server(seen), id="server"))
        tenant.set("caller")
        await call(pid, 1)
        await call(pid, 2)
        cast(pid, 3)
        send_after(0.0, pid, 4)
        await trio.sleep(0.001)
        await settle()
        assert tenant.get() == "caller"

    assert seen == [
        "init starter",
        "continue init",
        "call continue",
        "call call",
        "cast call",
        "info cast",
        "terminate info",
    ]


async def supervisor_of(node: Node, context: str) -> Pid:
    """Start a supervisor from a context in which ``tenant`` is that."""
    before = tenant.set(context)
    try:
        return await node.start(child(DynamicSupervisor))
    finally:
        tenant.reset(before)


async def test_a_child_has_a_copy_of_its_supervisors_context_not_of_who_asked_for_it(
    clean_node: CleanNode, server: type[Plain]
) -> None:
    seen: list[str] = []
    async with clean_node() as node:
        supervisor = await supervisor_of(node, "supervisor")
        tenant.set("caller")
        await start_child(supervisor, child(lambda: server(seen), id="server"))
        plain = child(
            lambda: PlainProcess(see, seen), id="plain", restart=Restart.TEMPORARY
        )
        await wait_exit(await start_child(supervisor, plain))

    assert [line for line in seen if "caller" in line] == []
    assert seen[0] == "init supervisor"
    assert "supervisor" in seen


async def test_a_restarted_child_starts_from_its_supervisors_context_again(
    clean_node: CleanNode, server: type[Plain]
) -> None:
    seen: list[str] = []
    async with clean_node() as node:
        supervisor = await supervisor_of(node, "supervisor")
        spec = child(lambda: server(seen), id="server", name="server")
        await start_child(supervisor, spec)
        await settle()
        kill(whereis("server"))  # type: ignore[arg-type]
        await settle()
        await call("server", 1)

    assert [line for line in seen if line.startswith("init")] == [
        "init supervisor",
        "init supervisor",
    ]


async def test_a_block_that_is_attached_keeps_the_context_of_its_task(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        supervisor = await supervisor_of(node, "supervisor")
        tenant.set("task")
        async with attached(supervisor, id="block"):
            assert tenant.get() == "task"
            tenant.set("block")
        assert tenant.get() == "block"
