"""Servers of each kind, and processes of each, that do what they are told."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
import trio.testing

from atomr.core.exits import ExitReason, Shutdown
from atomr.errors import ProcessKilledError
from atomr.otp import (
    DynamicSupervisor,
    Fail,
    From,
    GenServer,
    NoReply,
    Reply,
    Restart,
    Supervisor,
    child,
)
from atomr.process import (
    Node,
    attached,
    receive,
    spawn,
    trap_exit,
    wait_exit,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
Log: TypeAlias = list[Any]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("crash")
DETAIL = Shutdown("detail")
LIVES = "lives"


def do(job: Any, *args: object) -> Any:
    """Call a function, return anything else."""
    return job(*args) if callable(job) else job


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises."""

    def fail(*_args: object) -> None:
        raise error

    return fail


class Told(GenServer):
    """Each callback does, or returns, what the message says; without a task."""

    def __init__(self, log: Log, init: Any = None, terminate: Any = None) -> None:
        self.log = log
        self._init = init
        self._terminate = terminate

    def init(self) -> Any:
        return do(self._init)

    def handle_call(self, request: Any, from_: From) -> Any:
        return do(request, from_)

    def handle_cast(self, message: Any) -> Any:
        return do(message)

    def handle_info(self, message: Any) -> Any:
        if callable(message):
            return message()
        self.log.append(message)
        return None

    def handle_continue(self, continuation: Any) -> Any:
        return do(continuation)

    def terminate(self, reason: ExitReason) -> Any:
        self.log.append(("terminate", reason))
        return do(self._terminate)


class ToldTask(Told):
    """The same in a task; what a function returns may be waited for."""

    async def init(self) -> Any:
        return await _waited(super().init())

    async def handle_call(self, request: Any, from_: From) -> Any:
        return await _waited(super().handle_call(request, from_))

    async def handle_cast(self, message: Any) -> Any:
        return await _waited(super().handle_cast(message))

    async def handle_info(self, message: Any) -> Any:
        return await _waited(super().handle_info(message))

    async def handle_continue(self, continuation: Any) -> Any:
        return await _waited(super().handle_continue(continuation))

    async def terminate(self, reason: ExitReason) -> Any:
        return await _waited(super().terminate(reason))


class ToldDormant(ToldTask):
    """The same, put away after each message; it has no task until the first."""

    def init(self) -> Any:
        return Told.init(self)

    async def handle_call(self, request: Any, from_: From) -> Any:
        result = await super().handle_call(request, from_)
        if isinstance(result, Reply) and result.plain:
            return Reply(result.value, hibernate=True)
        if isinstance(result, Fail) and result.plain:
            return Fail(result.error, hibernate=True)
        return _resting(result)

    async def handle_cast(self, message: Any) -> Any:
        return _resting(await super().handle_cast(message) or NoReply())

    async def handle_info(self, message: Any) -> Any:
        return _resting(await super().handle_info(message) or NoReply())

    async def handle_continue(self, continuation: Any) -> Any:
        return _resting(await super().handle_continue(continuation) or NoReply())


class Bare(GenServer):
    """Has no callback at all; without a task."""


class BareTask(GenServer):
    """Has no callback but one that makes it a task."""

    async def init(self) -> None:
        pass


Kind: TypeAlias = type[Told]
KINDS: dict[str, Kind] = {"lean": Told, "task": ToldTask, "dormant": ToldDormant}


async def _waited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _resting(result: Any) -> Any:
    if isinstance(result, NoReply) and result.plain:
        return NoReply(hibernate=True)
    return result


async def start(
    node: Node,
    kind: Kind,
    log: Log | None = None,
    *,
    init: Any = None,
    terminate: Any = None,
    restart: Restart = Restart.TEMPORARY,
    **options: Any,
) -> Pid:
    """Start a server that ends for itself, and let it go to sleep."""
    log = [] if log is None else log
    options.setdefault("id", "server")
    spec = child(lambda: kind(log, init, terminate), restart=restart, **options)
    pid = await node.start(spec)
    await settle()
    return pid


def trap() -> None:
    """Trap exits; for ``init``."""
    trap_exit(True)


async def collect(into: Log, before: Callable[[], object] = lambda: None) -> None:
    """Put each message into a list; call those that are functions."""
    before()
    while True:
        message = await receive()
        if callable(message):
            message()
        else:
            into.append(message)


async def _attached(supervisor: Pid, into: Log, before: Callable[[], object]) -> None:
    try:
        async with attached(supervisor, id="attached") as pid:
            into.append(pid)
            await collect(into, before)
    except ProcessKilledError:
        pass


RECEIVERS = ("plain", "lean", "task", "attached")


class Receivers:
    """Starts processes of each kind that put what they get into a list."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        self.node = node
        self.nursery = nursery
        self._supervisor: Pid | None = None

    async def start(self, kind: str, into: Log, before: Any = lambda: None) -> Pid:
        """Start one and let it go to sleep; ``before`` runs in it first."""
        if kind == "plain":
            pid = spawn(collect, into, before)
        elif kind == "attached":
            if self._supervisor is None:
                self._supervisor = await self.node.start(DynamicSupervisor())
            self.nursery.start_soon(_attached, self._supervisor, into, before)
            await settle()
            pid = into.pop()
        elif kind == "supervisor":
            spec = child(Supervisor, id="receiver", restart=Restart.TEMPORARY)
            pid = await self.node.start(spec)
        else:
            server = Told if kind == "lean" else ToldTask
            pid = await start(self.node, server, into, init=before)
            into[:] = []
        await settle()
        return pid


def end_of(node: Node, pid: Pid) -> Callable[[], ExitReason | str]:
    """Return what tells the exit reason of a process, or that it lives."""
    process = node.processes[pid.number]
    return lambda: LIVES if process.reason is None else process.reason


async def reason_of(pid: Pid, act: Callable[[], object]) -> ExitReason:
    """Do something, and return the reason that the process ends with."""
    reasons: list[ExitReason] = []

    async def watch() -> None:
        reasons.append(await wait_exit(pid))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await settle()
            act()
    return reasons[0]
