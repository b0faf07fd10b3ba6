"""The frame of processes whose work runs beside their own task.

A thread or an async context manager knows nothing of mailboxes and signals.
So it runs in a second task of the process, or in a thread that this task waits
for, and the process' own task looks after the rest::

    own task              work, in a shielded scope
    --------              -------------------------
    signals, messages     a thread, a loop, an open context manager
    a stop: ``ask``  -->  ends by itself, within the shutdown time
    a kill           -->  its scope is cancelled: a thread is left behind

The work is shielded, so that a cancellation from around reaches it as the same
request to stop, and with the same bound.  What it raises is the exit reason.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import trio

from atomr.core.child_spec import DEFAULT_SHUTDOWN_S, BrutalKill, ShutdownTime
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, is_crash
from atomr.errors import short
from atomr.process.behaviour import Startable, StopRequest
from atomr.process.calls import From, refuse_cycle
from atomr.process.report import log
from atomr.process.stopping import begin_stop
from atomr.process.system import serve_system
from atomr.process.task_process import TaskProcess

if TYPE_CHECKING:
    from atomr.process.behaviour import Parent
    from atomr.process.node import Node
    from atomr.process.process import Process


class HostedProcess(TaskProcess):
    """A process that an exit signal asks to stop.

    Its work cannot be cut at a checkpoint, so a signal that is not trapped
    gives it the shutdown time too.
    """

    __slots__ = ("asked",)

    def __init__(
        self,
        node: Node,
        behaviour: Startable,
        *,
        label: str,
        parent: Parent,
        shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S,
    ) -> None:
        super().__init__(node, behaviour, label=label, parent=parent, shutdown=shutdown)
        self.asked = False

    def call_now(self, ref: From) -> None:
        """Queue the call: the own task is idle though the work may be busy."""
        refuse_cycle(ref)
        self.deliver(ref)

    def cancel(self, reason: ExitReason) -> None:
        """Ask for the end; ``KILLED`` does not ask."""
        brutal = isinstance(self.shutdown, BrutalKill)
        if reason is KILLED or brutal or not self.was_started:
            super().cancel(reason)
        elif not self.asked:
            self.asked = True
            begin_stop(self, self.shutdown, reason)

    def end_by(self, reason: ExitReason) -> None:
        """End at the next checkpoint, with a reason that is not one's own."""
        super().cancel(reason)


class Hosted(Startable):
    """Base of the behaviours of this package; not for subclassing elsewhere.

    Attributes:
        process: that runs it.
        stop_reason: what it was asked to end with; None: it was not.
    """

    answers_system_messages: ClassVar[bool] = True

    def __init__(self) -> None:
        self.process: HostedProcess
        self.stop_reason: ExitReason | None = None
        self._ended = False

    # --- to be provided ---------------------------------------------------------

    @abstractmethod
    async def work(self, process: HostedProcess) -> None:
        """Do the work, to the end; call ``process.started()`` when it is ready.

        Cancellation: it was killed; return as soon as possible.
        """

    @abstractmethod
    def ask(self, reason: ExitReason, scope: trio.CancelScope) -> None:
        """Let the work end by itself; must neither block nor raise.

        Args:
            reason: why.
            scope: the work's own, for what can only be cancelled.
        """

    def look(self, process: HostedProcess) -> bool:
        """Act on the mailbox; return whether there was something to do."""
        message = next_message(process)
        if message is None:
            return False
        self.refuse(process, message)
        return True

    def refuse(self, process: HostedProcess, message: object) -> None:
        """Answer what it has no answer to; it lives on."""
        if isinstance(message, From):
            what = f"{self.process_label()} serves no calls; it got"
            message.fail(NotImplementedError(f"{what} {short(message.request)}"))
        else:
            log.warning("%r got an unexpected message: %s", process.pid, short(message))

    # --- for the process layer ------------------------------------------------

    def make_process(
        self, node: Node, *, label: str, parent: Parent, shutdown: ShutdownTime
    ) -> Process:
        """Return the process to run in."""
        return HostedProcess(node, self, label=label, parent=parent, shutdown=shutdown)

    async def run_process(self, process: TaskProcess) -> ExitReason:
        """Run the work, and look after the process meanwhile."""
        assert isinstance(process, HostedProcess), "made by make_process"
        self.process = process
        scope = process.grace = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_work, process, scope, nursery.cancel_scope)
            try:
                await self._watch(process, scope)
            except trio.Cancelled:
                self._bound(process, scope)
                raise
        reason = NORMAL if self.stop_reason is None else self.stop_reason
        if is_crash(reason):
            # Another's crash, reported where it happened: this is its echo.
            process.end_by(reason)
            await trio.lowlevel.checkpoint()
        return reason

    async def _run_work(
        self,
        process: HostedProcess,
        scope: trio.CancelScope,
        around: trio.CancelScope,
    ) -> None:
        try:
            with scope:
                await self.work(process)
        finally:
            process.grace = None
            self._ended = True
        around.cancel()

    async def _watch(self, process: HostedProcess, scope: trio.CancelScope) -> None:
        while True:
            if process.signals:
                await self._take_signal(process, scope)
            elif process.budget <= 0:
                await process.take_turn()
            elif process.suspended or not self.look(process):
                await process.park()
            else:
                process.budget -= 1

    async def _take_signal(
        self, process: HostedProcess, scope: trio.CancelScope
    ) -> None:
        signal = process.signals.pop(0)
        if isinstance(signal, StopRequest):
            self._ask_once(signal.reason, scope)
        elif type(signal) is From:
            serve_system(process, signal)
        else:
            # The scope was cancelled: let the cancellation arrive.
            await trio.lowlevel.checkpoint()

    def _ask_once(self, reason: ExitReason, scope: trio.CancelScope) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            self.process.asked = True
            self.ask(reason, scope)

    def _bound(self, process: HostedProcess, scope: trio.CancelScope) -> None:
        """Give the work its time, although all around it is cancelled."""
        if self._ended:
            return
        if process.kill_reason is KILLED:
            scope.cancel()
            return
        self._ask_once(process.kill_reason or SHUTDOWN, scope)
        shutdown = process.shutdown
        bound_s = DEFAULT_SHUTDOWN_S if isinstance(shutdown, BrutalKill) else shutdown
        scope.deadline = min(scope.deadline, trio.current_time() + bound_s)

    def stops_gracefully(self, process: Process) -> bool:
        """Work is asked to end, always."""
        return True

    def ask_to_stop(self, process: Process, reason: ExitReason) -> None:
        """Let the own task ask the work."""
        process.push_signal(StopRequest(reason))


def next_message(process: Process) -> object:
    """Take the oldest message out of the mailbox; None: there is none."""
    if not process.batch:
        if not process.inbox:
            return None
        process.take_inbox()
    return process.batch.pop()
