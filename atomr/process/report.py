"""Crash reports: one log record with all that is known of a crash."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr.errors import short
from atomr.process.calls import Cast, From, item_seen
from atomr.process.context import ancestors_of

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.process.process import Process

_SHOWN_MESSAGES = 5

log = logging.getLogger("atomr")


def crash(process: Process, reason: ExitReason) -> None:
    """Log at error level why a process crashed, with its state and last message."""
    if not log.isEnabledFor(logging.ERROR):
        return
    error = reason if isinstance(reason, BaseException) else None
    log.error(
        "process %r crashed: %s\nlast message: %s\nstate: %s%s",
        process.pid,
        short(reason),
        short(_last_message(process.current)),
        _state(process),
        _surroundings(process),
        exc_info=error,
    )


def high_water(process: Process, size: int) -> None:
    """Warn of a process that does not keep up."""
    log.warning(
        "process %r had %d messages in its mailbox, oldest: %s; it does not keep up",
        process.pid,
        size,
        short(_last_message(process.batch[-1])),
    )


# A line each, and only for what there is.
def _surroundings(process: Process) -> str:
    lines = list(process.behaviour.crash_details())
    ancestors = ancestors_of(process)
    if ancestors:
        lines.append(f"ancestors: {', '.join(map(repr, ancestors))}")
    if process.behaviour.callers:
        lines.append(f"callers: {', '.join(map(repr, process.behaviour.callers))}")
    if process.names:
        lines.append(f"names: {', '.join(sorted(process.names))}")
    waiting = [*reversed(process.batch), *process.inbox]
    if waiting:
        shown = ", ".join(short(_last_message(m)) for m in waiting[:_SHOWN_MESSAGES])
        lines.append(f"{len(waiting)} messages wait: {shown}")
    if process.debug is not None and process.debug.events:
        events = process.debug.events
        lines += [f"before: {e.kind} {short(_last_message(e.message))}" for e in events]
    return "".join(f"\n{line}" for line in lines)


def _last_message(item: object) -> object:
    # The envelopes of calls and casts say nothing to a reader.
    item = item_seen(item)
    if isinstance(item, From):
        return item.request
    return item.message if isinstance(item, Cast) else item


def _state(process: Process) -> str:
    # format_status is user code; its failure must not hide the crash.
    try:
        return short(process.behaviour.crash_state())
    except Exception as error:  # noqa: BLE001 - reported in the state's place
        return f"<format_status failed: {short(error)}>"
