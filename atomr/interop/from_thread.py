"""What a thread may do with processes: it blocks where a task would wait.

::

    def read_scale(port: str) -> None:
        with open_port(port) as scale:
            while not from_thread.stopping():
                from_thread.cast("display", scale.read())

    child(Blocking.of(read_scale, "/dev/ttyS0"), id="scale")

All of it works in the thread of a process of this package.  ``send``, ``cast``,
``call`` and ``reply`` also work in any other thread that runs in a copy of the
context of a task on a node, as those of ``trio.to_thread.run_sync`` and
``asyncio.to_thread`` do; for one of your own: ``Thread(target=copy_context().run,
args=(fn,))``.

Nothing here may be called in the event loop's own thread: it would wait for
itself.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, NoReturn, TypeVar, overload

import trio

from atomr.errors import (
    NoNodeError,
    NoProcessError,
    NotAProcessError,
    StopRequestedError,
)
from atomr.interop.blocking import Blocking, Want
from atomr.interop.threads import ThreadSide, current_side, fail, post
from atomr.process.calls import (
    DEFAULT_TIMEOUT_S,
    CallState,
    Cast,
    From,
    Request,
)
from atomr.process.context import CURRENT, current_node, find_process
from atomr.process.parking import ParkSpot

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.process.plain import Match
    from atomr.refs import Address

R = TypeVar("R")

__all__ = [
    "call",
    "cast",
    "check_stopping",
    "receive",
    "reply",
    "send",
    "sleep",
    "stopping",
]


# --- messages -----------------------------------------------------------------------


def send(to: Address, message: object) -> None:
    """Put a message into a mailbox; never blocks.

    What one thread sends, casts and calls arrives in that order.  Bounds of
    mailboxes do not hold for threads: one that produces faster than its reader
    reads should ``call`` now and then.

    Raises:
        ThreadAbandonedError: the thread's process, or the node, has ended.
        NoNodeError: the thread knows of no node.
    """
    _post("send()", _deliver, to, message)


def cast(to: Address, message: object) -> None:
    """Send a message to ``handle_cast``; otherwise as :func:`send`."""
    _post("cast()", _deliver, to, Cast((message,)))


def reply(from_: From, value: object) -> None:
    """Answer a call that the thread received; never blocks.

    Raises:
        ThreadAbandonedError: as for :func:`send`.
    """
    _post("reply()", from_.reply, value)


@overload
def call(
    server: Address,
    request: Request[R],
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> R: ...
@overload
def call(
    server: Address,
    request: object,
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> object: ...
def call(
    server: Address,
    request: object,
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> object:
    """Send a request and block until its reply comes.

    A stop of the thread's own process does not end it: clean-up may call.

    Args:
        server: pid or name.
        request: what to ask; a :class:`~atomr.otp.Request` gives the reply a
            type.
        timeout_s: bound in seconds; None: no bound.

    Raises:
        NoProcessError: there is no such process; nothing was delivered.
        ServerDownError: it ended before it replied.
        CallTimeoutError: no reply in time; the server may still act on it.
        ThreadAbandonedError: the thread's process, or the node, has ended.
        NoNodeError: the thread knows of no node.
    """
    _may_block("call()")
    future: Future[object] = Future()
    _post("call()", _begin_call, current_side(), future, server, request, timeout_s)
    return _result(future)


def receive(match: Match | None = None, *, timeout_s: float | None = None) -> object:
    """Block for the oldest message, or the oldest that ``match`` accepts.

    Only in the thread of a :class:`~atomr.interop.Blocking`.  Messages that do
    not match stay, in order.  A call arrives as its ``From``: answer it with
    :func:`reply`.

    Args:
        match: pure predicate; it runs in the event loop.  None accepts all.
        timeout_s: bound in seconds; 0 only looks; None: no bound.

    Raises:
        StopRequestedError: no message is there, and the process was asked to
            stop.
        ReceiveTimeoutError: no such message came in time; nothing was taken.
        ThreadAbandonedError: the process has ended without this thread.
        NotAProcessError: it is not the thread of a ``Blocking``.
    """
    _may_block("receive()")
    side = _own_side("receive()")
    behaviour = side.process.behaviour
    if not isinstance(behaviour, Blocking):
        raise NotAProcessError("receive(): only the thread of a Blocking can receive")
    want = Want(match, timeout_s, Future())
    side.check("receive()")
    side.post(behaviour.want, want)
    return _result(want.future)


# --- the end ------------------------------------------------------------------------


def stopping() -> bool:
    """Return whether the thread should end: its process was asked to stop.

    Also true once it was left behind.

    Raises:
        NotAProcessError: it is not the thread of a process.
    """
    return _own_side("stopping()").stopping.is_set()


def check_stopping() -> None:
    """Raise if the process was asked to stop; let it leave the function.

    Raises:
        StopRequestedError: it was.
        NotAProcessError: it is not the thread of a process.
    """
    side = _own_side("check_stopping()")
    if side.stopping.is_set():
        _raise_stop("check_stopping()", side)


def sleep(seconds: float) -> None:
    """Sleep, but not past a request to stop.

    Args:
        seconds: at least 0; of real time, whatever trio's clock says.

    Raises:
        StopRequestedError: the process was asked to stop, before or meanwhile.
        NotAProcessError: it is not the thread of a process.
    """
    _may_block("sleep()")
    side = _own_side("sleep()")
    if side.stopping.wait(seconds):
        _raise_stop("sleep()", side)


def _raise_stop(operation: str, side: ThreadSide) -> NoReturn:
    raise StopRequestedError(operation, side.stop_reason)


# --- how ----------------------------------------------------------------------------


def _own_side(operation: str) -> ThreadSide:
    side = current_side()
    if side is None:
        raise NotAProcessError(f"{operation}: this thread is not that of a process")
    return side


def _may_block(operation: str) -> None:
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(f"{operation} blocks: call it in a thread, not in trio's")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{operation} blocks the asyncio loop of this thread: use asyncio.to_thread"
    )


def _post(operation: str, fn: Callable[..., object], *args: object) -> None:
    # The context is the caller's: names are looked up on its node.
    context = copy_context()
    side = current_side()
    if side is None:
        token = current_node()._token  # noqa: SLF001 - private to users, not to us
        caller = CURRENT.get()
        pid = None if caller is None else caller.pid
        post(token, pid, context.run, fn, *args)
    else:
        side.check(operation)
        side.post(context.run, fn, *args)


def _result(future: Future[object]) -> object:
    try:
        return future.result()
    finally:
        # Its error has this frame in its traceback.
        del future


def _deliver(to: Address, message: object) -> None:
    process = find_process(to)
    if process is not None:
        process.deliver(message)


class _ThreadSpot(ParkSpot):
    """Where a call's reply goes when its caller is a thread."""

    __slots__ = ("future", "ref")

    def __init__(self, ref: From, future: Future[object]) -> None:
        super().__init__()
        self.ref = ref
        self.future = future

    def wake(self) -> None:
        """Hand the reply or the failure over; called when the call is settled."""
        ref, future = self.ref, self.future
        if ref.state is CallState.REPLIED and not future.done():
            future.set_result(ref.value)
        elif ref.state is CallState.FAILED:
            fail(future, ref.error)


def _begin_call(
    side: ThreadSide | None,
    future: Future[object],
    server: Address,
    request: object,
    timeout_s: float | None,
) -> None:
    if side is not None and not side.wait_for(future):
        return
    try:
        process = find_process(server)
    except NoNodeError as error:
        fail(future, error)
        return
    if process is None:
        fail(future, NoProcessError(server, request))
        return
    ref = From(request, server, process, CURRENT.get())
    ref.spot = spot = _ThreadSpot(ref, future)
    bucket = None if timeout_s is None else process.node.timers.bucket(timeout_s)
    if bucket is not None:
        bucket.add(ref)
    waiting = side.process if side is not None else None
    if waiting is not None:
        # So that whoever calls this process meanwhile learns of a deadlock.
        waiting.waiting_for = ref
        spot.task = waiting.task

    def settled(_: object) -> None:
        # Also for a thread that was left behind: it wants no answer.
        ref.give_up()
        if bucket is not None:
            bucket.calls.pop(ref, None)
        if waiting is not None:
            waiting.waiting_for = None

    future.add_done_callback(settled)
    process.deliver(ref)
