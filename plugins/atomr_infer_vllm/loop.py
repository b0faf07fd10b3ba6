"""vLLM's asyncio loop, in a thread beside trio.

Work crosses as callables: ``call_soon_threadsafe`` one way, ``run_sync_soon`` the
other.  A task's end is told by its done callback, which runs however it ends: a
``finally`` of its own would not, where it is cancelled before its first step.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")


class LoopThread:
    """An asyncio loop that runs in a daemon thread until :meth:`stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        threading.Thread(target=self._run, name="vllm-loop", daemon=True).start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self.to_trio(self._ended.set)

    async def stop(self) -> None:
        """End the loop after what was sent to it; tasks that run are left.

        Cancellation: shielded; what the loop does last takes a moment.
        """
        self._loop.call_soon_threadsafe(self._loop.stop)
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the loop's thread."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def to_trio(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in trio's thread; from the loop's."""
        # After trio's end there is nobody to tell.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)

    def start(self, work: Callable[[], Coroutine[Any, Any, object]]) -> LoopTask:
        """Run a coroutine as a task of the loop; from trio's thread."""
        return LoopTask(self, work)

    async def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine in the loop and return its value.

        Raises:
            BaseException: what it raises.

        Cancellation: the coroutine is cancelled, and awaited, shielded.
        """
        task = self.start(work)
        try:
            await task.ended.wait()
        except trio.Cancelled:
            await task.cancel()
            raise
        if task.error is not None:
            raise task.error
        return cast(_T, task.value)


class LoopTask:
    """A task of the loop, as trio sees it.

    Attributes:
        ended: set in trio when it has ended, however it did.
        value: what it returned.
        error: what it raised; None when it returned or was cancelled.
    """

    def __init__(
        self, loop: LoopThread, work: Callable[[], Coroutine[Any, Any, object]]
    ) -> None:
        self.ended = trio.Event()
        self.value: object = None
        self.error: BaseException | None = None
        self._loop = loop
        self._task: asyncio.Task[object] | None = None
        loop.soon(self._begin, work)

    async def cancel(self) -> None:
        """Cancel it and wait for its end, shielded."""
        # The loop calls in order, so it has begun by then.
        self._loop.soon(self._cancel)
        with trio.CancelScope(shield=True):
            await self.ended.wait()

    # --- in the loop's thread ---------------------------------------------------

    def _begin(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._task = asyncio.get_running_loop().create_task(work())
        self._task.add_done_callback(self._note)

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()

    def _note(self, task: asyncio.Task[object]) -> None:
        if not task.cancelled():
            self.error = task.exception()
            if self.error is None:
                self.value = task.result()
        self._loop.to_trio(self.ended.set)
