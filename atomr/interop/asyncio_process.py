"""An asyncio event loop in a thread of its own, as a process.

::

    child(AsyncioProcess.of(aiohttp.ClientSession), name="http")

    http = AsyncioRef[aiohttp.ClientSession]("http")
    page = await http.call(fetch, url)

``fetch`` is a coroutine function of asyncio; it runs as a task in that loop.
What it returns or raises comes to the caller.  A caller that is cancelled
cancels the task and waits for its end, so nothing goes on behind its back.

The resource, an async context manager of asyncio, is entered in the loop during
``init`` and left at the end, always in one task.

A stop ends the loop in order: calls are cancelled (their callers hear
``ServerDownError``), the resource is left, what other tasks the libraries
started are cancelled, async generators and the loop's threads are shut down,
the loop is closed.  All of that has the shutdown time.  After it the thread is
left behind, and the process ends with ``KILLED``: see
:mod:`atomr.interop.threads`.

:mod:`atomr.interop.asyncio_calls` is the callers' side.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, TypeVarTuple, Unpack

from atomr.errors import AsyncioCancelledError, ThreadAbandonedError
from atomr.interop.hosting import Hosted, HostedProcess
from atomr.interop.jobs import Job
from atomr.interop.threads import ThreadSide
from atomr.process.process import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from atomr.core.exits import ExitReason
    from atomr.process.calls import From

S = TypeVar("S")
Ts = TypeVarTuple("Ts")


class AsyncioProcess(Hosted, Generic[S]):
    """Owns an asyncio loop in a thread, and a resource in it.

    Args:
        open_: returns an async context manager; called, entered and left in the
            loop.  None: there is no resource.
        loop_factory: makes the loop; None: asyncio's default.
    """

    def __init__(
        self,
        open_: Callable[[], AbstractAsyncContextManager[S]] | None = None,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        super().__init__()
        self._open = open_
        self._loop_factory = loop_factory
        self._early: list[From] = []
        self._side: ThreadSide
        # Written by the loop's thread, before anybody else reads them.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._resource: object = None
        self._end: asyncio.Event
        # Only touched in the loop's thread.
        self._entered = False
        self._closing = False
        self._tasks: dict[From, asyncio.Task[object]] = {}

    @classmethod
    def of(
        cls,
        open_: Callable[[Unpack[Ts]], AbstractAsyncContextManager[S]] | None = None,
        *args: *Ts,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> Callable[[], AsyncioProcess[S]]:
        """Return what a child specification starts: a fresh loop each time."""

        def start() -> AsyncioProcess[S]:
            opened = None if open_ is None else (lambda: open_(*args))
            return cls(opened, loop_factory=loop_factory)

        start.__name__ = getattr(open_, "__name__", cls.__name__)
        return start

    def system_state(self) -> object:
        """Return how many calls run, and whether it was asked to stop."""
        return {"calls": len(self._tasks), "stopping": self._side.stopping.is_set()}

    # --- in trio ------------------------------------------------------------------

    async def work(self, process: HostedProcess) -> None:
        """Run the thread."""
        self._side = ThreadSide(process)
        try:
            await self._side.run(self._run, None)
        finally:
            # For a thread that is left behind; another one has no loop any more.
            self._in_loop(self._drop)

    def ask(self, reason: ExitReason, scope: trio.CancelScope) -> None:
        """Let the loop end in order."""
        self._side.ask(reason)
        if self._side.begun:
            # A loop that is not there yet will see it by itself.
            self._in_loop(self._asked)
        else:
            scope.cancel()

    def begin(self, ref: From) -> None:
        """Run the call's job in the loop; it is settled when that has ended."""
        if self.process.status is Status.STARTING:
            self._early.append(ref)
        else:
            self._in_loop(self._begin, ref)

    def end(self, ref: From) -> None:
        """Cancel the call's job; the call is settled when that has ended."""
        if ref in self._early:
            self._early.remove(ref)
            ref.fail(AsyncioCancelledError(ref.target, ref.request))
        else:
            self._in_loop(self._cancel, ref)

    def set_soon(self, event: asyncio.Event) -> None:
        """Set an event of the loop."""
        self._in_loop(event.set)

    def _in_loop(self, fn: Callable[..., object], *args: object) -> None:
        if self._loop is not None:
            # Closed: the process is about to end, which fails all calls.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(fn, *args)

    def _started(self) -> None:
        if self.process.status is Status.STARTING:
            self.process.started()
            for ref in self._early:
                self._in_loop(self._begin, ref)
            self._early.clear()

    # --- in the loop's thread -------------------------------------------------------

    def post(self, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn(*args)`` in trio; nothing when trio has ended."""
        with suppress(ThreadAbandonedError):
            self._side.post(fn, *args)

    def _run(self) -> None:
        runner = asyncio.Runner(loop_factory=self._loop_factory)
        try:
            runner.run(self._main())
        except asyncio.CancelledError as error:
            if not self._side.stopping.is_set():
                problem = "the asyncio loop's main task was cancelled inside the loop"
                raise RuntimeError(problem) from error
        finally:
            self._closing = True
            runner.close()

    async def _main(self) -> None:
        self._main_task = asyncio.current_task()
        self._end = asyncio.Event()
        # Last: from now on trio's side may post to the loop.
        self._loop = asyncio.get_running_loop()
        if self._side.stopping.is_set():
            return
        async with self._open() if self._open is not None else nullcontext() as value:
            self._resource = value
            self._entered = True
            self.post(self._started)
            try:
                await self._end.wait()
            finally:
                self._end.set()
                await self._cancel_all()

    async def _cancel_all(self) -> None:
        self._closing = True
        while self._tasks:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.wait(tuple(self._tasks.values()))
            # Their callbacks, which take them out, run in the next turn.
            await asyncio.sleep(0)

    def _asked(self) -> None:
        if self._entered:
            self._end.set()
        else:
            self._drop()

    def _drop(self) -> None:
        if self._main_task is not None:
            self._main_task.cancel()

    def _begin(self, ref: From) -> None:
        job = ref.request
        assert isinstance(job, Job), "asked by asyncio_calls"
        if self._closing:
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._serve(job), context=job.context)
        self._tasks[ref] = task
        task.add_done_callback(partial(self._done, ref))

    async def _serve(self, job: Job[object]) -> object:
        arguments = job.arguments_with(self._resource)
        return await job.function(*arguments)  # type: ignore[misc]

    def _cancel(self, ref: From) -> None:
        task = self._tasks.get(ref)
        if task is not None:
            task.cancel()

    def _done(self, ref: From, task: asyncio.Task[object]) -> None:
        del self._tasks[ref]
        if task.cancelled():
            # At the loop's end, the process' end tells the caller.
            if not self._closing:
                error = AsyncioCancelledError(ref.target, ref.request)
                self.post(ref.fail, error)
        elif (failure := task.exception()) is not None:
            self.post(ref.fail, failure)
        else:
            self.post(ref.reply, task.result())
