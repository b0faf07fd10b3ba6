"""What ended is gone at once: no object of it waits for a garbage collection.

A process that only a collection could free is memory that grows until one comes,
and a file or a model that stays open meanwhile.  So the collector is off here,
and afterwards no process, task, cancel scope, timer or call of the program may
be alive; what a cycle keeps would be found among the collector's objects.

A crash is the exception: it is the exit reason, its traceback holds the frames,
and these hold the process.  There one collection must free all.
"""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr.core.exits import SHUTDOWN
from atomr.core.messages import Down
from atomr.errors import AtomrError, CallTimeoutError, ProcessKilledError
from atomr.otp import (
    AutoShutdown,
    DynamicSupervisor,
    From,
    GenServer,
    NoReply,
    Ok,
    PartitionRef,
    PartitionSupervisor,
    Registry,
    RegistryRef,
    Reply,
    Restart,
    Stop,
    Strategy,
    Supervisor,
    TaskSupervisor,
    async_nolink,
    call,
    cast,
    child,
    start_child,
    terminate_child,
)
from atomr.process import (
    Node,
    attached,
    exit_process,
    kill,
    link,
    monitor,
    open_node,
    receive,
    send,
    send_after,
    spawn,
    stop,
    trap_exit,
    wait_exit,
    whereis,
)
from atomr.process.behaviour import Startable
from atomr.process.parking import ParkSpot
from atomr.process.process import Process
from atomr.process.timers import Timer, TimerService
from atomr.refs import Pid, Ref

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

KINDS = (
    Process,
    Startable,
    Pid,
    Ref,
    From,
    ParkSpot,
    Timer,
    TimerService,
    Node,
    trio.CancelScope,
    trio.Nursery,
    trio.lowlevel.Task,
)
settle = trio.testing.wait_all_tasks_blocked


def alive() -> list[object]:
    """Return what there is of such kinds, in use or in a cycle.

    trio keeps a scope that had a deadline until that has passed.
    """
    return [
        o
        for o in gc.get_objects()
        if isinstance(o, KINDS)
        and not (isinstance(o, trio.CancelScope) and o.deadline < inf)
    ]


@contextmanager
def nothing_left(*, collections: int = 0) -> Iterator[None]:
    """Assert that all made inside is freed without a collection, or with some."""
    gc.disable()
    # What there is already is not looked at: get_objects knows only what comes.
    # It stays so, as it is since the tests were collected.
    gc.collect()
    gc.freeze()
    try:
        yield
        for _ in range(collections):
            gc.collect()
        left = alive()
        assert left == [], left
    finally:
        gc.enable()


class Lean(GenServer):
    """Does as it is told, without a task."""

    def __init__(self) -> None:
        self.kept: list[From] = []

    def handle_call(self, request: object, from_: From) -> Reply | NoReply | Stop:
        match request:
            case "crash":
                raise ValueError(request)
            case "keep":
                self.kept.append(from_)
                return NoReply()
            case "stop":
                return Stop(reply="stopping")
        return Reply(request)

    def handle_cast(self, message: object) -> None:
        if message == "crash":
            raise ValueError(message)
        for from_ in self.kept:
            from_.reply(message)
        self.kept.clear()

    def terminate(self, reason: object) -> None:
        self.kept.clear()


class WithTask(Lean):
    """The same, waiting for a moment wherever it can."""

    async def init(self) -> None:
        await trio.lowlevel.checkpoint()

    async def handle_call(  # type: ignore[override]
        self, request: object, from_: From
    ) -> Reply | NoReply | Stop:
        await trio.lowlevel.checkpoint()
        if request == "slow":
            await trio.sleep(1.0)
        return super().handle_call(request, from_)

    async def handle_cast(self, message: object) -> None:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        super().handle_cast(message)

    async def terminate(self, reason: object) -> None:  # type: ignore[override]
        await trio.sleep(0.1)
        super().terminate(reason)


def several(kind: type[Lean]) -> Supervisor:
    specs = [child(kind, id=id_, name=id_) for id_ in "abc"]
    return Supervisor(specs, strategy=Strategy.ONE_FOR_ALL, max_restarts=9)


# --- programs: each is run for servers with and without a task ------------------------


