"""The shutdown ladder: ask, wait, kill, and say so when even that takes long.

1. A process that traps exits or has a ``terminate`` is asked to stop and gets
   its shutdown time; any other is cancelled at once, with reason ``SHUTDOWN``.
2. When the time is over, or with ``BRUTAL_KILL`` at once, it is killed: its
   scope is cancelled, ``terminate`` does not run, the reason is ``KILLED``.
3. A shielded block, or code that never awaits, delays even a kill.  Nothing
   in Python can end it, so the wait goes on, and a warning names the process.
"""

from __future__ import annotations

from functools import partial
from math import isinf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

from atomr.core.child_spec import BrutalKill, ShutdownTime
from atomr.core.exits import KILLED, SHUTDOWN, ExitReason
from atomr.process.lean import LeanProcess
from atomr.process.parking import ParkSpot
from atomr.process.process import Process, Status
from atomr.process.report import log
from atomr.process.task_process import TaskProcess

if TYPE_CHECKING:
    from collections.abc import Iterable

STILL_ALIVE_S = 5.0
"""How long after a kill a process that still runs is reported."""


@enable_ki_protection
def begin_stop(
    process: Process,
    shutdown: ShutdownTime,
    reason: ExitReason = SHUTDOWN,
    *,
    orderly: bool = False,
) -> None:
    """Start the ladder; returns at once.

    Args:
        process: what to stop.
        shutdown: seconds until the kill, ``BRUTAL_KILL`` or ``INFINITY``.
        reason: what it is asked to end with.
        orderly: ask even a process that would have nothing to do before its
            end, so that it finishes the message it works on.
    """
    if process.status is Status.EXITED:
        return
    if isinstance(shutdown, BrutalKill):
        _kill(process)
        return
    behaviour = process.behaviour
    ask = behaviour.answers_stop if orderly else behaviour.stops_gracefully
    if process.idle and isinstance(process, LeanProcess):
        # Nothing waits, nothing runs: what would be done later is done now.
        process.idle = False
        if ask(process):
            process.end(reason)
        else:
            process.finish(reason)
        return
    # A server reads no signals in init, and has nothing to close yet.
    listens = process.was_started or behaviour.reads_signals_in_init
    asked = listens and ask(process)
    graceful = behaviour.stops_gracefully(process)
    if isinstance(process, TaskProcess) and not graceful and process.stop_now(reason):
        return
    if asked:
        behaviour.ask_to_stop(process, reason)
    else:
        process.cancel(reason)
    if not isinf(shutdown):
        _own_timer(process, shutdown, partial(_kill, process))


async def wait_ended(processes: Iterable[Process]) -> None:
    """Wait until all of them have ended.

    Cancellation: leaves them as they are.
    """
    task = trio.lowlevel.current_task()
    for process in processes:
        while process.status is not Status.EXITED:
            spot = ParkSpot()
            if process.exit_spots is None:
                process.exit_spots = {}
            process.exit_spots[spot] = None
            try:
                await spot.park(task)
            finally:
                del process.exit_spots[spot]
                spot.close()


async def stop_process(
    process: Process, reason: ExitReason = SHUTDOWN, *, orderly: bool = False
) -> None:
    """Run the whole ladder with the process' own shutdown time."""
    begin_stop(process, process.shutdown, reason, orderly=orderly)
    await wait_ended((process,))


def _kill(process: Process) -> None:
    process.cancel(KILLED)
    _own_timer(process, STILL_ALIVE_S, partial(_report_alive, process))


def _report_alive(process: Process) -> None:
    log.warning(
        "process %r still runs %s s after it was killed; a shielded block or code"
        " that never awaits holds it",
        process.pid,
        STILL_ALIVE_S,
    )
    _own_timer(process, STILL_ALIVE_S, partial(_report_alive, process))


def _own_timer(process: Process, delay_s: float, callback: partial[None]) -> None:
    process.own_timer(process.node.timers.after(delay_s, callback))
