"""How a task waits for what another one does, at little cost."""

from __future__ import annotations

import outcome
import trio


class Wakeup:
    """Wakes the one task that waits, or the next one that would wait.

    An event that is made anew for each wait would cost three times as much.
    """

    __slots__ = ("_set", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._set = False

    def set(self) -> None:
        """Wake the waiting task; without one, let the next wait return at once."""
        if self._task is None:
            self._set = True
        else:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> None:
        """Wait to be woken; always a checkpoint."""
        if self._set:
            self._set = False
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class Parked:
    """Tasks that wait until something has changed; all are woken at once."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[trio.lowlevel.Task, None] = {}

    def wake(self) -> None:
        """Wake all; each looks for itself whether it goes on."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            trio.lowlevel.reschedule(task, outcome.Value(None))

    async def wait(self) -> None:
        """Wait to be woken; always a checkpoint."""
        task = trio.lowlevel.current_task()
        self._tasks[task] = None

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._tasks[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
