"""One process: mailbox, exit reason, links and monitors, and what its end does.

There are two kinds.  A :class:`~atomr.process.task_process.TaskProcess` is a
trio task inside its supervisor's nursery.  A
:class:`~atomr.process.lean.LeanProcess` has no task: its callbacks are plain
functions, and the node runs them.  To everybody else they are the same.

:meth:`Process.finish` does all that follows from the end, without an await:
nothing can be cancelled half-way.  Its order is part of the contract: the name
is free before anybody is told.

The mailbox is a list.  Its owner takes it whole (``inbox`` becomes ``batch``,
reversed, so that taking the next message is a pop); senders only append.
System signals have a list of their own that the owner looks at before each
message, so that a long mailbox cannot hide a stop.
"""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final

import trio
from trio.lowlevel import enable_ki_protection

from atomr import telemetry
from atomr.core.child_spec import DEFAULT_SHUTDOWN_S, ShutdownTime
from atomr.core.exits import ExitReason, is_crash
from atomr.core.links import SignalEffect, exit_reason, signal_effect
from atomr.core.messages import Down, Exit
from atomr.process import report
from atomr.process.calls import ChildWait, From
from atomr.process.ties import Tie, Ties
from atomr.refs import Pid, Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr.core.mailbox_limit import MailboxLimit
    from atomr.process.behaviour import Parent, Startable
    from atomr.process.node import Node
    from atomr.process.parking import ParkSpot
    from atomr.process.system import Debug
    from atomr.process.timers import Timer

FAIRNESS_MESSAGES: Final = 256
"""Messages handled between two checkpoints: p99 of a 1 ms ticker stays 0.1 ms late."""

HIGH_WATER_MESSAGES: Final = 10_000
"""A mailbox longer than this is warned of: its process does not keep up."""

EMPTY: Final[list[object]] = []
"""Stands for a list that is made when its first item comes; never changed."""

LOOK: Final = "look at how things stand"
"""A signal that says no more than that; a task also reaches a checkpoint."""


