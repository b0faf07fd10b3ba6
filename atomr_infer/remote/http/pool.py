"""The connections of one origin: how many there may be, and who waits for one.

A request takes the newest idle connection, or opens one when there is room, or
waits.  Who waits is served in order: by a connection that was given back, or
by the room that a closed one left.

Nothing here waits for the network, and nothing is locked: each step is
synchronous.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr_infer.remote.http.idle import IdleLimits, IdleList

if TYPE_CHECKING:
    from collections.abc import Sequence

C = TypeVar("C")
S = TypeVar("S")


@attrs.define(eq=False)
class _Waiter(Generic[C, S]):
    served: trio.Event = attrs.field(factory=trio.Event)
    connection: C | S | None = None


class Pool(Generic[C, S]):
    """Counts connections, keeps the idle ones, and queues who finds no room.

    ``C`` is what takes one request at a time, ``S`` what takes several; only
    the first kind is ever idle here.

    Attributes:
        size: connections that are open or being opened.
        max_connections: most of them.
        max_life_s: the age at which a connection takes no further request.
        max_age_s: how long a connection is kept unused.
    """

    def __init__(self, idle: IdleLimits, *, max_connections: int) -> None:
        if max_connections < 1:
            raise ValueError(f"max_connections is {max_connections}; 1 is the least")
        self._idle: IdleList[C] = IdleList(idle)
        self.max_connections = max_connections
        self.max_life_s = idle.max_life_s
        self.max_age_s = idle.max_age_s
        self._waiters: deque[_Waiter[C, S]] = deque()
        self.size = 0

    def __repr__(self) -> str:
        return (
            f"<Pool: {self.size} of {self.max_connections} connections,"
            f" {self.idle} idle, {self.waiting} waiting>"
        )

    @property
    def idle(self) -> int:
        """Connections that wait for their next request."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiters)

    def take(self, now: float) -> tuple[C | None, tuple[C, ...]]:
        """Return the newest idle connection, and those that are now to be closed."""
        return self._idle.take(now)

    def reserve(self) -> bool:
        """Take the room for one more connection; False when there is none."""
        if self.size >= self.max_connections:
            return False
        self.size += 1
        return True

    async def wait(self) -> C | S | None:
        """Wait for a connection, or for the room for one (None), which is then taken.

        Cancellation: leaves the queue.  Who has been served is not cancelled
            any more, since trio delivers a cancellation only to who sleeps.
        """
        waiter: _Waiter[C, S] = _Waiter()
        self._waiters.append(waiter)
        try:
            await waiter.served.wait()
        except trio.Cancelled:
            self._waiters.remove(waiter)
            raise
        return waiter.connection

    def put(self, connection: C, now: float) -> Sequence[C]:
        """Take back a connection; return those that are now to be closed."""
        if not self._waiters:
            return self._idle.put(connection, now)
        waiter = self._waiters.popleft()
        waiter.connection = connection
        waiter.served.set()
        return ()

    def offer(self, connection: S) -> None:
        """Give who waits a connection that takes more than one request."""
        if self._waiters:
            waiter = self._waiters.popleft()
            waiter.connection = connection
            waiter.served.set()

    def gone(self) -> None:
        """Give back the room of a connection that was closed or never opened."""
        self.size -= 1
        if self._waiters:
            self.size += 1
            self._waiters.popleft().served.set()

    def clear(self) -> tuple[C, ...]:
        """Take out all idle connections."""
        return self._idle.clear()
