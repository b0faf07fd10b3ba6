"""Messages that the process layer itself puts into a mailbox.

Pure.
"""

from __future__ import annotations

import attrs

from atomr.core.exits import ExitReason
from atomr.refs import Pid, Ref


class PassesBounds:
    """Base of what is put into a bounded mailbox though it is full."""

    __slots__ = ()


@attrs.frozen
class Down(PassesBounds):
    """A monitored process ended, or was not there (``NOPROC``).

    Attributes:
        ref: what ``monitor`` returned.
        pid: the process that was monitored; None when a name had no process.
        reason: its exit reason.
    """

    ref: Ref
    pid: Pid | None
    reason: ExitReason


@attrs.frozen
class Exit(PassesBounds):
    """An exit signal, as a message, because the receiver traps exits.

    Attributes:
        pid: who sent it: a linked process, the supervisor, or the caller of
            ``exit_process``; None when that caller is no process.
        reason: the signal's reason.
    """

    pid: Pid | None
    reason: ExitReason


@attrs.frozen
class IdleTimeout(PassesBounds):
    """No message came to a GenServer within the ``timeout_s`` it asked for."""
