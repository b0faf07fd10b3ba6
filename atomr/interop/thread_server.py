"""One thread of its own, and calls that are served in it, one at a time.

::

    def open_db(path: str) -> AbstractContextManager[sqlite3.Connection]:
        return closing(sqlite3.connect(path))

    child(ThreadServer.of(open_db, "app.db"), name="db")

    db = ThreadRef[sqlite3.Connection]("db")
    rows = await db.call(lambda conn: conn.execute("select 1").fetchall())

For what belongs to one thread: a SQLite connection, a CUDA context, a GUI, a C
library that keeps its state in the thread.  The resource is opened in that
thread during ``init``, and closed in it at the end.

A function's exception goes to its caller, and the server lives on; the classes
in ``fatal`` are those after which the resource cannot be trusted: they crash
the server, and a restart opens a new one.

A call that is given up, or whose caller is cancelled, leaves the thread
undisturbed; one whose turn has not come by then is not run.
"""

from __future__ import annotations

from contextlib import nullcontext
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar, TypeVarTuple, Unpack

import outcome

from atomr.core.checks import check_plain
from atomr.interop.hosting import Hosted, HostedProcess, next_message
from atomr.interop.jobs import Job
from atomr.interop.threads import ThreadSide
from atomr.process.calls import DEFAULT_TIMEOUT_S, From, call
from atomr.process.process import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import trio

    from atomr.core.exits import ExitReason
    from atomr.refs import Address

S = TypeVar("S")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_REMEDY: Final = "a thread has no event loop; for asyncio there is call_asyncio()"


class ThreadServer(Hosted, Generic[S]):
    """Owns a thread, and a resource in it.

    Args:
        open_: returns a context manager; called, entered and left in the thread.
            None: there is no resource.
        fatal: classes of errors of functions that end the server.
    """

    def __init__(
        self,
        open_: Callable[[], AbstractContextManager[S]] | None = None,
        *,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        super().__init__()
        self._open = open_
        self._fatal = fatal
        self._jobs: SimpleQueue[From | None] = SimpleQueue()
        self._side: ThreadSide

    @classmethod
    def of(
        cls,
        open_: Callable[[Unpack[Ts]], AbstractContextManager[S]] | None = None,
        *args: *Ts,
        fatal: tuple[type[Exception], ...] = (),
    ) -> Callable[[], ThreadServer[S]]:
        """Return what a child specification starts: a fresh server each time."""

        def start() -> ThreadServer[S]:
            opened = None if open_ is None else (lambda: open_(*args))
            return cls(opened, fatal=fatal)

        start.__name__ = getattr(open_, "__name__", cls.__name__)
        return start

    def system_state(self) -> object:
        """Return whether it is at work, and whether it was asked to stop."""
        busy = self.process.current is not None
        return {"busy": busy, "stopping": self._side.stopping.is_set()}

    # --- in the event loop ------------------------------------------------------

    async def work(self, process: HostedProcess) -> None:
        """Run the thread."""
        self._side = ThreadSide(process)
        try:
            await self._side.run(self._run, None)
        finally:
            # A thread that was left behind is not to wait for its next job.
            self._jobs.put(None)

    def ask(self, reason: ExitReason, scope: trio.CancelScope) -> None:
        """Let the thread end after the job in work."""
        self._side.ask(reason)
        self._jobs.put(None)
        if not self._side.begun:
            scope.cancel()

    def look(self, process: HostedProcess) -> bool:
        """Give the thread its next job."""
        busy = process.current is not None or process.status is Status.STARTING
        if busy or self._side.stopping.is_set():
            return False
        message = next_message(process)
        if message is None:
            return False
        if not isinstance(message, From) or not isinstance(message.request, Job):
            self.refuse(process, message)
        elif not message.answered:
            process.current = message
            if process.debug is not None:
                process.debug.began(process, message)
            self._side.idle = False
            self._jobs.put(message)
        return True

    def _done(self, ref: From, result: outcome.Outcome[object]) -> None:
        process = self.process
        process.current = None
        self._side.idle = True
        if isinstance(result, outcome.Error):
            ref.fail(result.error)
        else:
            ref.reply(result.unwrap())
        if process.debug is not None:
            process.debug.ended(process, ref, result)
        process.wake()

    # --- in the thread ------------------------------------------------------------

    def _run(self) -> None:
        with self._open() if self._open is not None else nullcontext() as resource:
            if self._side.stopping.is_set():
                return
            self._side.post(self._started)
            while (ref := self._jobs.get()) is not None:
                self._side.post(self._done, ref, self._serve(ref, resource))

    def _started(self) -> None:
        if self.process.status is Status.STARTING:
            self._side.idle = True
            self.process.started()
            self.process.wake()

    def _serve(self, ref: From, resource: object) -> outcome.Outcome[object]:
        assert isinstance(ref.request, Job), "seen by look"
        job = ref.request
        result: outcome.Outcome[object] = outcome.capture(
            job.context.run, job.function, *job.arguments_with(resource)
        )
        if isinstance(result, outcome.Error):
            error = result.error
            if isinstance(error, self._fatal) or not isinstance(error, Exception):
                raise error
        return result


class ThreadRef(Generic[S]):
    """A thread server's address, and what its resource is, for type checkers.

    Args:
        server: pid or name.
    """

    __slots__ = ("server",)

    def __init__(self, server: Address) -> None:
        self.server = server

    async def call(
        self,
        function: Callable[[S, Unpack[Ts]], R],
        *args: *Ts,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> R:
        """Run ``function(resource, *args)`` in the server's thread.

        Raises:
            Exception: what ``function`` raised, unless it is fatal.
            TypeError: ``function`` is async, or no function.
            CallError: as for :func:`call_blocking`.

        Cancellation: as for :func:`call_blocking`.
        """
        check_plain("ThreadRef.call()", function, _REMEDY)
        job = Job[R](function, args, uses_resource=True)
        return await call(self.server, job, timeout_s=timeout_s)


async def call_blocking(
    server: Address,
    function: Callable[[Unpack[Ts]], R],
    *args: *Ts,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> R:
    """Run ``function(*args)`` in the thread of a :class:`ThreadServer`.

    Calls are served one at a time, in order, each in a copy of its caller's
    context.

    Args:
        server: pid or name.
        function: blocking function.
        args: its arguments.
        timeout_s: bound in seconds, the wait for its turn included; None: no
            bound.

    Raises:
        Exception: what ``function`` raised, unless it is fatal.
        TypeError: ``function`` is async, or no function.
        NoProcessError: there is no such server.
        ServerDownError: it ended before it was done; ``function`` may have had
            its effects.
        CallTimeoutError: not done in time; a function that has begun goes on.

    Cancellation: a function that has begun goes on; one that has not never does.
    """
    check_plain("call_blocking()", function, _REMEDY)
    job = Job[R](function, args, uses_resource=False)
    return await call(server, job, timeout_s=timeout_s)
