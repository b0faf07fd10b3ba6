"""``call``, ``cast`` and the reply address.

A call is one object, :class:`From`: message, reply address and reply box.  No
monitor is made per call: a process that ends fails every call that it holds,
whether queued, in work or set aside, so the caller always hears.

The caller sleeps on a pooled :class:`~atomr.process.parking.ParkSpot`; its
timeout is an entry in a bucket.  ``From.spot`` is None from the moment that
the call is settled or given up, so a late or second reply finds nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, overload

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from atomr.errors import (
    CallCycleError,
    CallTimeoutError,
    NoProcessError,
    ServerDownError,
)
from atomr.process.context import find_process, process_of_task
from atomr.process.parking import ParkSpot

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.process.process import Process
    from atomr.refs import Address, Pid

DEFAULT_TIMEOUT_S = 5.0
"""As in OTP."""

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Request(Generic[R_co]):
    """Base of requests whose reply type is known to type checkers.

    ``class Get(Request[int])`` makes ``await call(server, Get())`` an ``int``.
    The reply is not checked at run time.
    """

    __slots__ = ()


@attrs.define
class Cast:
    """The envelope of a cast.

    Not frozen: the making of a frozen one is a third of a cast's cost.

    Attributes:
        message: what was cast.
    """

    message: object


class From:
    """Where a reply goes; each call has its own.

    Attributes:
        request: what was asked.
    """

    __slots__ = (
        "caller",
        "deferred",
        "error",
        "request",
        "server",
        "spot",
        "target",
        "value",
    )

    def __init__(
        self,
        request: object,
        target: Address,
        server: Process,
        spot: ParkSpot,
        caller: Process | None,
    ) -> None:
        self.request = request
        # As the caller named it: the errors say that name.
        self.target = target
        self.server = server
        self.caller = caller
        self.spot: ParkSpot | None = spot
        self.value: object = None
        self.error: BaseException | None = None
        self.deferred = False

    def __repr__(self) -> str:
        return f"<From {self.pid!r} for {self.request!r}>"

    @property
    def pid(self) -> Pid | None:
        """The calling process; None when the caller is no process."""
        return None if self.caller is None else self.caller.pid

    @property
    def answered(self) -> bool:
        """True when a reply came, or the caller gave up."""
        return self.spot is None

    @enable_ki_protection
    def reply(self, value: object) -> None:
        """Answer the call; dropped when it is answered or given up already."""
        spot = self.spot
        if spot is None:
            return
        # Flat, as it is on the path of each call.
        self.value = value
        self.spot = None
        if self.deferred:
            self._forget()
        spot.wake()

    @enable_ki_protection
    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the caller; dropped like a late reply."""
        spot = self.spot
        if spot is None:
            return
        self.error = error
        self.give_up()
        spot.wake()

    def server_down(self, reason: ExitReason) -> None:
        """Fail the call because its server ended."""
        self.fail(ServerDownError(self.target, self.request, reason))

    def expire(self, timeout_s: float) -> None:
        """Fail the call because nothing came in time."""
        self.fail(CallTimeoutError(self.target, self.request, timeout_s))

    def set_aside(self) -> None:
        """Note that the server will reply later; it fails with the server."""
        if self.spot is not None:
            self.deferred = True
            if self.server.deferred is None:
                self.server.deferred = set()
            self.server.deferred.add(self)

    def give_up(self) -> None:
        """Forget the caller."""
        self.spot = None
        if self.deferred:
            self._forget()

    def _forget(self) -> None:
        if self.server.deferred is not None:
            self.server.deferred.discard(self)


@overload
async def call(
    server: Address,
    request: Request[R],
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> R: ...
@overload
async def call(
    server: Address,
    request: object,
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> object: ...
async def call(
    server: Address,
    request: object,
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> object:
    """Send a request and wait for its reply.

    Works from any task of the node.  Per caller, requests arrive in order.

    Args:
        server: pid or registered name.
        request: what to ask; a :class:`Request` gives the reply a type.
        timeout_s: bound in seconds; None: no bound.

    Returns:
        What the server replied.

    Raises:
        NoProcessError: there is no such process; nothing was delivered.
        ServerDownError: it ended before it replied, or while it was replying.
        CallTimeoutError: no reply in time; the server may still act on it, and
            a reply that comes later is dropped.
        CallCycleError: the server waits for this very process.

    Cancellation: leaves the server undisturbed; its reply is dropped.
    """
    process = find_process(server)
    if process is None:
        raise NoProcessError(server, request)
    task = trio.lowlevel.current_task()
    caller = process_of_task(task)
    if caller is not None:
        _refuse_cycle(caller, process, request)
    node = process.node
    spot = node.spots.pop() if node.spots else ParkSpot()
    ref = From(request, server, process, spot, caller)
    bucket = None
    if timeout_s is not None:
        bucket = node.timers.bucket(timeout_s)
        bucket.add(ref)
    process.deliver(ref)
    if caller is not None:
        caller.waiting_for = ref
    try:
        await spot.park(task)
    finally:
        if ref.spot is not None:
            ref.give_up()
        if bucket is not None:
            bucket.calls.pop(ref, None)
        if caller is not None:
            caller.waiting_for = None
        node.spots.append(spot)
    if ref.error is not None:
        raise ref.error
    return ref.value


def cast(server: Address, message: object) -> None:
    """Send a message to ``handle_cast``; never blocks, never fails.

    Nothing tells whether the server exists, or acted on it.
    """
    process = find_process(server)
    if process is not None:
        process.deliver(Cast(message))


def reply(from_: From, value: object) -> None:
    """Answer a call that a handler set aside; same as ``from_.reply(value)``."""
    from_.reply(value)


def _refuse_cycle(caller: Process, server: Process, request: object) -> None:
    chain = [caller.pid]
    hop: Process | None = server
    while hop is not None:
        chain.append(hop.pid)
        if hop is caller:
            raise CallCycleError(server.pid, request, tuple(chain))
        waiting_for = hop.waiting_for
        # Answered or cancelled, though its task has not run since: no longer waiting.
        if waiting_for is None or waiting_for.spot is None:
            return
        if waiting_for.spot.task is None:
            return
        hop = waiting_for.server
