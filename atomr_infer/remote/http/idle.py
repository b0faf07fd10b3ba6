"""The kept-alive connections of one origin, newest first out.

Last in, first out: after a burst the surplus ages at the bottom and is closed,
while the few connections that the load needs stay warm.

There is no timer: connections that are too old are given back for closing
when the list is next used.  A client that falls silent keeps at most
``max_idle`` sockets, which the peer closes when it wants to.

Pure: ``now`` is an argument, and closing is the caller's.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import attrs

C = TypeVar("C")


@attrs.frozen(kw_only=True)
class IdleLimits:
    """How many unused connections are kept, and how long.

    Attributes:
        max_idle: most unused connections; 0 keeps none.
        max_age_s: longest time unused, in seconds.  30 is below the 60 to 75
            after which common front ends (AWS ALB, nginx) close silently.
        max_life_s: longest time since it was opened, in seconds; a name that
            has moved to other addresses is then looked up again.
    """

    max_idle: int = 64
    max_age_s: float = 30.0
    max_life_s: float = math.inf


class IdleList(Generic[C]):
    """Connections that wait for their next request."""

    def __init__(self, limits: IdleLimits) -> None:
        self._limits = limits
        self._entries: list[tuple[float, C]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, now: float) -> tuple[C | None, tuple[C, ...]]:
        """Return the newest connection, and those that are now to be closed."""
        if not self._entries:
            return None, ()
        if now - self._entries[-1][0] > self._limits.max_age_s:
            return None, self.clear()
        return self._entries.pop()[1], ()

    def put(self, connection: C, now: float) -> tuple[C, ...]:
        """Keep a connection; return those that are now to be closed."""
        self._entries.append((now, connection))
        oldest = now - self._limits.max_age_s
        if len(self._entries) <= self._limits.max_idle and self._put_at_first >= oldest:
            return ()
        keep = len(self._entries)
        while keep and (keep > self._limits.max_idle or self._put_at(keep) < oldest):
            keep -= 1
        split = len(self._entries) - keep
        gone = tuple(connection for _, connection in self._entries[:split])
        del self._entries[:split]
        return gone

    def clear(self) -> tuple[C, ...]:
        """Empty the list and return what was in it."""
        gone = tuple(connection for _, connection in self._entries)
        self._entries.clear()
        return gone

    @property
    def _put_at_first(self) -> float:
        return self._entries[0][0]

    def _put_at(self, keep: int) -> float:
        """When the oldest of the newest ``keep`` connections came in."""
        return self._entries[len(self._entries) - keep][0]
