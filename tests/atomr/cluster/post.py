"""What is under way between nodes of one event loop: one task carries all of it.

A task for each frame costs more than the frame's handling.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Post:
    """Calls functions later, in the order in which they are due."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._scope = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._due)

    def send(self, after_s: float, deliver: Callable[[], None]) -> None:
        """Call ``deliver`` after that many seconds."""
        letter = (trio.current_time() + after_s, next(self._numbers), deliver)
        heapq.heappush(self._due, letter)
        if self._due[0] is letter:
            # Not an event: to be woken, and to sleep again, is a turn for nothing.
            self._scope.deadline = letter[0]

    async def run(self) -> None:
        """Deliver; never returns."""
        while True:
            at_s = self._due[0][0] if self._due else float("inf")
            with trio.CancelScope(deadline=at_s) as self._scope:
                await trio.sleep_forever()
            while self._due and self._due[0][0] <= trio.current_time():
                heapq.heappop(self._due)[2]()
