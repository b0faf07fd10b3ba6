"""What both supervisors share: the frame, the loop, and single starts.

A supervisor is a process whose nursery holds its children's tasks, so no child
can outlive it.  It looks, in this order, at: its own stop, restarts that are
due, ends of children, requests.  So what the end of one child leads to is done
before the next end is looked at, as in OTP.

While it waits for a child's ``init`` or end it does nothing else, as in OTP,
with one exception: its own stop interrupts an ``init``.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import deque
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final

import trio

from atomr import telemetry
from atomr.core.child_spec import ChildKind
from atomr.core.exits import ExitReason, Shutdown
from atomr.core.intensity import RestartIntensity, check_backoff
from atomr.core.supervision import GaveUp
from atomr.errors import short
from atomr.otp.child_row import Child, aborted_start
from atomr.process.behaviour import Startable, StopRequest
from atomr.process.calls import ChildWait, From
from atomr.process.process import end_all
from atomr.process.report import log
from atomr.process.starting import StartAbortedError, prepare, run_init
from atomr.process.stopping import begin_stop, wait_ended
from atomr.process.system import serve_system

if TYPE_CHECKING:
    from atomr.core.child_spec import ChildSpec
    from atomr.process.process import Process
    from atomr.process.task_process import TaskProcess
    from atomr.process.timers import Timer
    from atomr.refs import Pid


_NO_CALLBACKS: Final = frozenset(
    {
        "init",
        "handle_call",
        "handle_cast",
        "handle_continue",
        "handle_info",
        "terminate",
    }
)


class Supervising(Startable):
    """Base of the supervisors; not for subclassing elsewhere."""

    child_kind: ClassVar[ChildKind] = ChildKind.SUPERVISOR
    answers_system_messages: ClassVar[bool] = True
    # A stop while children start must still stop those that run, in order.
    reads_signals_in_init: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Refuse callbacks: nobody would call them."""
        super().__init_subclass__(**kwargs)
        for name in _NO_CALLBACKS & vars(cls).keys():
            raise TypeError(
                f"class {cls.__name__}: a supervisor has no {name}(); write a function"
                " that returns Supervisor([...]) with its options"
            )

    def __init__(
        self,
        *,
        max_restarts: int,
        max_seconds: float,
        backoff_s: float,
        max_backoff_s: float,
    ) -> None:
        self._window = RestartIntensity(max_restarts, max_seconds)
        check_backoff(backoff_s, max_backoff_s)
        self._backoff = (backoff_s, max_backoff_s)
        self._exits: deque[tuple[Child, Process | None, ExitReason]] = deque()
        # Nothing is due before that.
        self._due_from = inf
        self._timer: Timer | None = None
        self._running = False
        self._process: TaskProcess
        self._pid: Pid
        self._nursery: trio.Nursery

    # --- to be provided ---------------------------------------------------------

    @abstractmethod
    async def start_all(self) -> None:
        """Start the initial children, or raise with none left."""

    @abstractmethod
    async def stop_all(self) -> None:
        """Stop all children."""

    @abstractmethod
    def cancel_foreign(self, reason: ExitReason) -> None:
        """Cancel the children whose tasks are not in the nursery."""

    @abstractmethod
    async def on_exit(self, child: Child, reason: ExitReason) -> ExitReason | None:
        """Act on a child's end; a reason ends the supervisor."""

    @abstractmethod
    async def handle_request(self, request: object) -> object:
        """Serve one request; what it raises goes to the caller.

        So it leaves the table as it was, or as what has happened makes it.
        """

    @abstractmethod
    def rows(self) -> list[Child]:
        """Return the table in the order of start."""

    @abstractmethod
    async def start_due(self, now: float) -> None:
        """Start the children whose ``due_at`` has come."""

    # --- the process ------------------------------------------------------------

    async def run_process(self, process: TaskProcess) -> ExitReason:
        """Start the children, supervise, stop the children."""
        self._process = process
        self._pid = process.pid
        process.trapping = True
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    reason = await self._live(process)
                except BaseException:
                    # Children in the nursery are cancelled with it; others are not.
                    self._running = False
                    self.end_foreign(process.kill_reason)
                    raise
        finally:
            self._running = False
            self._let_go()
        return reason

    def _let_go(self) -> None:
        """Break the cycles that only a collection could.

        The pid stays: an attached block may end later, and its parent is this.
        """
        for child in self.rows():
            child.process = None
        self._exits.clear()
        self._timer = None
        # An interrupt may have come before there was a nursery.
        vars(self).pop("_nursery", None)
        del self._process

    async def _live(self, process: TaskProcess) -> ExitReason:
        await self.start_all()
        self._running = True
        process.async_call = self._serve
        process.started()
        reason = await self._supervise()
        process.async_call = None
        self._running = False
        await self.stop_all()
        return reason

    def end_foreign(self, reason: ExitReason | None) -> None:
        """End the children that have no task, and cancel those in others' tasks."""
        self.cancel_foreign(reason or Shutdown("supervisor killed"))
        processes = (child.process for child in reversed(self.rows()))
        end_all(process for process in processes if process is not None)

    async def stop_children(self, *processes: Process) -> None:
        """Stop them at the same time, each with its own shutdown time."""
        for process in processes:
            begin_stop(process, process.shutdown)
        if processes:
            # So that a call from a terminate to its supervisor is seen as a deadlock.
            self._process.waiting_for = ChildWait(*processes)
        try:
            await wait_ended(processes)
        finally:
            self._process.waiting_for = None

    def stops_gracefully(self, process: Process) -> bool:
        """Children are stopped in order, always."""
        return True

    @abstractmethod
    def child_exited(self, process: Process, reason: ExitReason) -> None:
        """Take note of a child's end."""

    def ask_to_stop(self, process: Process, reason: ExitReason) -> None:
        """Let the loop stop the children and end."""
        process.push_signal(StopRequest(reason))

    def system_state(self) -> object:
        """Return the children."""
        return tuple(child.info() for child in self.rows())

    def own_pid(self) -> Pid | None:
        """Return the supervisor's pid."""
        return self._pid

    async def _supervise(self) -> ExitReason:
        process = self._process
        while True:
            reason = None
            if process.signals:
                signal = process.signals.pop(0)
                if isinstance(signal, StopRequest):
                    return signal.reason
                await self._take_signal(signal)
            elif process.suspended:
                await process.park()
            elif self._node_ends():
                await self._serve_next()
            elif self._due_from <= trio.current_time():
                await self.start_due(trio.current_time())
            elif self._exits:
                reason = await self._take_exit()
            else:
                await self._serve_next()
            if reason is not None:
                return reason
            process.budget -= 1
            if process.budget <= 0:
                await process.take_turn()

    async def _take_exit(self) -> ExitReason | None:
        child, ended, reason = self._exits.popleft()
        if child.process is ended and child.due_at is None:
            return await self.on_exit(child, reason)
        # A sibling's restart has taken it along meanwhile.
        return None

    def _node_ends(self) -> bool:
        # It is about to ask for the stop: nothing is started again before that.
        return self._process.node.interrupts.kept is not None

    async def _take_signal(self, signal: object) -> None:
        if type(signal) is From:
            serve_system(self._process, signal)
        else:
            await trio.lowlevel.checkpoint()

    async def _serve_next(self) -> None:
        process = self._process
        if process.batch:
            await self._serve(process.batch.pop())
        elif process.inbox:
            process.take_inbox()
        else:
            await process.park()

    async def _serve(self, item: object) -> None:
        if not isinstance(item, From):
            log.warning(
                "%r got an unexpected message: %s", self._process.pid, short(item)
            )
            return
        process = self._process
        process.current = item
        if process.debug is not None:
            process.debug.began(process, item)
        try:
            item.reply(await self.handle_request(item.request))
        except Exception as error:  # noqa: BLE001 - raised in the caller
            # Also what nobody thought of: a request must not end the children.
            item.fail(error)
        if process.debug is not None:
            process.debug.ended(process, item, None)
        process.current = None

    # --- starts and restarts ------------------------------------------------------

    async def start_process(self, child: Child) -> Process:
        """Start a child's process and wait for its ``init``.

        Raises:
            StartError: it did not start; ``child.process`` is None.
            StartAbortedError: the supervisor is to stop; the same.
        """
        child.due_at = None
        process = prepare(self._process.node, child.spec, self)
        child.runs_in(process)
        self.note_process(child, process)
        try:
            await run_init(
                process,
                self._nursery,
                child.spec,
                spot=self._process.spot,
                aborted=self._asked_to_stop,
            )
        except BaseException:
            child.process = None
            self.forget_process(process)
            raise
        self.emit("child_start", child.spec, pid=process.pid)
        return process

    @abstractmethod
    def note_process(self, child: Child, process: Process) -> None:
        """Remember whose process it is."""

    @abstractmethod
    def forget_process(self, process: Process) -> None:
        """Undo ``note_process``."""

    def schedule(self, children: list[Child], delay_s: float) -> None:
        """Let children be started again ``delay_s`` from now."""
        at = trio.current_time() + delay_s
        for child in children:
            child.process = None
            child.due_at = at
        if delay_s > 0:
            self.arm()
        else:
            # The loop sees it by itself.
            self._due_from = at

    def arm(self) -> None:
        """Set the timer to the next restart that is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._due_from = self.next_due_at()
        if at < inf:
            delay_s = max(0.0, at - trio.current_time())
            self._timer = self._process.node.timers.after(delay_s, self._process.wake)
            self._process.own_timer(self._timer)

    @abstractmethod
    def next_due_at(self) -> float:
        """Return when the next restart is due; infinity: none is."""

    def log_restart(self, child: Child, reason: ExitReason, delay_s: float) -> None:
        """Tell of a restart: one line, one event."""
        window = self._window
        self.emit("restart", child.spec, reason=reason, delay_s=delay_s)
        if not log.isEnabledFor(logging.WARNING):
            return
        log.warning(
            "supervisor %r restarts %r%s after %s: restart %d of %d in %s s",
            self._process.pid,
            child.spec.id,
            f" in {delay_s} s" if delay_s else "",
            short(reason),
            len(window.restarts),
            window.max_restarts,
            window.max_seconds,
        )

    def give_up(self, child: Child, reason: ExitReason) -> ExitReason:
        """Return the exit reason of a supervisor over its intensity."""
        window = self._window
        log.error(
            "supervisor %r gives up: %r ended with %s, more than %d restarts in %s s",
            self._process.pid,
            child.spec.id,
            short(reason),
            window.max_restarts,
            window.max_seconds,
        )
        self.emit("escalate", child.spec, reason=reason)
        detail = GaveUp(child.spec.id, reason, window.max_restarts, window.max_seconds)
        return Shutdown(detail)

    def emit(self, event: str, spec: ChildSpec, **metadata: object) -> None:
        """Emit a telemetry event about a child."""
        if telemetry.handlers:
            about = {"supervisor": self._process.pid, "child": spec.id}
            telemetry.emit(
                ("atomr", "supervisor", event), metadata={**about, **metadata}
            )

    def _asked_to_stop(self) -> bool:
        return any(isinstance(s, StopRequest) for s in self._process.signals)


__all__ = ["Child", "StartAbortedError", "Supervising", "aborted_start"]
