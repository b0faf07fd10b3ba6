"""A process that may wait, without a task until something comes.

Between two messages an ``async def`` server has nothing on its stack that it
needs: its state is its instance.  So the task of one that will be idle for long
can end, and with it the coroutine, the cancel scope and the trap: two thirds of
what an idle process takes.  The first message, signal or cancellation starts a
new task, in a copy of the old one's context.

A server whose ``init`` is a plain function begins like that: its task is started
by its first message.

:class:`Dormant` stands where a process with a task has its place to sleep and
its scope: waking and cancelling it both mean to begin a task.  So neither the
path of a message nor that of a call asks whether a process hibernates.

Source: OTP ``proc_lib:hibernate/3``; ``gen_server``, ``hibernate_after``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atomr import telemetry
from atomr.core.exits import Shutdown
from atomr.process.parking import ParkSpot

if TYPE_CHECKING:
    from contextvars import Context

    import trio

    from atomr.process.task_process import TaskProcess

HIBERNATE: Final = Shutdown("hibernates")
"""What a behaviour returns to be put away; by identity, so no exit reason."""


class Dormant(ParkSpot):
    """What is kept of a task that was put away; nobody ever sleeps here."""

    __slots__ = ("_context", "_nursery", "_process")

    def __init__(
        self, process: TaskProcess, nursery: trio.Nursery, context: Context
    ) -> None:
        super().__init__()
        self._process: TaskProcess | None = process
        self._nursery = nursery
        self._context = context

    def wake(self) -> None:
        """Let the process go on, in a new task."""
        process = self._process
        if process is None:
            return
        process.rise()
        # The new task's context is a copy of the one that it is started in.
        self._context.run(_start, self._nursery, process)
        if telemetry.handlers:
            telemetry.emit(("atomr", "process", "wake"), metadata={"pid": process.pid})

    def cancel(self) -> None:
        """Let the process go on, to its end."""
        process = self._process
        if process is not None:
            self.wake()
            process.scope.cancel()

    def close(self) -> None:
        """Let go of the process: it has ended."""
        self._process = None
        # The context holds the process as well.
        del self._nursery, self._context


def _start(nursery: trio.Nursery, process: TaskProcess) -> None:
    nursery.start_soon(process.main, name=repr(process.pid))
