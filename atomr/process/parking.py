"""Where a task sleeps until somebody wakes it.

``trio.lowlevel.wait_task_rescheduled`` makes a trap object for each wait, and
``reschedule`` an outcome for each wake: 0.5 us of a call.  A :class:`ParkSpot`
gets its trap once, through the public function, and yields the same one each
time; all wakes share one outcome.

The one rule: ``task`` is set exactly while the task sleeps.  The abort
function clears it at the moment trio aborts the sleep.  Later would be too
late: a waker that saw it stale would schedule the task twice, which ends the
whole run.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import outcome
import trio
from trio.lowlevel import Abort, Task

if TYPE_CHECKING:
    from collections.abc import Generator

WAKE: outcome.Value[None] = outcome.Value(None)
"""What every wake sends; told apart by identity, so that it is never unwrapped."""


class ParkSpot:
    """A reusable place for one task to sleep."""

    __slots__ = ("_trap", "task")

    def __init__(self) -> None:
        self.task: Task | None = None
        # Made at the first sleep: an attached process often never sleeps here.
        self._trap: object = None

    @types.coroutine
    def park(self, task: Task) -> Generator[object, outcome.Outcome[None], None]:
        """Sleep until :meth:`wake`.

        Args:
            task: the current task; passed in, as the caller often knows it.

        Cancellation: wakes at once with ``trio.Cancelled``.
        """
        trap = self.trap()
        self.task = task
        result = yield trap
        if result is not WAKE:
            try:
                result.unwrap()
            finally:
                # It holds the error, whose traceback holds this frame: a cycle
                # that would keep each cancelled process until a collection.
                del result

    def trap(self) -> object:
        """Return what to yield to trio in order to sleep here."""
        if self._trap is None:
            self._trap = _trap_for(self)
        return self._trap

    # In between, the task would be scheduled twice.
    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """Let the sleeping task go on; nothing when none sleeps here."""
        task = self.task
        if task is not None:
            # In this order: from a wrong thread trio raises, and nothing is lost.
            trio.lowlevel.reschedule(task, WAKE)
            self.task = None

    def close(self) -> None:
        """Drop the trap, which refers back to this spot."""
        self._trap = None

    def abort(self, _raise_cancel: object) -> Abort:
        """Take part in a cancellation; called by trio."""
        self.task = None
        return Abort.SUCCEEDED


# The trap's type is private to trio; it is only ever handed back to trio.
def _trap_for(spot: ParkSpot) -> Any:  # noqa: ANN401
    # Driven by hand up to its yield, not awaited.
    waiting: Any = trio.lowlevel.wait_task_rescheduled(spot.abort)  # noqa: ASYNC105
    trap = waiting.send(None)
    waiting.close()
    return trap
