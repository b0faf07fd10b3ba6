"""The node: what its roots' ends mean, what leaves its block."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.errors import RootExitError, StartError
from atomr.otp import (
    DynamicSupervisor,
    GenServer,
    Restart,
    Stop,
    Supervisor,
    cast,
    child,
    start_child,
    terminate_child,
)
from atomr.process import (
    Node,
    PlainProcess,
    attached,
    current_node,
    kill,
    open_node,
    spawn,
    wait_exit,
    whereis,
)
from atomr.process.process import Process

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")


class Ends(GenServer):
    def handle_cast(self, reason: ExitReason) -> Stop:
        return Stop(reason)


@pytest.mark.parametrize(
    ("restart", "reason", "ends"),
    [
        (Restart.PERMANENT, NORMAL, True),
        (Restart.PERMANENT, CRASH, True),
        (Restart.TRANSIENT, NORMAL, False),
        (Restart.TRANSIENT, SHUTDOWN, True),
        (Restart.TRANSIENT, CRASH, True),
        (Restart.TEMPORARY, NORMAL, False),
        (Restart.TEMPORARY, CRASH, False),
    ],
)
async def test_what_the_end_of_a_root_means_for_the_node(
    restart: Restart, reason: ExitReason, ends: bool
) -> None:
    error: RootExitError | None = None
    try:
        async with open_node() as node:
            pid = await node.start(child(Ends, restart=restart))
            cast(pid, reason)
            await settle()
            await trio.lowlevel.checkpoint()
    except RootExitError as raised:
        error = raised

    assert (error is not None) is ends
    if error is not None:
        assert (error.pid, error.reason) == (pid, reason)
        assert error.__cause__ is (reason if reason is CRASH else None)


async def test_the_others_still_stop_in_order_when_a_root_ends_the_node(
    schedule: int,
) -> None:
    ended: list[str] = []

    class Says(Ends):
        def __init__(self, name: str) -> None:
            self.name = name

        async def terminate(self, reason: ExitReason) -> None:
            await trio.lowlevel.checkpoint()
            ended.append(self.name)

    with pytest.raises(RootExitError):
        async with open_node() as node:
            pids = [await node.start(Says(name)) for name in "abc"]
            cast(pids[1], CRASH)
            await trio.sleep_forever()

    assert ended == ["b", "c", "a"]


async def test_the_bodys_own_error_leaves_the_block_as_it_is(schedule: int) -> None:
    """No exception group around it, and the processes have stopped before."""
    ended: list[str] = []

    class Says(GenServer):
        async def terminate(self, reason: ExitReason) -> None:
            await trio.lowlevel.checkpoint()
            ended.append("stopped")

    with pytest.raises(ValueError, match="x") as caught:
        async with open_node() as node:
            await node.start(Says())
            raise CRASH

    assert (caught.value, ended) == (CRASH, ["stopped"])


async def test_the_bodys_own_error_carries_a_note_of_a_roots_end() -> None:
    with pytest.raises(KeyError) as caught:
        async with open_node() as node:
            pid = await node.start(Ends())
            try:
                cast(pid, CRASH)
                await trio.sleep_forever()
            finally:
                raise KeyError("clean-up")

    assert caught.value.__notes__ == [
        "meanwhile root <Pid 1 Ends> exited: ValueError('x')"
    ]


async def test_a_stopping_node_starts_nothing(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await node.stop()
        with pytest.raises(StartError, match="the node is stopping"):
            await node.start(Ends())


async def test_nodes_are_nested_and_apart(clean_node: CleanNode) -> None:
    async with clean_node() as outer:
        await outer.start(child(Ends, name="it"))
        async with open_node("inner") as inner:
            assert (current_node(), whereis("it")) == (inner, None)
            assert repr(inner) == "<Node inner with 0 processes>"
        assert current_node() is outer
        assert whereis("it") is not None


async def test_a_process_that_is_spawned_by_a_process_lives_on_the_same_node(
    clean_node: CleanNode,
) -> None:
    seen: list[Node] = []

    async def inner() -> None:
        seen.append(current_node())

    async def outer() -> None:
        seen.append(current_node())
        spawn(inner)

    async with clean_node() as node:
        await wait_exit(spawn(outer))
        await settle()

    assert seen == [node, node]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_process_passes_up(
    error: type[BaseException], grouped: bool
) -> None:
    reasons: list[object] = []

    async def interrupt() -> None:
        raise error

    async def interrupted() -> None:
        if not grouped:
            await interrupt()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)

    async def main() -> None:
        async with open_node() as node:
            process = node.processes[spawn(interrupted).number]
            try:
                await trio.sleep_forever()
            finally:
                reasons.append(type(process.reason))

    with pytest.raises(error):
        trio.run(main)

    assert reasons == [error]


def test_control_c_in_the_body_stops_the_processes_in_order_and_is_raised() -> None:
    ended: list[str] = []

    class Says(GenServer):
        def __init__(self, name: str) -> None:
            self.name = name

        async def terminate(self, reason: ExitReason) -> None:
            await trio.lowlevel.checkpoint()
            ended.append(self.name)

    async def main() -> None:
        async with open_node() as node:
            for name in "ab":
                await node.start(Says(name))
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)

    assert ended == ["b", "a"]


async def test_a_hundred_processes_of_each_kind_leave_nothing(
    clean_node: CleanNode, schedule: int
) -> None:
    async def loop() -> None:
        await trio.sleep_forever()

    async with clean_node() as node:
        for n in range(100):
            spawn(loop, name=f"plain {n}")
            await node.start(child(Ends, id=f"s{n}", name=f"server {n}"))
            spec = child(lambda: PlainProcess(loop), id="p")
            await node.start(Supervisor([spec]))
        assert node.size == 400


async def test_a_root_lives_on_its_own_node_whoever_starts_it(
    clean_node: CleanNode,
) -> None:
    seen: list[Node] = []

    class Looks(GenServer):
        def init(self) -> None:
            seen.append(current_node())

    async with clean_node() as outer, open_node("inner"):
        await outer.start(Looks())

    assert seen == [outer]


@pytest.mark.slow
async def test_ended_processes_are_freed_without_the_garbage_collector(
    clean_node: CleanNode,
) -> None:
    def alive() -> int:
        return sum(isinstance(each, Process) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    # Errors that other tests keep hold processes through their tracebacks.
    before = alive()
    try:
        async with clean_node() as node:
            top = await node.start(DynamicSupervisor())
            for _ in range(100):
                spec = child(Ends, restart=Restart.TEMPORARY)
                await terminate_child(top, await start_child(top, spec))
                async with attached(top, id="r"):
                    pass
            await trio.lowlevel.checkpoint()
            kept = alive() - before
    finally:
        gc.enable()

    # The supervisor, and at most what its task has just let go of.
    assert kept <= 3


async def test_a_spawned_process_that_is_killed_means_nothing_to_the_node(
    clean_node: CleanNode,
) -> None:
    async with clean_node():
        pid = spawn(trio.sleep_forever)
        kill(pid)
        assert await wait_exit(pid) is KILLED
