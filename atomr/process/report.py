"""Crash reports: one log record with all that is known of a crash."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr.errors import short

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.process.process import Process

log = logging.getLogger("atomr")


def crash(process: Process, reason: ExitReason) -> None:
    """Log at error level why a process crashed, with its state and last message."""
    error = reason if isinstance(reason, BaseException) else None
    log.error(
        "process %r crashed: %s\nlast message: %s\nstate: %s",
        process.pid,
        short(reason),
        short(_last_message(process.current)),
        _state(process),
        exc_info=error,
    )


def _last_message(item: object) -> object:
    # The envelopes of calls and casts say nothing to a reader.
    return getattr(item, "request", getattr(item, "message", item))


def _state(process: Process) -> str:
    # format_status is user code; its failure must not hide the crash.
    try:
        return short(process.behaviour.crash_state())
    except Exception as error:  # noqa: BLE001 - reported in the state's place
        return f"<format_status failed: {short(error)}>"
