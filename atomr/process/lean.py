"""A process without a task: its callbacks are plain functions.

What never waits needs no stack of its own.  A lean process is an object of
some 400 bytes; its messages are handled by the node's one :class:`Drain` task,
or, if it has nothing to do, a call is handled on the caller's stack.

Everything about it is synchronous: its start, each message, ``terminate``, its
end.  So a cancellation never finds it half-way, and its shutdown time has
nothing to bound.

``idle`` is False from the moment that there is something to do until it is
done: the process is then in the drain's line, or on somebody's stack.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from contextvars import Context

import trio
from trio.lowlevel import enable_ki_protection

from atomr.core.exits import KILLED, SHUTDOWN, ExitReason, is_crash
from atomr.process.behaviour import CrashRequest
from atomr.process.context import CURRENT, NODE
from atomr.process.endings import reason_of
from atomr.process.parking import ParkSpot
from atomr.process.process import FAIRNESS_MESSAGES, LOOK, Process, Status

TURN_MESSAGES = 64
"""Messages of one process before the next has its turn."""

_NO_CONTEXT = Context()


class LeanProcess(Process):
    """A process that the node's drain runs.

    Attributes:
        context: its context variables: a copy of its starter's.
        entered: whether the process is noted in it.
    """

    __slots__ = ("context", "entered")

    # Plain functions wait for nobody and have no task.
    task = None

    # Set by the subclass at the start: a start is short, and has no frame to spare.
    context: Context
    entered: bool

    # --- to be provided ---------------------------------------------------------

    @abstractmethod
    def run_init(self) -> None:
        """Run ``init``; call ``started()`` or ``broken(error)``."""

    @abstractmethod
    def turn(self) -> int:
        """Do what there is to do, at most ``TURN_MESSAGES``; return how many."""

    @abstractmethod
    def clean_up(self, reason: ExitReason) -> None:
        """Run ``terminate``; may raise."""

    # --- what others ask for ----------------------------------------------------------

    @enable_ki_protection
    def wake(self) -> None:
        """Let the process look at what there is to do."""
        if self.idle:
            # Flat, as most messages to an idle process come here.
            self.idle = False
            drain = self.node.drain
            drain.ready.append(self)
            if drain.spot.task is not None:
                drain.spot.wake()

    def own_context(self) -> Context:
        """Return the context to run callbacks in, with the process current."""
        if not self.entered:
            # Not before it is needed: it is half of an idle process.
            self.entered = True
            self.context.run(self._enter)
        return self.context

    def _enter(self) -> None:
        CURRENT.set(self)
        # The starter may be of another node.
        if NODE.get() is not self.node:
            NODE.set(self.node)

    # --- start and stop -----------------------------------------------------

    def cancel(self, reason: ExitReason) -> None:
        """End the process as soon as its message in work is done."""
        if self.status is Status.EXITED:
            return
        if self.kill_reason is None or reason is KILLED:
            self.kill_reason = reason
        # Seen as a signal, so that the loop has one thing to look at.
        self.push_signal(LOOK)

    def inject(self, error: BaseException) -> None:
        """Crash with ``error`` as soon as the message in work is done."""
        if self.status is not Status.EXITED:
            self.push_signal(CrashRequest(error))

    @enable_ki_protection
    def end(self, reason: ExitReason) -> None:
        """End in order: ``terminate``, then all that follows.

        Raises:
            BaseException: what ``terminate`` raised and neither the process nor
                the node may keep; as for :meth:`broken`.
        """
        try:
            self.own_context().run(self.clean_up, reason)
        except BaseException as error:
            passing = self.node.interrupts.pass_up(error)
            self.finish_with(error)
            if passing is error:
                raise
            if passing is not None:
                raise passing from error
        else:
            if is_crash(reason):
                self.report_crash(reason)
            self.finish(reason)

    @enable_ki_protection
    def broken(self, error: BaseException, *, may_clean_up: bool = True) -> None:
        """End because a callback raised.

        Raises:
            BaseException: ``error`` or a part of it, when neither the process nor
                the node may keep it: a second ``KeyboardInterrupt``.
        """
        passing = self.node.interrupts.pass_up(error)
        if may_clean_up and self.kill_reason is None and passing is None:
            try:
                self.own_context().run(self.clean_up, reason_of(error))
            except BaseException as other:  # noqa: BLE001 - it is the reason now
                if other is not error:
                    other.__context__ = error
                error = other
                passing = self.node.interrupts.pass_up(error)
        self.finish_with(error)
        if passing is not None:
            raise passing

    def finish_with(self, error: BaseException) -> None:
        """Finish with what a callback raised."""
        reason = reason_of(error)
        if is_crash(reason):
            self.report_crash(reason)
        if self.kill_reason is KILLED:
            reason = KILLED
        self.finish(reason)

    def end_around(self) -> None:
        """End because what is around it was cancelled."""
        if self.status is not Status.EXITED:
            self.end(SHUTDOWN)

    def let_go(self) -> None:
        """Break the cycle through the context."""
        self.context = _NO_CONTEXT


class Drain:
    """Runs the lean processes of one node that have something to do.

    One process after the other has a turn; each 256 messages other tasks have.

    Attributes:
        ready: those that have something to do, in the order of their turns.
        spot: where its task sleeps while there is none.
    """

    __slots__ = ("ready", "spot")

    def __init__(self) -> None:
        self.ready: deque[LeanProcess] = deque()
        self.spot = ParkSpot()

    @enable_ki_protection
    def add(self, process: LeanProcess) -> None:
        """Let the process have a turn."""
        self.ready.append(process)
        if self.spot.task is not None:
            self.spot.wake()

    @enable_ki_protection
    async def run(self) -> None:
        """Give turns, for ever.

        Raises:
            BaseException: what a callback raised and no process may keep.
        """
        task = trio.lowlevel.current_task()
        ready = self.ready
        while True:
            budget = FAIRNESS_MESSAGES
            while ready and budget > 0:
                # Even a turn that found nothing to do counts: the loop must end.
                budget -= ready.popleft().turn() or 1
            if ready:
                await trio.lowlevel.checkpoint()
            else:
                await self.spot.park(task)

    def close(self) -> None:
        """Drop what is left."""
        self.ready.clear()
        self.spot.close()
