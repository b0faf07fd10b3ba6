"""The process behind a probe, and what a test does in its name.

A third kind of process: it has no task and no code, so its messages wait in the
mailbox, and its end is at once.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, TypeVar, overload

from atomr.core.exits import NORMAL, SHUTDOWN, ExitReason
from atomr.errors import AtomrInternalError, NotAProcessError
from atomr.process import signals
from atomr.process.behaviour import Startable
from atomr.process.calls import DEFAULT_TIMEOUT_S, From, Request, call, cast
from atomr.process.context import CURRENT
from atomr.process.process import Process, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr.process.node import Node
    from atomr.process.parking import ParkSpot
    from atomr.process.task_process import TaskProcess
    from atomr.refs import Address, Pid, Ref

R = TypeVar("R")


class _ProbeCode(Startable):
    def process_label(self) -> str:
        return "Probe"

    def stops_gracefully(self, process: Process) -> bool:
        return False

    async def run_process(self, process: TaskProcess) -> ExitReason:
        raise AtomrInternalError(f"{process.pid!r} has no task")


class ProbeProcess(Process):
    """The mailbox of a probe; ``idle`` while somebody waits for a message."""

    __slots__ = ("waiters",)

    task = None

    def __init__(self, node: Node, label: str) -> None:
        # An end is at once, so there is nothing for a shutdown time to bound.
        super().__init__(node, _ProbeCode(), label=label, parent=node, shutdown=inf)
        self.waiters: list[ParkSpot] = []
        self.trapping = True

    def wake(self) -> None:
        """Let the test look."""
        self.idle = False
        for spot in self.waiters:
            spot.wake()

    def call_now(self, ref: From) -> None:
        """Put the call with the rest: the test answers it."""
        self.deliver(ref)

    def inject(self, error: BaseException) -> None:
        """Crash at once: there is no code that could go on."""
        if self.status is not Status.EXITED:
            self.report_crash(error)
            self.cancel(error)

    def cancel(self, reason: ExitReason) -> None:
        """End at once."""
        if self.status is not Status.EXITED:
            self.finish(reason)
            self.wake()

    def end_around(self) -> None:
        """End with the node."""
        self.cancel(SHUTDOWN)


class Acting:
    """What a test does in the name of a process of its own.

    Args:
        process: in whose name.
    """

    def __init__(self, process: ProbeProcess) -> None:
        self._process = process

    @property
    def pid(self) -> Pid:
        """Its address."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.status is not Status.EXITED

    def send(self, to: Address, message: object) -> None:
        """Send a message."""
        with self._as_current():
            signals.send(to, message)

    def cast(self, to: Address, message: object) -> None:
        """Cast a message."""
        with self._as_current():
            cast(to, message)

    @overload
    async def call(
        self,
        server: Address,
        request: Request[R],
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> R: ...
    @overload
    async def call(
        self,
        server: Address,
        request: object,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> object: ...
    async def call(
        self,
        server: Address,
        request: object,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> object:
        """Call a server: the server sees the probe as the caller.

        Raises:
            CallError: as :func:`atomr.process.call`.
        """
        with self._as_current():
            return await call(server, request, timeout_s=timeout_s)

    def monitor(self, target: Address) -> Ref:
        """Be told of a process' end, once; see :meth:`expect_down`."""
        with self._as_current():
            return signals.monitor(target)

    def demonitor(self, ref: Ref) -> bool:
        """Undo :meth:`monitor`; return whether it was still there."""
        with self._as_current():
            return signals.demonitor(ref)

    def link(self, pid: Pid) -> None:
        """Link with a process; see :meth:`expect_exit`."""
        with self._as_current():
            signals.link(pid)

    def unlink(self, pid: Pid) -> None:
        """Undo :meth:`link`."""
        with self._as_current():
            signals.unlink(pid)

    def exit_process(self, pid: Pid, reason: ExitReason) -> None:
        """Send an exit signal."""
        with self._as_current():
            signals.exit_process(pid, reason)

    def end(self, reason: ExitReason = NORMAL) -> None:
        """End the probe with that reason; who is linked or watches is told."""
        self._process.cancel(reason)

    @contextmanager
    def _as_current(self) -> Iterator[None]:
        self._check_alive()
        before = CURRENT.set(self._process)
        try:
            yield
        finally:
            CURRENT.reset(before)

    def _check_alive(self) -> None:
        if not self.alive:
            reason = self._process.reason
            raise NotAProcessError(f"{self.pid!r} has ended with {reason!r}")