async def serve_and_stop(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))
    for id_ in "abc":
        assert await call(id_, 1) == 1
        cast(id_, 2)
        send(id_, 3)
    await settle()


async def crash(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))
    with suppress(AtomrError):
        await call("a", "crash")
    await trio.sleep(1.0)
    cast("b", "crash")
    await trio.sleep(1.0)


async def be_killed(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))
    for id_ in "abc":
        pid = whereis(id_)
        assert pid is not None
        kill(pid)
        await trio.sleep(1.0)


async def stop_by_themselves(node: Node, kind: type[Lean]) -> None:
    top = await node.start(DynamicSupervisor())
    spec = child(kind, restart=Restart.TEMPORARY)
    assert await call(await start_child(top, spec), "stop") == "stopping"
    await stop(await start_child(top, spec))
    await terminate_child(top, await start_child(top, spec))
    exit_process(await start_child(top, spec), SHUTDOWN)
    await settle()


class Dozes(GenServer):
    """Has a task for as long as it handles something."""

    def __init__(self, first: Ok | None = None) -> None:
        self.first = first

    def init(self) -> Ok | None:
        return self.first

    async def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(request, hibernate=True)

    async def handle_continue(self, continuation: object) -> None:
        await trio.sleep(0.1)


async def end_without_a_task(node: Node, kind: type[Lean]) -> None:
    top = await node.start(DynamicSupervisor())
    dozes = child(Dozes, restart=Restart.TEMPORARY)
    await stop(await start_child(top, dozes))
    await terminate_child(top, await start_child(top, dozes))
    for end in (stop, wait_killed):
        pid = await start_child(top, dozes)
        for _ in range(2):
            await call(pid, 1)
            await settle()
        await end(pid)
    for first in (Ok(continue_=1), Ok(timeout_s=1)):
        await wait_killed(
            await start_child(top, attrs.evolve(dozes, start=partial(Dozes, first)))
        )
    await start_child(top, dozes)


async def wait_killed(pid: Pid) -> None:
    kill(pid)
    await wait_exit(pid)


async def give_up(node: Node, kind: type[Lean]) -> None:
    spec = child(
        lambda: Supervisor([child(kind, name="a")], max_restarts=0), id="inner"
    )
    await node.start(Supervisor([spec]))
    cast("a", "crash")
    await trio.sleep(1.0)


async def shut_down(node: Node, kind: type[Lean]) -> None:
    spec = child(kind, name="a", significant=True, restart=Restart.TRANSIENT)
    inner = Supervisor([spec], auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)
    await node.start(child(lambda: inner, id="inner", restart=Restart.TEMPORARY))
    await call("a", "stop")
    await trio.sleep(1.0)


async def fail_to_start(node: Node, kind: type[Lean]) -> None:
    class Fails(kind):  # type: ignore[misc, valid-type]
        def init(self) -> None:
            raise ValueError("init")

    top = await node.start(DynamicSupervisor())
    with suppress(AtomrError):
        await start_child(top, child(Fails))
    with suppress(AtomrError):
        await node.start(Supervisor([child(kind), child(Fails)]))


async def cancel_a_start(node: Node, kind: type[Lean]) -> None:
    class Slow(kind):  # type: ignore[misc, valid-type]
        async def init(self) -> None:
            await trio.sleep(2.0)

    with trio.move_on_after(0.5):
        await node.start(Supervisor([child(kind), child(Slow)]))
    top = await node.start(DynamicSupervisor())
    with trio.move_on_after(0.5):
        await start_child(top, child(Slow))
    with suppress(AtomrError):
        await start_child(top, child(Slow, init_timeout_s=0.5))
    await trio.sleep(3.0)


async def run_out_of_time(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))
    for request in ("keep", "slow"):
        with suppress(CallTimeoutError):
            await call("a", request, timeout_s=0.2)
    with trio.move_on_after(0.1):
        await call("b", "keep")
    await trio.sleep(1.0)
    cast("a", "late")
    await settle()


async def defer_calls(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))

    async def ask(id_: str) -> None:
        with suppress(AtomrError):
            await call(id_, "keep")

    async with trio.open_nursery() as nursery:
        for id_ in "aabbc":
            nursery.start_soon(ask, id_)
        await settle()
        cast("a", "answered")
        pid = whereis("b")
        assert pid is not None
        await stop(pid)


