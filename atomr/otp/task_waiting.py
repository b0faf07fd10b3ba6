"""Waiting for tasks: one, all of them, or as many as are wanted.

One wait is one :class:`Wait`, whatever the number of tasks; it counts ends and
wakes its trio task once.  Its timeout is an entry in the node's clock.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import trio

from atomr.core.checks import check_member
from atomr.core.child_spec import BRUTAL_KILL
from atomr.core.exits import KILLED
from atomr.errors import NotAProcessError, TaskTimeoutError
from atomr.otp.task_body import Done, Exited
from atomr.process.calls import DEFAULT_TIMEOUT_S
from atomr.process.context import CURRENT
from atomr.process.parking import ParkSpot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from atomr.otp.task import Task
    from atomr.process.process import Process

R = TypeVar("R")


class Wait:
    """One wait for the ends of tasks.

    Args:
        spot: where the waiting trio task sleeps.
        count: ends that are waited for.
        until_failure: whether one end without a value is enough.
    """

    __slots__ = ("count", "spot", "until_failure")

    def __init__(self, spot: ParkSpot, count: int, *, until_failure: bool) -> None:
        self.spot = spot
        self.count = count
        self.until_failure = until_failure

    def one_ended(self, *, failed: bool) -> None:
        """Count an end."""
        self.count -= 1
        if self.count <= 0 or (failed and self.until_failure):
            self.spot.wake()

    def expire(self, timeout_s: float) -> None:
        """Stop waiting."""
        self.spot.wake()


async def wait_for_end(task: Task[object], timeout_s: float | None) -> None:
    """Wait until a task has ended, or the time is over.

    The same as :func:`wait_for_ends` with one task, which is the common case.
    """
    process = task.process
    if process is not None:
        _refuse_own_end(process)
        if timeout_s is None or timeout_s > 0:
            await _wait({task: process}, 1, timeout_s, until_failure=False)
            return
    await trio.lowlevel.checkpoint()


async def wait_for_ends(
    tasks: Iterable[Task[object]],
    timeout_s: float | None,
    *,
    count: int | None = None,
    until_failure: bool = False,
) -> None:
    """Wait until ``count`` of the tasks have ended, or the time is over.

    Always a checkpoint.

    Args:
        tasks: those that have ended already count.
        timeout_s: bound in seconds; 0 only looks; None: no bound.
        count: None: all of them.
        until_failure: return as soon as one has ended without a value.

    Raises:
        NotAProcessError: one of them waits for its own end.

    Cancellation: leaves the tasks as they are.
    """
    all_tasks = tuple(tasks)
    running = {t: t.process for t in all_tasks if t.process is not None}
    wanted = len(all_tasks) if count is None else count
    missing = min(wanted - (len(all_tasks) - len(running)), len(running))
    for process in running.values():
        _refuse_own_end(process)
    if until_failure and any(failed(task) for task in all_tasks):
        missing = 0
    if missing <= 0 or (timeout_s is not None and timeout_s <= 0):
        await trio.lowlevel.checkpoint()
        return
    await _wait(running, missing, timeout_s, until_failure=until_failure)


def _refuse_own_end(process: Process) -> None:
    if process is CURRENT.get():
        raise NotAProcessError(f"{process.pid!r} waits for its own end")


async def _wait(
    running: dict[Task[object], Process],
    missing: int,
    timeout_s: float | None,
    *,
    until_failure: bool,
) -> None:
    node = next(iter(running.values())).node
    spot = node.spots.pop() if node.spots else ParkSpot()
    wait = Wait(spot, missing, until_failure=until_failure)
    bucket = None
    if timeout_s is not None:
        bucket = node.timers.bucket(timeout_s)
        bucket.add(wait)
    for task in running:
        task.add_wait(wait)
    try:
        await spot.park(trio.lowlevel.current_task())
    finally:
        for task in running:
            task.remove_wait(wait)
        if bucket is not None:
            bucket.calls.pop(wait, None)
        node.spots.append(spot)


# --- several tasks -------------------------------------------------------------


async def await_many(
    tasks: Iterable[Task[R]], *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> list[R]:
    """Wait for the values of all tasks; return them in the order of ``tasks``.

    Args:
        tasks: may repeat.
        timeout_s: bound on all together, in seconds; None: no bound.

    Raises:
        TaskExitError: one ended without a value; raised at once, and the others
            go on running.
        TaskTimeoutError: names the first that still runs; all that do go on.
        NotAProcessError: a task cannot wait for its own end.

    Cancellation: the tasks go on running.
    """
    wanted = tuple(tasks)
    await wait_for_ends(dict.fromkeys(wanted), timeout_s, until_failure=True)
    for task in wanted:
        if failed(task):
            task.value_or_raise()
    for task in wanted:
        if task.outcome is None:
            assert timeout_s is not None, "no bound, no timeout"
            raise TaskTimeoutError(task.pid, timeout_s)
    return [task.value_or_raise() for task in wanted]


class OnTimeout(Enum):
    """What becomes of a task that did not end in time."""

    NOTHING = "nothing"
    """it goes on, and can be waited for"""
    IGNORE = "ignore"
    """it goes on, unlinked"""
    KILL_TASK = "kill_task"
    """it is killed"""


async def yield_many(
    tasks: Sequence[Task[R]],
    *,
    limit: int | None = None,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    on_timeout: OnTimeout = OnTimeout.NOTHING,
) -> list[tuple[Task[R], Done[R] | Exited | None]]:
    """Wait for the outcomes of several tasks, without giving up on any.

    Args:
        tasks: each once.
        limit: return as soon as so many have ended, and touch no other; None:
            all of them.
        timeout_s: bound on all together, in seconds; None: no bound.
        on_timeout: what becomes of those that run when the time is over.

    Returns:
        Each task, in the order of ``tasks``, and how it ended; None: it runs,
        or it was killed just now.

    Raises:
        NotAProcessError: a task cannot wait for its own end.

    Cancellation: the tasks go on running, those that are being killed aside.
    """
    check_member("on_timeout", on_timeout, OnTimeout)
    await wait_for_ends(tasks, timeout_s, count=limit)
    ended = sum(task.outcome is not None for task in tasks)
    if ended >= (len(tasks) if limit is None else limit):
        return [(task, task.outcome) for task in tasks]
    late = {task for task in tasks if task.outcome is None}
    for task in late:
        if on_timeout is OnTimeout.KILL_TASK:
            task.begin_shutdown(BRUTAL_KILL)
        elif on_timeout is OnTimeout.IGNORE:
            task.ignore()
    if on_timeout is OnTimeout.KILL_TASK:
        await wait_for_ends(late, None)
    # What a killed one returned all the same is its value, as for ``shutdown``.
    killed = {task for task in late if task.outcome == Exited(KILLED)}
    return [(task, None if task in killed else task.outcome) for task in tasks]


def failed(task: Task[object]) -> bool:
    """Return whether it has ended without a value."""
    return isinstance(task.outcome, Exited)
