"""One thread for all of a runner's code that is not async.

Much of what users bring may not be called from two threads at once, or belongs to
the thread that made it: connections to sqlite, CUDA's current device, a GUI.  So it
is loaded, asked and closed in one and the same thread, a call at a time.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class _Work(Generic[_T]):
    """A call, from the event loop to the thread and back."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self.done = trio.Event()
        self.result: outcome.Outcome[_T] | None = None
        self._call = call
        self._token = trio.lowlevel.current_trio_token()
        # Who has it first: the thread that begins, or the loop that drops it.
        self._taken = threading.Lock()

    def drop(self) -> bool:
        """Have it not begun; False: it has."""
        return self._taken.acquire(blocking=False)

    def perform(self) -> None:
        if not self._taken.acquire(blocking=False):
            return
        result = outcome.capture(self._call)
        try:
            self._token.run_sync_soon(self._finish, result)
        except trio.RunFinishedError:
            return  # nobody waits any more

    def _finish(self, result: outcome.Outcome[_T]) -> None:
        self.result = result
        self.done.set()


class PinnedThread:
    """A thread that runs one call after the other; its ``with`` block is its life.

    Args:
        name: what it is called, for a debugger.
    """

    def __init__(self, name: str) -> None:
        self._works: queue.SimpleQueue[_Work[object] | None] = queue.SimpleQueue()
        # A call that never ends must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._works.put(None)

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work.perform()

    async def run(self, call: Callable[[], _T], *, abandons: bool = False) -> _T:
        """Return what a call in the thread returns.

        Args:
            call: what is called.
            abandons: whether a cancellation leaves it alone when it has begun.

        Raises:
            Exception: whatever the call raises.

        Cancellation: a call that has begun is awaited; one that has not never does.
        """
        work = _Work(call)
        self._works.put(cast("_Work[object]", work))
        try:
            await work.done.wait()
        except trio.Cancelled:
            if not work.drop() and not abandons:
                with trio.CancelScope(shield=True):
                    await work.done.wait()
            raise
        assert work.result is not None
        return work.result.unwrap()
