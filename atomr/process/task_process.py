"""A process that is a trio task, under a cancel scope of its own.

Whatever happens inside stops at :meth:`TaskProcess.main`, where it becomes an
exit reason:

=============================================  ==============================
what happened                                  reason
=============================================  ==============================
the behaviour returned                         what it returned
its own scope was cancelled                    the reason stored with the cancel
an exception, also one in a group with         the exception; a group of one is
``Cancelled``                                  unwrapped
an enclosing scope was cancelled               ``SHUTDOWN``; ``Cancelled`` goes on
``KeyboardInterrupt``, ``SystemExit``          the exception; the node keeps it, see
                                               :mod:`atomr.process.interrupts`
=============================================  ==============================

Calls to a server that sleeps with nothing to do are served on the caller's
stack, which spares two switches of tasks: :meth:`TaskProcess.call_now`.  The
behaviour says how, by ``plain_call`` or ``async_call``, and sleeps in
:meth:`TaskProcess.park`.  A behaviour that returns ``HIBERNATE`` is put away:
see :mod:`atomr.process.hibernation`.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, cast

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from atomr import telemetry
from atomr.core.child_spec import DEFAULT_SHUTDOWN_S, ShutdownTime
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason, is_crash
from atomr.process import inline
from atomr.process.context import CURRENT, NODE
from atomr.process.endings import reason_of
from atomr.process.hibernation import HIBERNATE, Dormant
from atomr.process.inline import READY
from atomr.process.parking import WAKE, ParkSpot
from atomr.process.process import (
    EMPTY,
    FAIRNESS_MESSAGES,
    LOOK,
    Process,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    import outcome

    from atomr.process.behaviour import Parent, Startable
    from atomr.process.calls import From
    from atomr.process.node import Node


class TaskProcess(Process):
    """A process with a task.

    Attributes:
        plain_call: serves a call without waiting, and clears ``current`` unless
            the process is to end; None: it may wait.
        async_call: begins to serve a call, for one that may.
        served: acts on what that returned; None: there is nothing to do.
        unfinished: what an ``init`` that ran without a task leaves to the task.
    """

    __slots__ = (
        "__weakref__",
        "_failure",
        "_server",
        "_waits",
        "async_call",
        "budget",
        "grace",
        "injected",
        "plain_call",
        "scope",
        "served",
        "spot",
        "task",
        "unfinished",
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
        super().__init__(node, behaviour, label=label, parent=parent, shutdown=shutdown)
        self.scope = trio.CancelScope()
        self.spot: ParkSpot = ParkSpot()
        self.task: trio.lowlevel.Task | None = None
        self.grace: trio.CancelScope | None = None
        self.injected: BaseException | None = None
        self.budget = FAIRNESS_MESSAGES
        self.plain_call: Callable[[From], None] | None = None
        self.async_call: Callable[[From], Coroutine[Any, Any, object]] | None = None
        self.served: Callable[[From, object], None] | None = None
        self._server: Generator[object, Any, None] | None = None
        self.unfinished: object = None
        self._waits = False
        self._failure: BaseException | None = None

    # --- mailbox ------------------------------------------------------------

    @enable_ki_protection
    def wake(self) -> None:
        """Let the process look at what there is to do."""
        self.idle = False
        self.spot.wake()

    async def take_turn(self) -> None:
        """Let other tasks run; called when ``budget`` is spent."""
        self.budget = FAIRNESS_MESSAGES
        await trio.lowlevel.checkpoint()

    @types.coroutine
    def park(self) -> Generator[object, outcome.Outcome[None], None]:
        """Sleep until a message or a signal comes; wakes for nothing at times.

        A call that was begun on its caller's stack and had to wait goes on here.

        Cancellation: wakes at once with ``trio.Cancelled``.
        """
        task = self.task
        assert task is not None, "a process parks in its own task"
        if self.limit is not None:
            self.room_made()
        self.budget = FAIRNESS_MESSAGES
        spot = self.spot
        trap = spot.trap()
        spot.task = task
        self.idle = True
        result = yield trap
        self.idle = False
        try:
            if self._waits:
                yield from self._go_on(result)
            elif self._failure is not None:
                # Before a cancellation: the handler raised, and then was this one due.
                self._raise_failure()
            elif result is not WAKE:
                result.unwrap()
        finally:
            # It holds the error, whose traceback holds this frame.
            del result

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        assert failure is not None, "asked by park"
        try:
            raise failure
        finally:
            del failure

    def _go_on(
        self, result: outcome.Outcome[None]
    ) -> Generator[object, outcome.Outcome[None], None]:
        self._waits = False
        server = self._server
        assert server is not None, "something waits in it"
        while (trap := server.send(result)) is not READY:
            result = yield trap

    # --- calls on the caller's stack -------------------------------------------------

    # An interrupt half-way would leave a task that nobody can wake or cancel.
    @enable_ki_protection
    def call_now(self, ref: From) -> None:
        """Serve a call on the caller's stack; only while ``idle``."""
        task = self.spot.task
        failure = None
        if task is None or self.debug is not None:
            # Cancelled since, though it has not run yet; or looked into.
            self.deliver(ref)
            return
        if self.plain_call is not None:
            self.idle = False
            self.current = ref
            try:
                task.context.run(self.plain_call, ref)
            except BaseException as error:  # noqa: BLE001 - raised in the process
                failure = error
        elif self.async_call is not None and inline.allowed(self.node):
            self.idle = False
            self.current = ref
            try:
                if self._waits_in(task, ref):
                    self._waits = True
                    return
            except BaseException as error:  # noqa: BLE001 - raised in the process
                failure = error
            self.spot.task = task
            if failure is None:
                inline.deliver_cancel(task)
        else:
            self.deliver(ref)
            return
        if failure is not None:
            # The caller's frames are no business of the server's traceback.
            self._failure = inline.without_caller(failure)
            self.spot.wake()
        elif self.signals or self.inbox:
            self.spot.wake()
        else:
            self.idle = True

    def _waits_in(self, task: trio.lowlevel.Task, ref: From) -> bool:
        # While it runs here nobody may schedule its task.
        self.spot.task = None
        if self._server is None:
            self._server = self._serve()
            self._server.send(None)
        node = self.node
        node.inline_depth += 1
        caller = ref.caller
        if caller is not None:
            # A helper task's wait does not hold its process up.
            if caller.task is trio.lowlevel.current_task():
                caller.waiting_for = ref
            else:
                caller = None
        try:
            return inline.run_as(task, self._server, ref, self.spot.abort)
        finally:
            node.inline_depth -= 1
            if caller is not None:
                caller.waiting_for = None

    # One generator for all calls: the end of one for each would be an exception.
    # The handler's own code can be interrupted, as anywhere.
    @disable_ki_protection
    @types.coroutine
    def _serve(self) -> Generator[object, Any, None]:
        while True:
            ref = yield READY
            assert self.async_call is not None, "asked by call_now"
            result = yield from self.async_call(ref)  # type: ignore[func-returns-value]
            if self.served is not None:
                self.served(ref, result)

    # --- start and stop -----------------------------------------------------

    @enable_ki_protection
    def cancel(self, reason: ExitReason) -> None:
        """End the process at its next checkpoint, with that reason."""
        if self.status is Status.EXITED:
            return
        if self.kill_reason is None or reason is KILLED:
            self.kill_reason = reason
        self._interrupt()
        if reason is KILLED and self.grace is not None:
            self.grace.cancel()

    @enable_ki_protection
    def inject(self, error: BaseException) -> None:
        """Crash with ``error`` at the next checkpoint; no ``except`` holds it up."""
        if self.status is not Status.EXITED and self.injected is None:
            self.injected = error
            self._interrupt()

    def reason_for(self, error: BaseException) -> ExitReason:
        """Return the exit reason for what left the behaviour's code."""
        reason = reason_of(error)
        if reason is SHUTDOWN and self.injected and self.kill_reason is None:
            # What was injected has the frames that it struck.
            return self.injected.with_traceback(error.__traceback__)
        return reason

    def _interrupt(self) -> None:
        if self.signals is EMPTY:
            self.signals = []
        self.signals.append(LOOK)
        self.idle = False
        self.scope.cancel()

    async def main(self) -> None:
        """Run the behaviour; the body of the process' task."""
        CURRENT.set(self)
        # The starter may be of another node.
        NODE.set(self.node)
        self.task = trio.lowlevel.current_task()
        reason: ExitReason = NORMAL
        passing: BaseException | None = None
        try:
            with self.scope:
                try:
                    if self.kill_reason is not None:
                        await trio.lowlevel.checkpoint()
                    reason = await self.behaviour.run_process(self)
                except BaseException as error:
                    if self.injected is not None:
                        # For when it is the scope's own Cancelled, and ends here.
                        reason = self.reason_for(error)
                    raise
        except BaseException as error:  # noqa: BLE001 - the reason, or it goes on
            # Before the end is told, so that nobody restarts it.
            passing = self.node.interrupts.pass_up(error)
            self.finish_with(error)
        else:
            if reason is HIBERNATE:
                self._hibernate()
            else:
                self.finish_with(None, returned=reason)
        if passing is not None:
            # Not while the group is handled that it is from: each would hold the other.
            try:
                raise passing
            finally:
                # Its traceback holds this frame.
                del passing

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

    def let_go(self) -> None:
        """Break the cycles through the trap, the task's context and the loop."""
        self.spot.close()
        self.task = None
        self.plain_call = self.async_call = self.served = None
        self._server = None
        self.unfinished = None

    # --- hibernation ------------------------------------------------------------

    @property
    def hibernating(self) -> bool:
        """Whether its task was put away."""
        return isinstance(self.spot, Dormant)

    def lie_down(self, nursery: trio.Nursery, context: Context) -> None:
        """Have no task until there is something to do.

        Args:
            nursery: where the task will live.
            context: whose copy it will have.
        """
        dormant = self.spot = Dormant(self, nursery, context)
        # All that is done to it while there is no task is to cancel it.
        self.scope = cast("trio.CancelScope", dormant)
        self.idle = True

    @enable_ki_protection
    def _hibernate(self) -> None:
        assert self.task is not None, "it returned just now"
        nursery = self.task.parent_nursery
        # The task is in its own until it has ended; something may come before.
        context = self.task.context.copy()
        assert nursery is not None, "a process is a task in a nursery"
        self.let_go()
        self.lie_down(nursery, context)
        if telemetry.handlers:
            event = ("atomr", "process", "hibernate")
            telemetry.emit(event, metadata={"pid": self.pid})

    def stop_now(self, reason: ExitReason) -> bool:
        """End with ``reason`` if nothing has to run for that; return whether so."""
        if not (self.hibernating and self.idle):
            return False
        self.idle = False
        if is_crash(reason):
            self.report_crash(reason)
        self.finish(reason)
        return True

    def rise(self) -> None:
        """Get ready for a new task."""
        self.spot = ParkSpot()
        self.scope = trio.CancelScope()
        self.idle = False
        if self.injected is not None:
            # By its own plain init, before there was a scope to strike.
            self.scope.cancel()

    def end_around(self) -> None:
        """See to it that a cancellation around reaches code that has no task."""
        if self.hibernating:
            self.push_signal(LOOK)
