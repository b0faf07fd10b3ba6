"""Calls that wait for their replies, all over one lane, told apart by a number.

A call is a parked task and a row in a table: no task, no cancel scope and no event
of its own.  Whoever keeps the link's time looks at the deadlines.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import outcome
import trio

from atomr.errors import LinkTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable


class Pending:
    """A call that waits.

    Attributes:
        number: its number on this link.
        service: what was called.
        timeout_s: how long it waits.
        due_at: until when.
        task: the caller, once it is parked.
    """

    __slots__ = ("_all", "due_at", "number", "result", "service", "task", "timeout_s")

    def __init__(
        self, number: int, service: str, *, timeout_s: float, among: dict[int, Pending]
    ) -> None:
        self._all = among
        self.number = number
        self.service = service
        self.timeout_s = timeout_s
        self.due_at = trio.current_time() + timeout_s
        self.task: trio.lowlevel.Task | None = None
        self.result: outcome.Value[bytes] | outcome.Error | None = None

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """Let the caller leave: a reply that comes before it runs finds nobody."""
        self._all.pop(self.number, None)
        return trio.lowlevel.Abort.SUCCEEDED


class Calls:
    """The calls of one link that wait.

    Attributes:
        due_at: not after the first deadline; infinite without calls.
    """

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}
        self._numbers = itertools.count(1)
        self.due_at = math.inf

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, service: str, timeout_s: float) -> Pending:
        """Give a call its number."""
        number = next(self._numbers)
        pending = Pending(number, service, timeout_s=timeout_s, among=self._pending)
        self._pending[pending.number] = pending
        if pending.due_at < self.due_at:
            self.due_at = pending.due_at
        return pending

    def get(self, number: int) -> Pending | None:
        """Return a call that waits; None when nobody does any more."""
        return self._pending.get(number)

    def forget(self, pending: Pending) -> None:
        """Let go of a call; what comes for it is dropped."""
        self._pending.pop(pending.number, None)

    def settle(
        self, pending: Pending, result: outcome.Value[bytes] | outcome.Error
    ) -> None:
        """Let a call return or raise."""
        self.forget(pending)
        if pending.task is None:
            pending.result = result
        else:
            trio.lowlevel.reschedule(pending.task, result)

    def fail_all(self, make: Callable[[], Exception]) -> None:
        """Let every call raise an error of its own."""
        for pending in tuple(self._pending.values()):
            self.settle(pending, outcome.Error(make()))

    def expire(self, now_s: float, *, peer: object) -> list[Pending]:
        """Let those raise whose time is over, and return them."""
        late = [p for p in self._pending.values() if p.due_at <= now_s]
        for pending in late:
            error = LinkTimeoutError(peer, pending.service, pending.timeout_s)
            self.settle(pending, outcome.Error(error))
        rest = (pending.due_at for pending in self._pending.values())
        self.due_at = min(rest, default=math.inf)
        return late

    async def wait(self, pending: Pending) -> bytes:
        """Wait for the reply.

        Raises:
            LinkError: whatever the call was settled with.

        Cancellation: the call is forgotten; the caller tells the peer.
        """
        if pending.result is not None:
            await trio.lowlevel.checkpoint()
            return pending.result.unwrap()
        pending.task = trio.lowlevel.current_task()
        body: bytes = await trio.lowlevel.wait_task_rescheduled(pending.abort)
        return body
