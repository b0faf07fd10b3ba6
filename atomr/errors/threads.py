"""Errors in threads and event loops beside trio."""

from __future__ import annotations

from atomr.errors.base import AtomrError, short
from atomr.errors.calls import CallError


class StopRequestedError(AtomrError):
    """The thread's process was asked to stop; let this leave the function.

    Attributes:
        reason: what the process is to end with; then it does.
    """

    def __init__(self, operation: str, reason: object) -> None:
        self.reason = reason
        super().__init__(f"{operation}: asked to stop: {short(reason)}")


class ThreadAbandonedError(AtomrError):
    """The thread's process or node has ended; nobody waits for the thread.

    Attributes:
        pid: the process; None when the thread belongs to none.
    """

    def __init__(self, operation: str, pid: object) -> None:
        self.pid = pid
        who = "the node" if pid is None else repr(pid)
        super().__init__(f"{operation}: {who} has ended without this thread")


class AsyncioCancelledError(CallError):
    """The asyncio task was cancelled by something in its own loop."""

    def _problem(self) -> str:
        return "the asyncio task was cancelled inside its loop"
