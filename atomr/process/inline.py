"""Running a sleeping task's coroutine on the stack of another task.

A call to an idle server costs two switches of tasks, 5 us on trio, if its
handler runs in the server's own task.  Run on the caller's stack it costs 1 us.
For an ``async def`` handler this takes three things that trio keeps private:
which task is the current one, what aborts a task's sleep, and what delivers a
cancellation that came meanwhile.

:func:`run_as` makes the sleeping task the current one, and sends its server on
to the first real wait.  If there is none, nobody has noticed.  If there is one,
the task adopts the wait: it *is* asleep, now for what the server waits for, and
when it wakes, it sends the server on.

Off (calls take the way through the mailbox) when trio lacks one of the names,
under guest mode, or when an instrument is installed, which must see each step
in the task that it belongs to.
"""

from __future__ import annotations

import sys
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import trio._core._run as trio_run
from trio.lowlevel import Abort, enable_ki_protection

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import TracebackType

    from atomr.process.calls import From
    from atomr.process.node import Node
    from atomr.process.task_process import TaskProcess

A = TypeVar("A")
T = TypeVar("T")

# ruff: noqa: SLF001 - what is private here is said above

_RUN_CONTEXT: Any = getattr(trio_run, "GLOBAL_RUN_CONTEXT", None)

READY = "done with the call"
"""What a server yields to say so."""

MAX_DEPTH = 32
"""Calls within calls on one stack; deeper ones take the way through the mailbox."""


def _first_trap(coroutine: Any) -> object:  # noqa: ANN401 - what trio yields is private
    trap = coroutine.send(None)
    coroutine.close()
    return trap


def _never_aborted(_raise_cancel: object) -> Abort:
    return Abort.FAILED


_WAIT = _first_trap(trio.lowlevel.wait_task_rescheduled(_never_aborted))  # noqa: ASYNC105
_CHECKPOINT = _first_trap(trio.lowlevel.cancel_shielded_checkpoint())  # noqa: ASYNC105

AVAILABLE: bool = (
    _RUN_CONTEXT is not None
    and hasattr(_WAIT, "abort_func")
    and hasattr(trio.lowlevel.Task, "_abort_func")
    and hasattr(trio.lowlevel.Task, "_attempt_delivery_of_any_pending_cancel")
)
"""Whether this trio has what it takes."""


def instruments() -> Mapping[object, object]:
    """Return the installed instruments of this run, as they change.

    Never empty where coroutines cannot be run so at all.
    """
    if not AVAILABLE or _RUN_CONTEXT.runner.is_guest:
        return {"unavailable": True}
    installed = _RUN_CONTEXT.runner.instruments
    # The key that trio keeps all of them under.
    found: Mapping[object, object] = installed.get("_all", {"unknown": True})
    return found


def allowed(node: Node) -> bool:
    """Return whether a coroutine may be run so now."""
    return not node.instruments and node.inline_depth < MAX_DEPTH


def run_as(
    task: trio.lowlevel.Task,
    server: Generator[object, Any, None],
    ref: From,
    abort: Callable[[Any], Abort],
) -> bool:
    """Let the sleeping ``task``'s server serve a call until it is done or waits.

    Args:
        task: sleeps, is not scheduled, and sends the server on when it wakes.
        server: yields ``READY`` when it is done with a call.
        ref: the call.
        abort: what aborts the task's own sleep; in force again afterwards,
            unless the server waits.

    Returns:
        Whether it waits; otherwise it is done.

    Raises:
        BaseException: whatever the server raises.
    """
    context: Any = _RUN_CONTEXT
    inside: Any = task
    caller = context.task
    context.task = task
    # A cancellation meanwhile must find nothing to abort, as in a running task.
    inside._abort_func = None
    try:
        trap = task.context.run(server.send, ref)
    except BaseException:
        inside._abort_func = abort
        raise
    finally:
        context.task = caller
    if trap is READY:
        inside._abort_func = abort
        return False
    if type(trap) is type(_WAIT):
        inside._abort_func = trap.abort_func  # type: ignore[attr-defined]
        inside._attempt_delivery_of_any_pending_cancel()
        return True
    inside._abort_func = abort
    if trap is _CHECKPOINT:
        trio.lowlevel.reschedule(task)
        return True
    server.close()
    raise TypeError(f"trio got unexpected {trap!r}: is this asyncio code?")


def can_act(process: TaskProcess) -> bool:
    """Return whether :func:`act_as` may be used: it sleeps with nothing to do."""
    if not process.idle or process.debug is not None or process.spot.task is None:
        return False
    node = process.node
    return node.inline_left > 0 and get_ident() == node.thread


# An interrupt half-way would leave a task that nobody can wake.
@enable_ki_protection
def act_as(process: TaskProcess, act: Callable[[A], T], argument: A) -> T:
    """Run what does not wait as the own code of a process that sleeps.

    For trio, the caller's task is still the current one.
    """
    task = process.spot.task
    assert task is not None, "asked by can_act"
    process.node.inline_left -= 1
    process.idle = False
    try:
        return task.context.run(act, argument)
    finally:
        if process.signals or process.inbox:
            process.spot.wake()
        else:
            process.idle = True


def deliver_cancel(task: trio.lowlevel.Task) -> None:
    """Deliver a cancellation that came while the task's server ran elsewhere."""
    inside: Any = task
    inside._attempt_delivery_of_any_pending_cancel()


def without_caller(error: BaseException) -> BaseException:
    """Return the error without the frames and the context of the caller.

    It is raised in the server, which has nothing to do with what its caller did.
    Not to be called while ``error`` is handled.
    """
    handled = sys.exc_info()[1]
    inner: BaseException = error
    # An error that is raised again and again may be its own context's context.
    seen = {id(handled)}
    while inner.__context__ is not None and id(inner.__context__) not in seen:
        seen.add(id(inner))
        inner = inner.__context__
    inner.__context__ = None
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get(
        "__name__", ""
    ).startswith("atomr."):
        traceback = traceback.tb_next
    return error.with_traceback(traceback)
