"""A blocking function as a supervised process.

::

    child(Blocking.of(tail_log, path), id="tail", shutdown=2.0)

The function runs in a thread.  Its end is the process' end; its exception is
the exit reason, with its traceback.  It talks to other processes through
:mod:`~atomr.interop.from_thread`, and receives what is sent to it there.

A stop *asks* the function: ``from_thread.stopping()`` becomes true,
``from_thread.sleep`` and ``receive`` raise ``StopRequestedError``.  A function
that does not return within the shutdown time is left behind, and its process
ends with ``KILLED``: no part of Python can end a thread.  So a stop never waits
longer than the shutdown time; with ``INFINITY`` it waits for the function.

When to use: a library that blocks and has no other way; a device, a file that
is followed.  When not: for one blocking call inside a handler,
``trio.to_thread.run_sync``; for computations, a child interpreter: threads
share one lock, and a busy one makes the event loop late.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVarTuple, Unpack

import attrs

from atomr.core.checks import check_plain
from atomr.errors import ReceiveTimeoutError, StopRequestedError
from atomr.interop.hosting import Hosted, HostedProcess
from atomr.interop.threads import ThreadSide, fail
from atomr.process.calls import From
from atomr.process.plain import Match

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from atomr.core.exits import ExitReason
    from atomr.process.process import Process

Ts = TypeVarTuple("Ts")
_NOTHING = object()


@attrs.define(eq=False)
class Want:
    """A message that the thread waits for.

    Attributes:
        match: which one; None: any.
        timeout_s: how long, in seconds; None: for ever.
        future: what the thread blocks on.
    """

    match: Match | None
    timeout_s: float | None
    future: Future[object]


class Blocking(Hosted):
    """Runs ``fn(*args)`` in a thread; started at once.

    Args:
        fn: blocking function; what it returns is dropped.
        label: what to call a process that was given no id.
        limiter: bound on threads shared with others: the function waits for a
            token first.  None: it has a thread of its own, counted nowhere.
    """

    def __init__(
        self,
        fn: Callable[[], object],
        *,
        label: str = "Blocking",
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        super().__init__()
        self._fn = fn
        self._label = label
        self._limiter = limiter
        self._side: ThreadSide
        self._want: Want | None = None

    @classmethod
    def of(
        cls,
        fn: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        limiter: trio.CapacityLimiter | None = None,
    ) -> Callable[[], Blocking]:
        """Return what a child specification starts: a fresh run each time.

        Raises:
            TypeError: ``fn`` is async, or no function.
        """
        check_plain("Blocking.of()", fn, "it runs by PlainProcess, or by Task.child()")
        label = getattr(fn, "__name__", type(fn).__name__)

        def start() -> Blocking:
            return cls(lambda: fn(*args), label=label, limiter=limiter)

        start.__name__ = label
        return start

    def process_label(self) -> str:
        """Return the function's name."""
        return self._label

    def system_state(self) -> object:
        """Return whether the function was asked to stop."""
        return {"stopping": self._side.stopping.is_set()}

    # --- the work ---------------------------------------------------------------

    async def work(self, process: HostedProcess) -> None:
        """Run the function."""
        self._side = ThreadSide(process)
        process.started()
        await self._side.run(self._call, self._limiter)

    def _call(self) -> None:
        try:
            self._fn()
        except StopRequestedError:
            # The function's answer to the request: the process ends as asked.
            if not self._side.stopping.is_set():
                raise

    def ask(self, reason: ExitReason, scope: trio.CancelScope) -> None:
        """Tell the function; one that has no thread yet never runs."""
        self._side.ask(reason)
        if not self._side.begun:
            scope.cancel()
        elif self._want is not None:
            self._serve(self.process)

    # --- messages ---------------------------------------------------------------

    def want(self, want: Want) -> None:
        """Let the thread have a message; called in the event loop."""
        process = self.process
        if not self._side.wait_for(want.future):
            return
        self._want = want
        if not self._serve(process) and want.timeout_s is not None:
            error = ReceiveTimeoutError(want.timeout_s)
            timer = process.node.timers.after(
                want.timeout_s, lambda: fail(want.future, error)
            )
            want.future.add_done_callback(lambda _: timer.cancel())

    def look(self, process: HostedProcess) -> bool:
        """Hand a message over; none is taken that the thread did not ask for."""
        self._serve(process)
        return False

    def _serve(self, process: Process) -> bool:
        want = self._want
        if want is None or process.suspended:
            return False
        if not want.future.done():
            try:
                message = _take(process, want.match)
            except Exception as error:  # noqa: BLE001 - raised in the thread
                fail(want.future, error)
            else:
                if message is not _NOTHING:
                    self._hand_over(process, want, message)
                elif self._side.stopping.is_set():
                    reason = self._side.stop_reason
                    fail(want.future, StopRequestedError("receive()", reason))
                else:
                    return False
        self._want = None
        return True

    def _hand_over(self, process: Process, want: Want, message: object) -> None:
        process.current = message
        if isinstance(message, From):
            # Should the thread end without a reply, its caller hears of it.
            message.set_aside()
        if process.limit is not None:
            process.room_made()
        want.future.set_result(message)


def _take(process: Process, match: Match | None) -> object:
    if not process.batch and process.inbox:
        process.take_inbox()
    # The batch is older than the inbox, and lies the other way round.
    for queue, step in ((process.batch, -1), (process.inbox, 1)):
        for i in range(len(queue))[::step]:
            if match is None or match(queue[i]):
                return queue.pop(i)
    return _NOTHING
