"""``call``, ``cast`` and the reply address.

A call is one object, :class:`From`: message, reply address and reply box.  No
monitor is made per call: a process that ends fails every call that it holds,
whether queued, in work or set aside, so the caller always hears.

A server with nothing to do serves the call on the caller's stack, with no
switch of tasks.  Such a call is no checkpoint; so of 256 in a row one takes the
other way: through the mailbox, as all do that find the server at work.

The caller then sleeps on a pooled :class:`~atomr.process.parking.ParkSpot`; its
timeout is an entry in a bucket.  ``From.state`` leaves ``OPEN`` once, when the
call is settled or given up, so a late or second reply finds nobody.
"""

from __future__ import annotations

from enum import Enum
from math import isnan
from threading import get_ident
from typing import TYPE_CHECKING, Final, Generic, TypeVar, overload

import trio
from trio.lowlevel import enable_ki_protection

from atomr.core.messages import PassesBounds
from atomr.errors import (
    CallCycleError,
    CallTimeoutError,
    NoProcessError,
    ServerDownError,
    WrongThreadError,
    short,
)
from atomr.process import mailbox
from atomr.process.context import CURRENT, find_process
from atomr.process.parking import ParkSpot
from atomr.refs import Pid

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.process.node import Node
    from atomr.process.process import Process
    from atomr.refs import Address

DEFAULT_TIMEOUT_S = 5.0
"""As in OTP."""

INLINE_CALLS = 256
"""Calls served on callers' stacks before one waits: a 1 ms ticker is 0.1 ms late."""

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Request(Generic[R_co]):
    """Base of requests whose reply type is known to type checkers.

    ``class Get(Request[int])`` makes ``await call(server, Get())`` an ``int``.
    The reply is not checked at run time.
    """

    __slots__ = ()


class Cast(tuple[object]):
    """The envelope of a cast.

    To a StateMachine it is an event, matched by ``case Cast(message)``.
    """

    __slots__ = ()
    __match_args__ = ("message",)

    @property
    def message(self) -> object:
        """What was cast."""
        return self[0]

    def __repr__(self) -> str:
        return f"Cast({self[0]!r})"


CAST: Final = object()
"""Marks the envelope of a cast to a server without a task, ``(CAST, message)``: a
plain tuple is made in a quarter of the time of a ``Cast``, and nobody else sees it.
"""


def item_seen(item: object) -> object:
    """Return an item of a mailbox as whoever looks is to see it."""
    short_form = type(item) is tuple and item and item[0] is CAST
    return Cast((item[1],)) if short_form else item  # type: ignore[index]


class ChildWait:
    """What a supervisor waits for: the ``init`` of a child, or the end of children."""

    __slots__ = ("children",)

    def __init__(self, *children: Process) -> None:
        self.children = children


class CallState(Enum):
    """Whether a call still waits."""

    OPEN = "open"
    REPLIED = "replied"
    FAILED = "failed"
    GIVEN_UP = "given up"


_OPEN, _REPLIED = CallState.OPEN, CallState.REPLIED
_FAILED, _GIVEN_UP = CallState.FAILED, CallState.GIVEN_UP


class From(PassesBounds):
    """Where a reply goes; each call has its own.

    Attributes:
        request: what was asked.
        state: whether it still waits.
    """

    __slots__ = (
        "caller",
        "deferred",
        "error",
        "request",
        "server",
        "spot",
        "state",
        "target",
        "value",
    )

    # Set together with REPLIED, and with FAILED.
    value: object
    error: BaseException

    def __init__(
        self,
        request: object,
        target: Address,
        server: Process,
        caller: Process | None,
    ) -> None:
        self.request = request
        # As the caller named it: the errors say that name.
        self.target = target
        self.server = server
        self.caller = caller
        # Where the caller sleeps; None while the call is served on its stack.
        self.spot: ParkSpot | None = None
        self.state = _OPEN
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
        return self.state is not _OPEN

    @enable_ki_protection
    def reply(self, value: object) -> None:
        """Answer the call; dropped when it is answered or given up already."""
        if self.state is _OPEN:
            # Flat, as it is on the path of each call.
            self.value = value
            self.state = _REPLIED
            if self.deferred:
                self._forget()
            if self.spot is not None:
                self.spot.wake()

    @enable_ki_protection
    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the caller; dropped like a late reply."""
        if self.state is _OPEN:
            self.error = error
            self.state = _FAILED
            if self.deferred:
                self._forget()
            if self.spot is not None:
                self.spot.wake()

    def server_down(self, reason: ExitReason) -> None:
        """Fail the call because its server ended."""
        self.fail(ServerDownError(self.target, self.request, reason))

    def expire(self, timeout_s: float) -> None:
        """Fail the call because nothing came in time."""
        self.fail(CallTimeoutError(self.target, self.request, timeout_s))

    def set_aside(self) -> None:
        """Note that the server will reply later; it fails with the server."""
        if self.state is _OPEN:
            self.deferred = True
            if self.server.deferred is None:
                self.server.deferred = set()
            self.server.deferred.add(self)

    def give_up(self) -> None:
        """Forget the caller."""
        if self.state is _OPEN:
            self.state = _GIVEN_UP
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
        CallCycleError: the server waits for this very process, or starts or stops it.
        ValueError: it waits, and ``timeout_s`` is not a number; one below 0 is 0.
        WrongThreadError: the node runs in another thread, as for code of an
            asyncio library: use ``atomr.interop.from_thread`` there.

    Cancellation: leaves the server undisturbed; its reply is dropped.
    """
    process = server._process if type(server) is Pid else find_process(server)  # noqa: SLF001
    if process is None:
        raise NoProcessError(server, request)
    ref = From(request, server, process, CURRENT.get())
    node = process.node
    if get_ident() != node.thread:
        # An idle server would be run here, beside all that runs there.
        raise WrongThreadError(_wrong_thread(ref))
    if process.idle and node.inline_left > 0:
        node.inline_left -= 1
        process.call_now(ref)
        if ref.state is _REPLIED:
            return ref.value
    else:
        refuse_cycle(ref)
        process.deliver(ref)
    return await wait_for_reply(ref, timeout_s)


