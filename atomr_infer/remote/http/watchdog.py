"""The time limits of all connections of a client, kept by one task.

A cancel scope for each wait costs more than the wait's own work, and a stream
waits hundreds of times.  Here a wait sets a number, and the watchdog sleeps
until the earliest instant that it has seen: in the steady state, where each
limit is later than the last one, that is one wake-up per limit's length.

Cost: setting a limit is two comparisons; a wake-up looks at every connection.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio


class Timed(Protocol):
    """What the watchdog watches.

    Attributes:
        due_at: the instant by which its wait must have ended; ``inf``: none.
    """

    due_at: float

    async def expire(self) -> None:
        """End the wait: its time is over."""


class Watchdog:
    """Calls ``expire`` on each of ``watched`` whose time is over."""

    def __init__(self) -> None:
        self.watched: set[Timed] = set()
        self._scope = trio.CancelScope()
        self._wakes_at = math.inf

    def notice(self, due_at: float) -> None:
        """Wake no later than ``due_at``."""
        if due_at < self._wakes_at:
            self._wakes_at = due_at
            self._scope.deadline = due_at

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._scope = trio.CancelScope(deadline=self._wakes_at)
            with self._scope:
                await trio.sleep_forever()
            await self._look()

    async def _look(self) -> None:
        now = trio.current_time()
        self._wakes_at = math.inf
        for timed in list(self.watched):
            if timed.due_at <= now:
                timed.due_at = math.inf
                await timed.expire()
        # An expiry may have let others in, so they are asked afterwards.
        self._wakes_at = min((t.due_at for t in self.watched), default=math.inf)
