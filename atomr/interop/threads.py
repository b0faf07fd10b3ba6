"""One thread that works for a process, and may have to be left behind.

Nothing in Python can end a thread.  So a thread is *told* to stop, has its
process' shutdown time, and is then abandoned: the process ends with
``KILLED``, a warning says that a thread still runs, and the thread is counted
until it ends: see :func:`abandoned_threads`.  All that it asks of its process
or of the node from then on raises
:class:`~atomr.errors.ThreadAbandonedError`, which for most threads is the end.

The threads are trio's: they are reused, and do not keep the program alive.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr import telemetry
from atomr.core.exits import SHUTDOWN, ExitReason
from atomr.errors import ThreadAbandonedError
from atomr.process.process import Process, Status
from atomr.process.report import log
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


@attrs.frozen
class AbandonedThread:
    """A thread that still runs though its process has ended.

    Attributes:
        pid: the process it worked for.
        name: the thread's name.
    """

    pid: Pid
    name: str


class _State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    ABANDONED = "abandoned"
    ENDED = "ended"


class _Local(threading.local):
    side: ThreadSide | None = None


_local = _Local()

# Of the operating system's process, not of a node: these outlive their node.
_abandoned: dict[ThreadSide, AbandonedThread] = {}
_abandoned_lock = threading.Lock()


def abandoned_threads() -> tuple[AbandonedThread, ...]:
    """Return the threads that were left behind and still run, oldest first."""
    with _abandoned_lock:
        return tuple(_abandoned.values())


def current_side() -> ThreadSide | None:
    """Return what the running thread shares with its process; None: it has none."""
    return _local.side


class ThreadSide:
    """What a process and its thread share.

    Attributes:
        process: that the thread works for.
        stopping: set when the thread should end.
        stop_reason: set before ``stopping``.
        waiting: what the thread waits for in the event loop; only touched there.
        idle: it waits for work, and ends at once when it is left behind.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.stopping = threading.Event()
        self.stop_reason: ExitReason | None = None
        self.waiting: set[Future[Any]] = set()
        self.idle = False
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._state = _State.WAITING
        self._name = repr(process.pid)

    # --- in the event loop ------------------------------------------------------

    async def run(
        self, fn: Callable[[], None], limiter: trio.CapacityLimiter | None
    ) -> None:
        """Run ``fn`` in a thread; what it raises is raised here.

        Args:
            fn: blocking function.
            limiter: bound on the number of threads; None: the thread counts
                for none.

        Cancellation: the thread is left behind.
        """
        try:
            await trio.to_thread.run_sync(
                self._run,
                fn,
                thread_name=self._name,
                abandon_on_cancel=True,
                limiter=limiter or trio.CapacityLimiter(1),
            )
        except trio.Cancelled:
            self._abandon()
            raise

    def ask(self, reason: ExitReason) -> None:
        """Tell the thread to end."""
        self.stop_reason = reason
        self.stopping.set()

    def _abandon(self) -> None:
        with self._lock:
            before = self._state
            self._state = _State.ABANDONED
        # What it does in its last moments should not look like any other life.
        if not self.stopping.is_set():
            self.ask(self.process.kill_reason or SHUTDOWN)
        for future in tuple(self.waiting):
            fail(future, ThreadAbandonedError("wait", self.process.pid))
        if before is _State.RUNNING:
            with _abandoned_lock:
                _abandoned[self] = AbandonedThread(self.process.pid, self._name)
            if not self.idle:
                self._tell_abandoned()

    def _tell_abandoned(self) -> None:
        pid = self.process.pid
        log.warning(
            "thread of %r still runs: its time is over, and a thread cannot be"
            " killed; it is left behind (%d so far)",
            pid,
            len(abandoned_threads()),
        )
        if telemetry.handlers:
            telemetry.emit(("atomr", "thread", "abandon"), metadata={"pid": pid})

    def wait_for(self, future: Future[Any]) -> bool:
        """Note that the thread waits for ``future``; False: it is abandoned."""
        if self.lost:
            future.set_exception(ThreadAbandonedError("wait", self.process.pid))
            return False
        self.waiting.add(future)
        future.add_done_callback(self.waiting.discard)
        return True

    @property
    def begun(self) -> bool:
        """Whether the function has begun, or never will."""
        return self._state is not _State.WAITING

    # --- in the thread ------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether nobody waits for the thread any more."""
        abandoned = self._state is _State.ABANDONED
        return abandoned or self.process.status is Status.EXITED

    def check(self, operation: str) -> None:
        """Raise if nobody waits for the thread any more.

        Raises:
            ThreadAbandonedError: see there.
        """
        if self.lost:
            raise ThreadAbandonedError(operation, self.process.pid)

    def post(self, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn(*args)`` in the event loop, some time; never blocks.

        Raises:
            ThreadAbandonedError: the event loop has ended.
        """
        post(self._token, self.process.pid, fn, *args)

    def _run(self, fn: Callable[[], None]) -> None:
        with self._lock:
            if self._state is not _State.WAITING:
                return
            self._state = _State.RUNNING
        _local.side = self
        try:
            fn()
        except BaseException as error:
            if not self._end():
                raise
            if not isinstance(error, ThreadAbandonedError):
                # Nobody else hears of it.
                log.warning("abandoned %s failed", self._name, exc_info=error)
        else:
            self._end()
        finally:
            _local.side = None

    def _end(self) -> bool:
        with self._lock:
            abandoned = self._state is _State.ABANDONED
            self._state = _State.ENDED
        if abandoned:
            with _abandoned_lock:
                _abandoned.pop(self, None)
            log.info("abandoned thread of %r has ended", self.process.pid)
        return abandoned


def fail(future: Future[Any], error: BaseException) -> None:
    """Raise ``error`` in the thread that waits, unless it goes on already."""
    if not future.done():
        future.set_exception(error)


def post(
    token: trio.lowlevel.TrioToken,
    pid: Pid | None,
    fn: Callable[..., object],
    *args: object,
) -> None:
    """Call ``fn(*args)`` in the event loop of ``token``.

    Raises:
        ThreadAbandonedError: the event loop has ended.
    """
    try:
        token.run_sync_soon(fn, *args)
    except trio.RunFinishedError as error:
        raise ThreadAbandonedError("send", pid) from error
