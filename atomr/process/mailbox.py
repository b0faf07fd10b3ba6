"""Bounded mailboxes: what happens to a message that finds no room.

A mailbox has no bound unless its process was given one: as in OTP, and because
only the designer knows what may be lost.  A bound holds for what others send
and cast.  Calls pass it (their callers wait already, so there are no more than
callers), and so do exits, ``Down``, timers, and what a process sends itself: a
process that waits for room in its own mailbox waits for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import trio

from atomr import telemetry
from atomr.core.mailbox_limit import Overflow
from atomr.core.messages import PassesBounds
from atomr.errors import MailboxFullError
from atomr.process.context import CURRENT, find_process
from atomr.process.parking import ParkSpot

if TYPE_CHECKING:
    from atomr.process.process import Process
    from atomr.refs import Address


def refuses(process: Process) -> bool:
    """Make room as the policy says; return whether the new message is dropped.

    Args:
        process: has a limit.

    Raises:
        MailboxFullError: the mailbox is full, and its policy is not to drop.
    """
    limit = process.limit
    assert limit is not None, "asked only then"
    if process.queue_size < limit.size or CURRENT.get() is process:
        return False
    match limit.overflow:
        case Overflow.DROP_NEWEST:
            _tell_of_drop(process, "newest")
            return True
        case Overflow.DROP_OLDEST:
            dropped = _drop_oldest(process)
            _tell_of_drop(process, "oldest" if dropped else "newest")
            return not dropped
        case Overflow.REJECT:
            raise MailboxFullError(process.pid, limit.size)
        case Overflow.WAIT:
            hint = ": its policy is WAIT, so use send_wait or cast_wait"
            raise MailboxFullError(process.pid, limit.size, hint=hint)
        case _:
            assert_never(limit.overflow)


async def wait_for_room(to: Address) -> Process | None:
    """Wait until one more message has room; None: nobody is there (any more).

    Raises:
        MailboxFullError: the mailbox is full, and its policy is ``REJECT``.
    """
    task = trio.lowlevel.current_task()
    waited_for: Process | None = None
    while True:
        process = find_process(to)
        if waited_for is not None and process is not waited_for:
            # Another has the name now: the room is the next one's.
            waited_for.room_made()
        limit = process.limit if process is not None else None
        if process is None or limit is None or process.queue_size < limit.size:
            return process
        if limit.overflow is not Overflow.WAIT or CURRENT.get() is process:
            return None if refuses(process) else process
        spot, waited_for = ParkSpot(), process
        if process.room_spots is None:
            process.room_spots = {}
        process.room_spots[spot] = None
        try:
            await spot.park(task)
        finally:
            _forget(process, spot)
            spot.close()


def _forget(process: Process, spot: ParkSpot) -> None:
    if process.room_spots is not None:
        process.room_spots.pop(spot, None)


def _drop_oldest(process: Process) -> bool:
    # The batch is older than the inbox, and lies the other way round.
    batch, inbox = process.batch, process.inbox
    for i in reversed(range(len(batch))):
        if not isinstance(batch[i], PassesBounds):
            del batch[i]
            return True
    for i, message in enumerate(inbox):
        if not isinstance(message, PassesBounds):
            # Not in place: a selective receive knows by the list how far it looked.
            process.inbox = inbox[:i] + inbox[i + 1 :]
            return True
    return False


def _tell_of_drop(process: Process, which: str) -> None:
    if telemetry.handlers:
        telemetry.emit(
            ("atomr", "mailbox", "drop"),
            {"queue_size": process.queue_size},
            {"pid": process.pid, "dropped": which},
        )
