"""The process of a task, and what becomes of its value.

A task is a process that calls one function.  Whoever wants the value gives the
body a :class:`Sink`: the body puts the value in, and the process' end, in the
same step as all that follows from it, tells the sink why it ended.  A value
counts only with the reason ``NORMAL``.

The sink hears last, after links, monitors and supervisor.  So a caller that is
linked to a task that crashed ends by the link, with the task's own reason, and
never gets to see an error; and one that is awaiting finds the task's place
under its supervisor free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

from atomr.core.checks import check_returned
from atomr.core.exits import NORMAL, ExitReason
from atomr.errors import short
from atomr.process.behaviour import Parent, Startable
from atomr.process.context import CURRENT, NODE
from atomr.process.process import Status
from atomr.process.task_process import TaskProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from atomr.core.child_spec import ShutdownTime
    from atomr.process.node import Node
    from atomr.process.process import Process
    from atomr.refs import Pid

R = TypeVar("R")

CALLERS_KEPT: Final = 32
"""Nearest callers that a task knows: tasks that start each other must not pile up."""


@attrs.frozen
class Done(Generic[R]):
    """The task returned.

    Attributes:
        value: what.
    """

    value: R


@attrs.frozen
class Exited:
    """The task ended without a value.

    Attributes:
        reason: its exit reason; ``NORMAL`` when it ended itself so.
    """

    reason: ExitReason


class Sink(ABC):
    """Base of what waits for a task's value.

    Attributes:
        value: what the function returned; ``NOTHING`` before.
    """

    __slots__ = ("value",)

    value: object

    @abstractmethod
    def ended(self, reason: ExitReason) -> None:
        """Take note of the end; must neither block nor raise."""


NOTHING: Final = object()
"""Stands for a value that has not come."""


class TaskBody(Startable):
    """Calls ``fn(*args)`` once.

    Args:
        fn: async function.
        args: its arguments.
        callers: who asked for it, nearest first.
        sink: gets the value; None: it is dropped.
        context: context variables to run with; None: the starter's.
    """

    def __init__(
        self,
        fn: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
        *,
        callers: tuple[Pid, ...],
        sink: Sink | None = None,
        context: Context | None = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.callers = callers
        self.sink = sink
        self._context = context

    def make_process(
        self, node: Node, *, label: str, parent: Parent, shutdown: ShutdownTime
    ) -> AsyncProcess:
        """Return the process to run in."""
        return AsyncProcess(node, self, label=label, parent=parent, shutdown=shutdown)

    async def run_process(self, process: TaskProcess) -> ExitReason:
        """Call the function; its exceptions are the exit reason."""
        if process.status is Status.STARTING:
            process.started()
        if self._context is not None:
            _enter(self._context)
        running = self.fn(*self.args)
        check_returned(label_of(self.fn), running)
        value = await running
        if self.sink is not None:
            self.sink.value = value
        return NORMAL

    def process_label(self) -> str:
        """Return the function's name."""
        return label_of(self.fn)

    def behaviour_name(self) -> str:
        """Return what a tree shows."""
        return "Task"

    def crash_state(self) -> object:
        """Return what was called."""
        return _Applied(self.fn, self.args)


class AsyncProcess(TaskProcess):
    """The process of a task."""

    __slots__ = ()

    behaviour: TaskBody

    def let_go(self) -> None:
        """Tell the sink, when everybody else has heard."""
        super().let_go()
        sink = self.behaviour.sink
        if sink is not None:
            assert self.reason is not None, "set before this is called"
            sink.ended(self.reason)


class _Applied:
    __slots__ = ("_args", "_fn")

    def __init__(self, fn: object, args: tuple[object, ...]) -> None:
        self._fn = fn
        self._args = args

    def __repr__(self) -> str:
        return f"{label_of(self._fn)}({', '.join(map(short, self._args))})"


def label_of(fn: object) -> str:
    """Return what to call a task that runs ``fn``."""
    name: str | None = getattr(fn, "__name__", None)
    return type(fn).__name__ if name is None else name


def outcome_of(value: R, reason: ExitReason) -> Done[R] | Exited:
    """Return how a task ended; ``value`` may be ``NOTHING``."""
    if reason is NORMAL and value is not NOTHING:
        return Done(value)
    return Exited(reason)


def owner_now() -> Process | None:
    """Return the process that the running code belongs to, if it lives."""
    process = CURRENT.get()
    if process is None or process.status is Status.EXITED:
        return None
    return process


def callers_of(owner: Process | None) -> tuple[Pid, ...]:
    """Return what a task that ``owner`` asks for has as its callers."""
    if owner is None:
        return ()
    above = owner.behaviour.callers
    return (owner.pid, *above[: CALLERS_KEPT - 1]) if above else (owner.pid,)


def callers() -> tuple[Pid, ...]:
    """Return who asked for the running task: its caller, that one's, and so on.

    Nearest first, at most 32 of them, the dead ones included.  Empty outside a
    task, and in a task whose caller was no process.  A supervisor is no caller;
    crash reports list both.

    Source: Elixir ``Task``, "Ancestor and Caller Tracking".
    """
    process = CURRENT.get()
    return () if process is None else process.behaviour.callers


# A task that is started again has its supervisor's variables, not its caller's.
def _enter(context: Context) -> None:
    for variable, value in context.items():
        if variable is not CURRENT and variable is not NODE:
            variable.set(value)
