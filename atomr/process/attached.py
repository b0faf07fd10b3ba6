"""A process made of the current task, for the length of a block.

``attached`` is what a request is: it needs no task, nursery or mailbox hop of
its own, but it must be seen, monitored, linked, stopped and killed like any
process.  So the task it is entered in *becomes* the process: it gets a pid and
a cancel scope, and its supervisor holds it as a temporary child.

Ownership: the supervisor cancels the block, but the task belongs to its
caller.  What leaves the block goes to the caller, not to the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr.core.child_spec import DEFAULT_SHUTDOWN_S
from atomr.core.exits import NORMAL
from atomr.errors import AtomrInternalError, NoProcessError, ProcessKilledError
from atomr.process.behaviour import AttachPoint, Startable
from atomr.process.context import CURRENT, find_process
from atomr.process.task_process import TaskProcess

if TYPE_CHECKING:
    from types import TracebackType

    from atomr.core.exits import ExitReason
    from atomr.process.process import Process
    from atomr.refs import Address, Pid


class _Attached(Startable):
    # What leaves the block is raised in the caller: log or raise, not both.
    reports_crashes = False

    async def run_process(self, process: TaskProcess) -> ExitReason:
        raise AtomrInternalError(f"{process.pid!r} has its caller's task")


_ATTACHED = _Attached()


class attached:  # noqa: N801 - `async with attached(...)` reads as a function
    """Make the current task a temporary process for the length of a block.

    ::

        async with attached("requests", id=request_id) as pid:
            ...

    Inside, ``self_pid()`` is the new pid, and ``receive`` reads its mailbox.
    Entering and leaving do not wait, so they are no checkpoints.

    Args:
        supervisor: a DynamicSupervisor's pid or name.
        id: its id among the children, for people; need not be unique.
        shutdown_s: seconds that a trapping block has to end on a stop.

    Raises:
        NoProcessError: the supervisor is not there.
        StartError: it is stopping or full, or is no DynamicSupervisor.
        ProcessKilledError: the block was cancelled through the process: by its
            supervisor, an exit signal, or a link.  The caller goes on.

    Cancellation: an exception, and a cancellation from outside, leave the
    block as they would without it; the reason is recorded (``SHUTDOWN`` for
    a cancellation).
    """

    __slots__ = ("_id", "_outer", "_process", "_shutdown_s", "_supervisor")

    def __init__(
        self,
        supervisor: Address,
        *,
        id: str,  # noqa: A002 - the word of child specifications
        shutdown_s: float = DEFAULT_SHUTDOWN_S,
    ) -> None:
        self._supervisor = supervisor
        self._id = id
        self._shutdown_s = shutdown_s
        self._process: TaskProcess | None = None
        self._outer: Process | None = None

    @property
    def scope(self) -> trio.CancelScope:
        """The block's, inside of it; who cancels it ends the process.

        Raises:
            RuntimeError: outside of the block.
        """
        if self._process is None:
            raise RuntimeError("attached() has no scope before it is entered")
        return self._process.scope

    async def __aenter__(self) -> Pid:
        return self._enter()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return self._leave(exc_type, exc, traceback)

    # Synchronous and protected: an interrupt in between would leave the process
    # in its supervisor's table.
    @trio.lowlevel.enable_ki_protection
    def _leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        process = self._process
        assert process is not None, "entered"
        CURRENT.set(self._outer)
        try:
            swallowed = process.scope.__exit__(exc_type, exc, traceback)
        except BaseException as rest:
            # The scope took its own Cancelled out of a group; the rest goes on.
            process.finish_with(rest)
            raise
        if exc is None or swallowed:
            returned = NORMAL if exc is None else process.reason_for(exc)
            process.finish_with(None, returned=returned)
            if process.scope.cancelled_caught:
                raise ProcessKilledError(process.pid, process.reason)
            return False
        process.finish_with(exc)
        return False

    @trio.lowlevel.enable_ki_protection
    def _enter(self) -> Pid:
        parent_process = find_process(self._supervisor)
        if parent_process is None:
            raise NoProcessError(self._supervisor, f"attached(id={self._id!r})")
        parent = parent_process.behaviour
        if not isinstance(parent, AttachPoint):
            raise TypeError(
                f"attached({self._supervisor!r}): expected a DynamicSupervisor,"
                f" not a {type(parent).__name__}"
            )
        parent.check_room(self._id)
        process = TaskProcess(
            parent_process.node,
            _ATTACHED,
            label=self._id,
            parent=parent,
            shutdown=self._shutdown_s,
        )
        self._process = process
        self._outer = CURRENT.get()
        process.task = trio.lowlevel.current_task()
        parent.attach(process)
        CURRENT.set(process)
        process.started()
        process.scope.__enter__()
        return process.pid
