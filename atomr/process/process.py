"""One process: mailbox, exit reason, links, monitors, and the frame around it.

A process is a trio task inside its supervisor's nursery, under a cancel scope
of its own.  (An *attached* process borrows the task it was made in.)  Whatever
happens inside stops at :meth:`Process.main`, where it becomes an exit reason:

=============================================  ==============================
what happened                                  reason
=============================================  ==============================
the behaviour returned                         what it returned
its own scope was cancelled                    the reason stored with the cancel
an exception, also one in a group with         the exception; a group of one is
``Cancelled``                                  unwrapped
an enclosing scope was cancelled               ``SHUTDOWN``; ``Cancelled`` goes on
``KeyboardInterrupt``, ``SystemExit``          the exception, and it goes on
=============================================  ==============================

:meth:`Process.finish` does all that follows from the end, without an await:
nothing can be cancelled half-way.  Its order is part of the contract: the name
is free before anybody is told.

The mailbox is a list.  Its owner takes it whole (``inbox`` becomes ``batch``,
reversed, so that taking the next message is a pop); senders only append.
System signals have a list of their own that the owner looks at before each
message, so that a long mailbox cannot hide a stop.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

from atomr import telemetry
from atomr.core.child_spec import DEFAULT_SHUTDOWN_S, ShutdownTime
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, is_crash
from atomr.core.links import SignalEffect, exit_reason, signal_effect
from atomr.core.messages import Down, Exit
from atomr.process import report
from atomr.process.calls import From
from atomr.process.context import CURRENT, NODE
from atomr.process.endings import passes_up, reason_of
from atomr.process.parking import ParkSpot
from atomr.refs import Pid, Ref

if TYPE_CHECKING:
    from atomr.process.behaviour import Parent, Startable
    from atomr.process.node import Node
    from atomr.process.timers import Timer

FAIRNESS_MESSAGES = 256
"""Messages handled between two checkpoints: p99 of a 1 ms ticker stays 0.1 ms late."""


class Status(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


class _Look(Enum):
    LOOK = "the scope was cancelled: reach a checkpoint"


class Process:
    """The private side of a :class:`~atomr.refs.Pid`."""

    __slots__ = (
        "batch",
        "behaviour",
        "budget",
        "current",
        "deferred",
        "exit_spots",
        "grace",
        "ignored",
        "inbox",
        "init_timed_out",
        "kill_reason",
        "links",
        "monitoring",
        "names",
        "node",
        "parent",
        "pid",
        "reason",
        "scope",
        "shutdown",
        "signals",
        "spot",
        "started_at",
        "starter",
        "status",
        "task",
        "timers",
        "trapping",
        "waiting_for",
        "was_started",
        "watchers",
    )

    def __init__(
        self,
        node: Node,
        behaviour: Startable,
        *,
        label: str,
        parent: Parent,
        shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S,
    ) -> None:
        self.node = node
        self.behaviour = behaviour
        self.parent = parent
        self.shutdown = shutdown
        self.pid = pid = Pid(node.next_number(), label)
        pid._process = self  # noqa: SLF001 - the two sides of one thing
        self.spot = ParkSpot()
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self.status = Status.STARTING
        self.was_started = False
        self.ignored = False
        self.init_timed_out = False
        self.trapping = False
        self.inbox: list[object] = []
        self.batch: list[object] = []
        self.signals: list[object] = []
        self.current: object = None
        self.budget = FAIRNESS_MESSAGES
        self.reason: ExitReason | None = None
        self.kill_reason: ExitReason | None = None
        self.grace: trio.CancelScope | None = None
        self.starter: ParkSpot | None = None
        self.waiting_for: From | None = None
        self.started_at = 0.0
        # Most processes have none of these: made on demand.
        self.deferred: set[From] | None = None
        self.exit_spots: list[ParkSpot] | None = None
        self.links: set[Process] | None = None
        self.monitoring: dict[Ref, Process] | None = None
        self.names: set[str] | None = None
        self.timers: set[Timer] | None = None
        self.watchers: dict[Ref, Process] | None = None
        node.processes[pid.number] = self

    # --- mailbox ------------------------------------------------------------

    @enable_ki_protection
    def deliver(self, message: object) -> None:
        """Put a message last in line; never blocks, never fails."""
        self.inbox.append(message)
        if self.spot.task is not None:
            self.spot.wake()

    @enable_ki_protection
    def push_signal(self, signal: object) -> None:
        """Put a system signal where it is seen before the next message."""
        self.signals.append(signal)
        self.spot.wake()

    async def park(self) -> None:
        """Sleep until a message or a signal comes; wakes for nothing at times."""
        task = self.task
        assert task is not None, "a process parks in its own task"
        self.budget = FAIRNESS_MESSAGES
        await self.spot.park(task)

    async def take_turn(self) -> None:
        """Let other tasks run; called when ``budget`` is spent."""
        self.budget = FAIRNESS_MESSAGES
        await trio.lowlevel.checkpoint()

    def own_timer(self, timer: Timer) -> None:
        """Let the timer be disarmed when this process ends."""
        if self.timers is None:
            self.timers = set()
        self.timers.add(timer)
        timer.owner = self.timers

    # --- start and stop -----------------------------------------------------

    @enable_ki_protection
    def started(self) -> None:
        """Tell the starter that ``init`` is done."""
        self.status = Status.RUNNING
        self.was_started = True
        self.started_at = trio.current_time()
        if self.starter is not None:
            self.starter.wake()
            self.starter = None
        if telemetry.handlers:
            telemetry.emit(("atomr", "process", "start"), metadata={"pid": self.pid})

    def cancel(self, reason: ExitReason) -> None:
        """End the process at its next checkpoint, with that reason.

        The first reason stays, except that ``KILLED`` replaces any other and
        cuts a running ``terminate`` short.
        """
        if self.status is Status.EXITED:
            return
        if self.kill_reason is None or reason is KILLED:
            self.kill_reason = reason
        self.signals.append(_Look.LOOK)
        self.scope.cancel()
        if reason is KILLED and self.grace is not None:
            self.grace.cancel()

    def exit_signal(
        self, reason: ExitReason, sender: Pid | None, *, to_self: bool = False
    ) -> None:
        """Receive an exit signal; see :mod:`atomr.core.links`."""
        effect = signal_effect(reason, trapping=self.trapping, to_self=to_self)
        if effect is SignalEffect.MESSAGE:
            self.deliver(Exit(sender, reason))
        elif effect is SignalEffect.EXIT:
            self.cancel(exit_reason(reason))

    # --- the frame ------------------------------------------------------------

    async def main(self) -> None:
        """Run the behaviour; the body of the process' task."""
        CURRENT.set(self)
        # The starter may be of another node.
        NODE.set(self.node)
        self.task = trio.lowlevel.current_task()
        reason: ExitReason = NORMAL
        try:
            with self.scope:
                if self.kill_reason is not None:
                    await trio.lowlevel.checkpoint()
                reason = await self.behaviour.run_process(self)
        except BaseException as error:
            self.finish_with(error)
            passing = passes_up(error)
            if passing is error:
                raise
            if passing is not None:
                raise passing from error
        else:
            self.finish_with(None, returned=reason)

    @enable_ki_protection
    def finish_with(
        self, error: BaseException | None, *, returned: ExitReason = NORMAL
    ) -> None:
        """Finish with what left the process' scope, or what its code returned."""
        reason = returned if error is None else reason_of(error)
        if is_crash(reason):
            self.report_crash(reason)
        if self.kill_reason is not None and (
            (self.scope.cancelled_caught and error is None)
            or (reason is SHUTDOWN and error is not None)
            or (self.kill_reason is KILLED and is_crash(reason))
        ):
            reason = self.kill_reason
        self.finish(reason)

    def report_crash(self, reason: ExitReason) -> None:
        """Log the crash; a failed start is raised in the starter instead."""
        if self.was_started and self.behaviour.reports_crashes:
            report.crash(self, reason)

    @enable_ki_protection
    def finish(self, reason: ExitReason) -> None:
        """Free the name, fail the callers, tell links, monitors and parent."""
        self.status = Status.EXITED
        self.reason = reason
        self.pid._process = None  # noqa: SLF001 - the two sides of one thing
        del self.node.processes[self.pid.number]
        if self.names is not None or self.timers is not None:
            self._release()
        if self.inbox or self.batch or self.deferred or self.current is not None:
            self._fail_callers(reason)
        if self.links is not None or self.watchers or self.monitoring:
            self._tell_others(reason)
        if self.exit_spots is not None:
            for spot in self.exit_spots:
                spot.wake()
        if self.starter is not None:
            self.starter.wake()
        if self.was_started:
            self.parent.child_exited(self, reason)
            if telemetry.handlers:
                self._emit_end(reason)
        # Cycles: process and spot through the trap, process and task through the
        # task's context.
        self.spot.close()
        self.task = None

    def _release(self) -> None:
        for name in self.names or ():
            del self.node.names[name]
        for timer in tuple(self.timers or ()):
            timer.cancel()

    def _fail_callers(self, reason: ExitReason) -> None:
        for item in (self.current, *reversed(self.batch), *self.inbox):
            if type(item) is From:
                item.server_down(reason)
        for ref in tuple(self.deferred or ()):
            ref.server_down(reason)
        self.current = None
        self.batch.clear()
        self.inbox.clear()

    def _tell_others(self, reason: ExitReason) -> None:
        links, self.links = self.links, None
        for peer in links or ():
            if peer.links is not None:
                peer.links.discard(self)
            peer.exit_signal(reason, self.pid)
        for ref, target in (self.monitoring or {}).items():
            if target.watchers is not None:
                target.watchers.pop(ref, None)
        watchers, self.watchers = self.watchers, None
        for ref, watcher in (watchers or {}).items():
            if watcher.monitoring is not None:
                watcher.monitoring.pop(ref, None)
            watcher.deliver(Down(ref, self.pid, reason))

    def _emit_end(self, reason: ExitReason) -> None:
        telemetry.emit(
            ("atomr", "process", "crash" if is_crash(reason) else "stop"),
            {"lifetime_s": trio.current_time() - self.started_at},
            {"pid": self.pid, "reason": reason},
        )
