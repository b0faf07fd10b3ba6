"""Task: one function, run as a process, whose value somebody waits for.

::

    async with open_node():
        task = Task.async_(fetch, url)
        other = await something_else()
        page = await task.result()

A task is an ordinary process, and its handle is no mailbox: the outcome stays
in the handle.  So any trio task may wait for it, several may, and as often as
they like; waiting, in vain or not, does nothing to the task.

**Links.**  :meth:`Task.async_` links the task to the process that calls it: if
one ends abnormally, so does the other.  A trio task that belongs to no process
has nothing to link: its task is seen to have crashed by whoever waits for it,
and it ends by itself, with its supervisor, or with its node.

When to use: to do things at the same time and come back with values.  When not:
for what has a state or takes messages, a :class:`~atomr.otp.GenServer`; for a
few things that begin and end within one function, a trio nursery is simpler.

Source: Elixir ``Task``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, TypeVarTuple, Unpack

import attrs

from atomr.core.checks import check_async
from atomr.core.child_spec import (
    DEFAULT_SHUTDOWN_S,
    BrutalKill,
    ChildSpec,
    Restart,
    ShutdownTime,
    check_shutdown,
)
from atomr.core.exits import KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import PassesBounds
from atomr.errors import TaskExitError, TaskTimeoutError
from atomr.otp.task_body import (
    NOTHING,
    Done,
    Exited,
    Sink,
    TaskBody,
    callers_of,
    label_of,
    outcome_of,
    owner_now,
)
from atomr.otp.task_waiting import wait_for_end
from atomr.process.calls import DEFAULT_TIMEOUT_S
from atomr.process.context import current_node, current_process, find_process
from atomr.process.signals import link
from atomr.process.stopping import begin_stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr.otp.children import SpecOptions
    from atomr.otp.task_waiting import Wait
    from atomr.process.process import Process
    from atomr.refs import Pid

Ts = TypeVarTuple("Ts")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@attrs.frozen
class TaskEnded(PassesBounds, Generic[R_co]):
    """The message that :meth:`Task.notify` asks for.

    Attributes:
        task: the handle.
        outcome: how it ended.
    """

    task: Task[R_co]
    outcome: Done[R_co] | Exited


class Task(Sink, Generic[R_co]):
    """The handle of a running or ended task; made by the functions that start one.

    Attributes:
        pid: its process; None for a completed one.
        owner: the process that asked for it; None: the caller was no process.
    """

    __slots__ = (
        "__weakref__",
        "_owner",
        "_process",
        "_reason",
        "_told",
        "_waits",
        "owner",
        "pid",
    )

    def __init__(self, owner: Process | None) -> None:
        self.value = NOTHING
        self.pid: Pid | None = None
        self.owner: Pid | None = None if owner is None else owner.pid
        self._owner = owner
        self._process: Process | None = None
        self._reason: ExitReason | None = None
        self._told: list[Process] | None = None
        self._waits: list[Wait] | None = None

    def __repr__(self) -> str:
        state = "runs" if self._reason is None else repr(self.outcome)
        return f"<Task {self.pid!r} {state}>"

    # --- starts ----------------------------------------------------------------

    @staticmethod
    def async_(fn: Callable[[Unpack[Ts]], Awaitable[R]], *args: *Ts) -> Task[R]:
        """Run ``fn(*args)`` as a process linked to the running one.

        Returns before the function has begun.  Nobody supervises the task, and
        the node stops it when its block is left; :func:`~atomr.otp.async_`
        starts one under a supervisor.  The function sees the context variables
        of the caller.

        Args:
            fn: async function.
            args: its arguments.

        Raises:
            TypeError: ``fn`` is no async function.
            NoNodeError: there is no node around.
        """
        check_async("Task.async_()", fn)
        owner = owner_now()
        task: Task[R] = Task(owner)
        body = TaskBody(fn, args, callers=callers_of(owner), sink=task)
        pid = current_node().spawn(body, label=label_of(fn), name=None)
        task.runs_in(pid, linked=True)
        return task

    @staticmethod
    def completed(value: R) -> Task[R]:
        """Return a task that has ended with that value; there is no process.

        For the inputs of a batch whose results are known beforehand.
        """
        task: Task[R] = Task(owner_now())
        task.value = value
        task.ended(NORMAL)
        return task

    @staticmethod
    def child(
        fn: Callable[[Unpack[Ts]], Awaitable[object]],
        *args: *Ts,
        id: str | None = None,  # noqa: A002 - the field's name in ChildSpec
        **options: Unpack[SpecOptions],
    ) -> ChildSpec:
        """Return the specification of a task as a child of a supervisor.

        A step in a tree's start: to warm a cache, to say that all is up.  The
        supervisor goes on at once; nobody can wait for the value.

        Args:
            fn: async function.
            args: its arguments.
            id: None: the function's name.
            options: any other field of ``ChildSpec``; ``restart`` is
                ``TEMPORARY`` unless given.

        Raises:
            TypeError: ``fn`` is no async function.
        """
        check_async("Task.child()", fn)

        def start() -> TaskBody:
            return TaskBody(fn, args, callers=callers_of(owner_now()))

        options.setdefault("restart", Restart.TEMPORARY)
        return ChildSpec(id=label_of(fn) if id is None else id, start=start, **options)

    def runs_in(self, pid: Pid, *, linked: bool) -> None:
        """Note the process, which has just been started; for those who start one."""
        self.pid = pid
        self._process = find_process(pid)
        if linked and self._owner is not None:
            link(pid)

    # --- outcomes -------------------------------------------------------------------

    @property
    def outcome(self) -> Done[R_co] | Exited | None:
        """How it ended; None: it runs."""
        if self._reason is None:
            return None
        value: R_co = self.value  # type: ignore[assignment]  # by its function
        return outcome_of(value, self._reason)

    async def result(self, *, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> R_co:
        """Wait for the value; Elixir's ``await``.

        Works from any trio task, and as often as one likes.

        Args:
            timeout_s: bound in seconds; 0 only looks; None: no bound.

        Raises:
            TaskExitError: the task ended without a value; the exception that it
                raised, with its traceback, is the ``__cause__``.  A caller that
                is linked to it, and does not trap exits, ends with the task's
                reason instead, as any process does by a link.
            TaskTimeoutError: it still runs, and goes on running.  A caller that
                lets this error end it takes a linked task along.
            NotAProcessError: a task cannot wait for its own end.

        Cancellation: the task goes on running.
        """
        await wait_for_end(self, timeout_s)
        if self._reason is None:
            assert timeout_s is not None, "no bound, no timeout"
            raise TaskTimeoutError(self.pid, timeout_s)
        return self.value_or_raise()

    def value_or_raise(self) -> R_co:
        """Return the value of a task that has ended.

        Raises:
            TaskExitError: it has none.
        """
        assert self._reason is not None, "asked of a task that has ended"
        if self._reason is not NORMAL or self.value is NOTHING:
            raise TaskExitError(self.pid, self._reason)
        value: R_co = self.value  # type: ignore[assignment]  # by its function
        return value

    async def yield_(
        self, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> Done[R_co] | Exited | None:
        """Wait for the outcome, without giving up when it does not come.

        ``await task.yield_(timeout_s=1) or await task.shutdown()`` is how to
        give a task a second and no more, and still get a value that comes late.

        Args:
            timeout_s: bound in seconds; 0 only looks; None: no bound.

        Returns:
            How it ended; None: it runs.

        Raises:
            NotAProcessError: a task cannot wait for its own end.

        Cancellation: the task goes on running.
        """
        await wait_for_end(self, timeout_s)
        return self.outcome

    def notify(self) -> None:
        """Send the running process a :class:`TaskEnded` when the task ends.

        For a server, which must not wait: it goes on serving, and finds the
        message in ``handle_info``.  At once, if the task has ended.

        Raises:
            NotAProcessError: the running task belongs to no process.
        """
        process = current_process("notify()")
        if self.outcome is not None:
            process.deliver(TaskEnded(self, self.outcome))
        elif self._told is None:
            self._told = [process]
        else:
            self._told.append(process)

    # --- ends ---------------------------------------------------------------------

    async def shutdown(
        self, shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S
    ) -> Done[R_co] | Exited | None:
        """Unlink the task, stop it, and wait until it has ended.

        A task that traps exits is sent ``Exit`` and has the shutdown time;
        any other is cancelled at once.

        Args:
            shutdown: seconds until it is killed, ``BRUTAL_KILL``: it is killed
                at once, or ``INFINITY``.

        Returns:
            The value, if it came before or meanwhile; how it ended, if neither
            by this stop nor by one just like it; else None.

        Raises:
            NotAProcessError: a task cannot wait for its own end.
            ValueError: ``shutdown`` is negative.

        Cancellation: the task goes on stopping.
        """
        self.begin_shutdown(shutdown)
        await wait_for_end(self, None)
        asked = KILLED if isinstance(shutdown, BrutalKill) else SHUTDOWN
        return None if self._reason is asked else self.outcome

    def begin_shutdown(self, shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S) -> None:
        """Unlink the task and stop it, without waiting for its end.

        Raises:
            ValueError: ``shutdown`` is negative.
        """
        check_shutdown(shutdown)
        self._unlink()
        if self._process is not None:
            begin_stop(self._process, shutdown)

    def ignore(self) -> Done[R_co] | Exited | None:
        """Unlink the task and let it run; its owner's end does not end it.

        Withdraws :meth:`notify`.  Unlike in Elixir, the handle stays usable.

        Returns:
            How it ended; None: it runs.
        """
        self._unlink()
        self._told = None
        return self.outcome

    def _unlink(self) -> None:
        owner, process = self._owner, self._process
        if owner is None or process is None:
            return
        for one, other in ((owner, process), (process, owner)):
            if one.links is not None:
                one.links.pop(other, None)

    # --- for those who wait ---------------------------------------------------------

    @property
    def process(self) -> Process | None:
        """Its process; None when it has ended."""
        return self._process

    def add_wait(self, wait: Wait) -> None:
        """Let ``wait`` hear of the end; only while it runs."""
        if self._waits is None:
            self._waits = [wait]
        else:
            self._waits.append(wait)

    def remove_wait(self, wait: Wait) -> None:
        """Undo :meth:`add_wait`."""
        if self._waits is not None:
            self._waits.remove(wait)

    def ended(self, reason: ExitReason) -> None:
        """Take note of the end; called by the process."""
        self._reason = reason
        self._process = self._owner = None
        waits, self._waits = self._waits, None
        for wait in waits or ():
            wait.one_ended(failed=reason is not NORMAL or self.value is NOTHING)
        told, self._told = self._told, None
        for process in told or ():
            process.deliver(TaskEnded(self, outcome_of(self.value, reason)))