async def attach(node: Node, kind: type[Lean]) -> None:
    top = await node.start(DynamicSupervisor())
    async with attached(top, id="block"):
        await trio.sleep(0.1)
    with suppress(ProcessKilledError):
        async with attached(top, id="block") as pid:
            exit_process(pid, SHUTDOWN)
            await trio.sleep_forever()
    with suppress(ValueError):
        async with attached(top, id="block"):
            raise ValueError("from the block")


async def storm_of_links(node: Node, kind: type[Lean]) -> None:
    pids: list[Pid] = []

    async def linked() -> None:
        for pid in pids:
            link(pid)
        await trio.sleep_forever()

    async def watch() -> None:
        trap_exit(True)
        for pid in pids:
            link(pid)
            monitor(pid)
        downs = 0
        while downs < len(pids):
            downs += isinstance(await receive(), Down)

    for _ in range(20):
        pids.append(spawn(linked))
        await settle()
    watcher = spawn(watch)
    await settle()
    exit_process(pids[7], ValueError("all"))
    await wait_exit(watcher)


async def run_timers(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))
    send_after(0.5, "a", "fires")
    send_after(100.0, "a", "never")
    await trio.sleep(1.0)


async def register_keys(node: Node, kind: type[Lean]) -> None:
    keys: RegistryRef[str, None] = RegistryRef("keys")
    await node.start(child(Registry, name="keys"))
    top = await node.start(DynamicSupervisor())
    pids = [await start_child(top, child(kind, name=keys.via(k))) for k in "xyz"]
    await call(keys.via("x"), 1)
    kill(pids[0])
    await trio.sleep(0.5)


async def use_partitions(node: Node, kind: type[Lean]) -> None:
    parts = PartitionRef("parts")
    await node.start(
        child(lambda: PartitionSupervisor(child(kind)), id="parts", name="parts")
    )
    await call(parts.via("x"), 1)
    await parts.resize(2)
    await parts.resize(4)
    pid = parts.whereis(1)
    assert pid is not None
    kill(pid)
    await trio.sleep(0.5)


async def run_tasks(node: Node, kind: type[Lean]) -> None:
    async def fine() -> int:
        await trio.sleep(0.1)
        return 1

    async def bad() -> None:
        await trio.sleep(0.1)
        raise ValueError("bad")

    top = await node.start(TaskSupervisor())
    assert await async_nolink(top, fine).result() == 1
    with suppress(AtomrError):
        await async_nolink(top, bad).result()
    async_nolink(top, fine)


async def raise_in_the_body(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))
    raise ZeroDivisionError


async def be_cancelled(node: Node, kind: type[Lean]) -> None:
    await node.start(several(kind))
    await trio.sleep_forever()


PROGRAMS = [
    serve_and_stop,
    be_killed,
    stop_by_themselves,
    shut_down,
    run_out_of_time,
    defer_calls,
    attach,
    storm_of_links,
    run_timers,
    register_keys,
    use_partitions,
    cancel_a_start,
    raise_in_the_body,
    be_cancelled,
]
CRASHES = [crash, give_up, fail_to_start, run_tasks]


async def run(program: Callable[[Node, Any], Awaitable[None]], kind: object) -> None:
    with suppress(ZeroDivisionError), trio.move_on_after(60.0):
        async with open_node() as node:
            await program(node, kind)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", [Lean, WithTask])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_nothing_waits_for_a_collection(
    program: Callable[[Node, Any], Awaitable[None]],
    kind: type[Lean],
    autojump_clock: trio.testing.MockClock,
) -> None:
    with nothing_left():
        await run(program, kind)
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", [Lean, WithTask])
@pytest.mark.parametrize("program", CRASHES)
async def test_after_a_crash_one_collection_frees_all(
    program: Callable[[Node, Any], Awaitable[None]],
    kind: type[Lean],
    autojump_clock: trio.testing.MockClock,
) -> None:
    with nothing_left(collections=1):
        await run(program, kind)
        await trio.lowlevel.checkpoint()


async def test_what_a_cycle_keeps_is_found() -> None:
    with pytest.raises(AssertionError, match="Lean"), nothing_left():
        kept = Lean()
        kept.kept.append(kept)  # type: ignore[arg-type]
        del kept