class Status(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


class Process:
    """The private side of a :class:`~atomr.refs.Pid`.

    Attributes:
        idle: True while it has nothing to do: it must be woken, or a call can be
            served on the caller's stack.  After a cancellation from outside it
            may still be True for a moment; waking then does nothing.
    """

    __slots__ = (
        "batch",
        "behaviour",
        "current",
        "debug",
        "idle",
        "inbox",
        "kill_reason",
        "limit",
        "node",
        "parent",
        "pid",
        "reason",
        "shutdown",
        "signals",
        "started_at",
        "starter",
        "status",
        "ties",
        "trapping",
        "waiting_for",
        "was_started",
    )

    # Few processes have one of these.
    deferred: Tie[set[From]] = Tie()
    exit_spots: Tie[dict[ParkSpot, None]] = Tie()
    ignored: Tie[bool] = Tie()
    init_timed_out: Tie[bool] = Tie()
    # In order, so that one seed of a test always gives one order of signals.
    links: Tie[dict[Process, None]] = Tie()
    monitoring: Tie[dict[Ref, Process]] = Tie()
    names: Tie[set[str]] = Tie()
    on_end: Tie[dict[object, Callable[[], object]]] = Tie()
    room_spots: Tie[dict[ParkSpot, None]] = Tie()
    timers: Tie[set[Timer]] = Tie()
    watchers: Tie[dict[Ref, Process]] = Tie()

    task: trio.lowlevel.Task | None
    opens_casts: ClassVar[bool] = False
    """Whether it takes the short envelope of a cast."""

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
        self.idle = False
        self.status = Status.STARTING
        self.was_started = False
        self.trapping = False
        self.inbox: list[object] = []
        self.batch = EMPTY
        self.signals = EMPTY
        self.current: object = None
        self.reason: ExitReason | None = None
        self.kill_reason: ExitReason | None = None
        self.limit: MailboxLimit | None = None
        self.debug: Debug | None = None
        self.started_at = 0.0
        self.starter: ParkSpot | None = None
        self.waiting_for: From | ChildWait | None = None
        self.ties: Ties | None = None
        node.processes[pid.number] = self

    # --- what the two kinds do differently ---------------------------------------

    @abstractmethod
    def wake(self) -> None:
        """Let the process look at what there is to do."""

    @abstractmethod
    def call_now(self, ref: From) -> None:
        """Serve a call on the caller's stack; only while ``idle``."""

    @abstractmethod
    def cancel(self, reason: ExitReason) -> None:
        """End the process as soon as possible, with that reason.

        The first reason stays, except that ``KILLED`` replaces any other and
        cuts a running ``terminate`` short.
        """

    @abstractmethod
    def end_around(self) -> None:
        """End because what is around it was cancelled, if no task hears of that."""

    def replace_behaviour(self, behaviour: Startable) -> None:
        """Let another instance of the same class do the work from now on."""
        self.behaviour = behaviour

    # --- mailbox ------------------------------------------------------------

    @enable_ki_protection
    def deliver(self, message: object) -> None:
        """Put a message last in line; never blocks, never fails."""
        self.inbox.append(message)
        if self.idle:
            self.wake()

    @property
    def queue_size(self) -> int:
        """Messages that wait."""
        return len(self.inbox) + len(self.batch)

    @property
    def suspended(self) -> bool:
        """Whether it handles system messages only."""
        return self.debug is not None and self.debug.suspended

    def take_inbox(self) -> None:
        """Make the inbox the batch; only when the batch is empty."""
        batch = self.inbox
        self.batch, self.inbox = batch, []
        batch.reverse()
        if len(batch) >= HIGH_WATER_MESSAGES:
            self._warn_of_high_water(len(batch))
        if self.limit is not None:
            self.room_made()

    def _warn_of_high_water(self, size: int) -> None:
        # Once, and then each time that it has doubled.
        warned = self.node.high_waters
        if size >= 2 * warned.get(self.pid, 0):
            warned[self.pid] = size
            report.high_water(self, size)

    def room_made(self) -> None:
        """Let as many go on as there is room for of those who wait to send."""
        spots, limit = self.room_spots, self.limit
        if not spots:
            return
        # Not all: ten thousand would be woken for each message.
        if self.reason is not None or limit is None:
            room = len(spots)
        else:
            room = max(0, limit.size - self.queue_size)
        for spot in tuple(islice(spots, room)):
            del spots[spot]
            spot.wake()
        if not spots:
            self.room_spots = None

    @enable_ki_protection
    def push_signal(self, signal: object) -> None:
        """Put a system signal where it is seen before the next message."""
        if self.signals is EMPTY:
            self.signals = [signal]
        else:
            self.signals.append(signal)
        self.wake()

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
        self.started_at = self.node.now()
        if self.starter is not None:
            self.starter.wake()
            self.starter = None
        if telemetry.handlers:
            telemetry.emit(("atomr", "process", "start"), metadata={"pid": self.pid})

    def exit_signal(
        self,
        reason: ExitReason,
        sender: Pid | None,
        *,
        to_self: bool = False,
        linked: bool = False,
    ) -> None:
        """Receive an exit signal; see :mod:`atomr.core.links`."""
        effect = signal_effect(
            reason, trapping=self.trapping, to_self=to_self, linked=linked
        )
        if effect is SignalEffect.MESSAGE:
            self.deliver(Exit(sender, reason))
        elif effect is SignalEffect.EXIT:
            self.cancel(exit_reason(reason, linked=linked))

    def report_crash(self, reason: ExitReason) -> None:
        """Log the crash; a failed start is raised in the starter instead."""
        if self.was_started and self.behaviour.reports_crashes:
            if self.node.on_crash is not None:
                self.node.on_crash(self, reason)
            report.crash(self, reason)

    @enable_ki_protection
    def finish(self, reason: ExitReason) -> None:
        """Free the name, fail the callers, tell links, monitors and parent."""
        self.status = Status.EXITED
        self.idle = False
        self.reason = reason
        self.pid._process = None  # noqa: SLF001 - the two sides of one thing
        del self.node.processes[self.pid.number]
        ties = self.ties
        if ties is not None:
            self._release()
        if (
            self.inbox
            or self.batch
            or self.signals
            or self.current is not None
            or (ties is not None and self.deferred)
        ):
            self._fail_callers(reason)
        if ties is not None:
            self._tell_others(reason)
            self._wake_waiters()
        if self.starter is not None:
            self.starter.wake()
        if self.was_started:
            self.parent.child_exited(self, reason)
            if telemetry.handlers:
                self._emit_end(reason)
        self.let_go()

    def let_go(self) -> None:
        """Break the cycles that only a collection could."""

    def _release(self) -> None:
        for name in self.names or ():
            del self.node.names[name]
        for timer in tuple(self.timers or ()):
            timer.cancel()
        hooks, self.on_end = self.on_end, None
        for hook in (hooks or {}).values():
            hook()

    def _fail_callers(self, reason: ExitReason) -> None:
        items = (self.current, *self.signals, *reversed(self.batch), *self.inbox)
        for item in items:
            if type(item) is From:
                item.server_down(reason)
        for ref in tuple(self.deferred or ()):
            ref.server_down(reason)
        self.current = None
        self.signals = self.batch = EMPTY
        self.inbox = []

    def _tell_others(self, reason: ExitReason) -> None:
        links, self.links = self.links, None
        for peer in links or ():
            if peer.links is not None:
                peer.links.pop(self, None)
            peer.exit_signal(reason, self.pid, linked=True)
        for ref, target in (self.monitoring or {}).items():
            if target.watchers is not None:
                target.watchers.pop(ref, None)
        watchers, self.watchers = self.watchers, None
        for ref, watcher in (watchers or {}).items():
            if watcher.monitoring is not None:
                watcher.monitoring.pop(ref, None)
            watcher.deliver(Down(ref, self.pid, reason))

    def _wake_waiters(self) -> None:
        for spot in self.exit_spots or ():
            spot.wake()
        self.room_made()

    def _emit_end(self, reason: ExitReason) -> None:
        telemetry.emit(
            ("atomr", "process", "crash" if is_crash(reason) else "stop"),
            {"lifetime_s": trio.current_time() - self.started_at},
            {"pid": self.pid, "reason": reason},
        )


def end_all(processes: Iterable[Process]) -> None:
    """Do :meth:`Process.end_around` for each, whatever comes of one.

    Raises:
        BaseExceptionGroup: what was raised, by a ``terminate``.
    """
    errors = []
    for process in processes:
        try:
            process.end_around()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)
    if errors:
        raise BaseExceptionGroup("while processes ended", errors)
