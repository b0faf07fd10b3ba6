"""Plain processes: an async function with a mailbox and selective receive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, TypeAlias, TypeVarTuple, Unpack

import trio

from atomr.core.checks import check_async, check_returned
from atomr.core.exits import NORMAL, ExitReason
from atomr.core.mailbox_limit import MailboxLimit, check_mailbox
from atomr.errors import NotAProcessError, ReceiveTimeoutError
from atomr.process.behaviour import Startable
from atomr.process.calls import From
from atomr.process.context import CURRENT, current_node
from atomr.process.task_process import TaskProcess

if TYPE_CHECKING:
    from atomr.refs import Name, Pid

Ts = TypeVarTuple("Ts")
Match: TypeAlias = Callable[[object], bool]
_NOTHING = object()


class PlainProcess(Startable):
    """Runs ``fn(*args)``; started at once, ends when the function returns.

    With exits trapped, a stop comes as the message ``Exit(supervisor, reason)``
    and the function has its shutdown time to return; else it is cancelled.

    Args:
        fn: async function; what it returns is dropped.
        args: its arguments.

    Raises:
        TypeError: ``fn`` is no async function.
    """

    def __init__(
        self, fn: Callable[[Unpack[Ts]], Awaitable[object]], *args: *Ts
    ) -> None:
        check_async("PlainProcess()", fn)
        self._start: Callable[[], Awaitable[object]] = lambda: fn(*args)
        self._label = getattr(fn, "__name__", type(fn).__name__)

    async def run_process(self, process: TaskProcess) -> ExitReason:
        """Run the function; its exceptions are the exit reason."""
        process.started()
        running = self._start()
        check_returned(self._label, running)
        await running
        return NORMAL

    def process_label(self) -> str:
        """Return the function's name."""
        return self._label


def spawn(
    fn: Callable[[Unpack[Ts]], Awaitable[object]],
    *args: *Ts,
    name: Name | None = None,
    mailbox: MailboxLimit | None = None,
) -> Pid:
    """Run ``fn(*args)`` as a process that nobody supervises.

    Returns before the function has begun; ``link`` or ``monitor`` right after
    is in time.  The node stops it when the node's block is left.

    Args:
        fn: async function.
        args: its arguments.
        name: registered at once.
        mailbox: bound of its mailbox; None: it has none.

    Raises:
        TypeError: ``fn`` is no async function, or an option is of another type.
        NameTakenError: a live process holds the name.
        NoNodeError: there is no node around.
    """
    check_async("spawn()", fn)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"spawn(): name={name!r}: expected a text")
    check_mailbox(mailbox)
    behaviour = PlainProcess(fn, *args)
    label = behaviour.process_label()
    return current_node().spawn(behaviour, label=label, name=name, mailbox=mailbox)


async def receive(
    match: Match | None = None, *, timeout_s: float | None = None
) -> object:
    """Take the oldest message, or the oldest that ``match`` accepts.

    Messages that do not match stay, in order.  A call arrives as its
    :class:`~atomr.process.From`, a cast as its ``Cast``.  In a server's callback
    it takes what the server would handle later; calls and signals wait meanwhile.

    Args:
        match: pure predicate; None accepts all.
        timeout_s: bound in seconds; 0 only looks; None: no bound.

    Raises:
        NotAProcessError: the running task is not a process' own task.
        ReceiveTimeoutError: no such message came in time; nothing was taken.

    Cancellation: takes no message.

    Cost: a receive with ``match`` looks at all that did not match before.
    """
    task = trio.lowlevel.current_task()
    process = CURRENT.get()
    if not isinstance(process, TaskProcess) or process.task is not task:
        raise NotAProcessError("receive(): only a process' own task can receive")
    process.budget -= 1
    if process.budget <= 0:
        await process.take_turn()
    found = _take(process, match, 0)
    if process.limit is not None:
        process.room_made()
    if found is _NOTHING:
        found = await _wait_for(process, match, inf if timeout_s is None else timeout_s)
    if type(found) is From:
        # Its caller must hear if the process ends before it replies.
        found.set_aside()
    return found


async def _wait_for(
    process: TaskProcess, match: Match | None, timeout_s: float
) -> object:
    if timeout_s == inf:
        return await _next_match(process, match)
    with trio.move_on_after(timeout_s):
        return await _next_match(process, match)
    raise ReceiveTimeoutError(timeout_s)


async def _next_match(process: TaskProcess, match: Match | None) -> object:
    # What was there has been looked at; look at what comes.
    while True:
        scanned = process.inbox
        position = len(scanned)
        await _park(process)
        # A flush puts a shorter list in the place of the one that was scanned.
        found = _take(process, match, position if process.inbox is scanned else 0)
        if found is not _NOTHING:
            return found


async def _park(process: TaskProcess) -> None:
    # In a server's callback: it is not the server that sleeps, so no call is served.
    offered = process.plain_call, process.async_call
    process.plain_call = process.async_call = None
    try:
        await process.park()
    finally:
        process.plain_call, process.async_call = offered


def _take(process: TaskProcess, match: Match | None, position: int) -> object:
    if match is None:
        if not process.batch:
            process.take_inbox()
        return process.batch.pop() if process.batch else _NOTHING
    if position == 0:
        for i in range(len(process.batch) - 1, -1, -1):
            if match(process.batch[i]):
                return process.batch.pop(i)
    for i in range(position, len(process.inbox)):
        if match(process.inbox[i]):
            return process.inbox.pop(i)
    return _NOTHING