async def wait_for_reply(ref: From, timeout_s: float | None) -> object:
    """Wait until a call is settled; return the reply or raise the failure."""
    if ref.state is _OPEN:
        await _wait(ref, ref.server.node, timeout_s)
    if ref.state is _REPLIED:
        return ref.value
    error = ref.error
    # The traceback holds the frames, and these the call: it must not hold the error.
    del ref.error
    try:
        raise error
    finally:
        del error


async def _wait(ref: From, node: Node, timeout_s: float | None) -> None:
    task = trio.lowlevel.current_task()
    node.inline_left = INLINE_CALLS
    bucket = None
    if timeout_s is not None:
        if isnan(timeout_s):
            ref.give_up()
            raise ValueError(f"call(timeout_s={timeout_s}): expected seconds")
        bucket = node.timers.bucket(timeout_s)
    ref.spot = spot = node.spots.pop() if node.spots else ParkSpot()
    caller = ref.caller
    if caller is not None:
        # A helper task's wait does not hold its process up.
        if caller.task is task:
            caller.waiting_for = ref
        else:
            caller = None
    if bucket is not None:
        bucket.add(ref)
    try:
        await spot.park(task)
    finally:
        ref.give_up()
        if bucket is not None:
            bucket.calls.pop(ref, None)
        if caller is not None:
            caller.waiting_for = None
        node.spots.append(spot)


@enable_ki_protection
def cast(server: Address, message: object) -> None:
    """Send a message to ``handle_cast``; never blocks.

    Nothing tells whether the server exists, or acted on it.

    Raises:
        MailboxFullError: a bounded mailbox with the policy ``WAIT`` or
            ``REJECT`` is full.
    """
    # Flat, as it is short and often called.
    process = server._process if type(server) is Pid else find_process(server)  # noqa: SLF001
    if process is not None:
        if process.limit is not None and mailbox.refuses(process):
            return
        short_form = process.opens_casts
        process.inbox.append((CAST, message) if short_form else Cast((message,)))
        if process.idle:
            process.wake()


async def cast_wait(server: Address, message: object) -> None:
    """Cast, and wait for room first if the mailbox is bounded and full.

    A checkpoint only if it waits.

    Raises:
        MailboxFullError: it is full, and its policy is ``REJECT``.

    Cancellation: the message was not sent.
    """
    process = await mailbox.wait_for_room(server)
    if process is not None:
        process.deliver(Cast((message,)))


def reply(from_: From, value: object) -> None:
    """Answer a call that a handler set aside; same as ``from_.reply(value)``."""
    from_.reply(value)


def _wrong_thread(ref: From) -> str:
    return (
        f"call({ref.target!r}, {short(ref.request)}): its node runs in another"
        " thread; use atomr.interop.from_thread.call there"
    )


def refuse_cycle(ref: From) -> None:
    """Raise CallCycleError if the server waits, in turn, for the calling process."""
    caller = ref.caller
    if caller is None or caller.task is not trio.lowlevel.current_task():
        return
    chain = [caller.pid]
    hop: Process | None = ref.server
    while hop is not None:
        chain.append(hop.pid)
        if hop is caller:
            raise CallCycleError(ref.server.pid, ref.request, tuple(chain))
        waiting_for = hop.waiting_for
        if isinstance(waiting_for, ChildWait):
            children = waiting_for.children
            hop = caller if caller in children else children[0]
            continue
        # Answered or cancelled, though its task has not run since: no longer waiting.
        if waiting_for is None or waiting_for.answered:
            return
        if waiting_for.spot is not None and waiting_for.spot.task is None:
            return
        hop = waiting_for.server
