"""A line in which only so many are at the front, the most urgent first."""

from __future__ import annotations

import heapq
import itertools

import attrs
import trio


@attrs.define(eq=False)
class _Waiter:
    turn: trio.Event = attrs.field(factory=trio.Event)
    has_left: bool = False


class Turnstile:
    """Lets a few to the front at a time; of those as urgent, who came first."""

    __slots__ = ("_free", "_heap", "_numbers", "length")

    def __init__(self, width: int) -> None:
        """Start empty.

        Args:
            width: how many may be at the front at once.
        """
        self._free = width
        self._heap: list[tuple[int, int, _Waiter]] = []
        self._numbers = itertools.count()
        self.length = 0

    async def come(self, priority: int) -> None:
        """Wait until it is one's turn; :meth:`go` ends it.

        Args:
            priority: higher goes first.

        Cancellation: the turn is the next one's.
        """
        self.length += 1
        if self._free and not self._heap:
            self._free -= 1
            return
        waiter = _Waiter()
        heapq.heappush(self._heap, (-priority, next(self._numbers), waiter))
        try:
            await waiter.turn.wait()
        except BaseException:
            waiter.has_left = True
            if waiter.turn.is_set():
                self.go()
            else:
                self.length -= 1
            raise

    def go(self) -> None:
        """Leave the front to the next."""
        self.length -= 1
        while self._heap:
            _, _, waiter = heapq.heappop(self._heap)
            if not waiter.has_left:
                waiter.turn.set()
                return
        self._free += 1
