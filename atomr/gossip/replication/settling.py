"""How many of the latest events are still on their way to everybody.

A push takes some milliseconds.  A digest that is answered meanwhile would send the
same events again, so the newest are left to the pushes, until these had their time.

Pure.
"""

from __future__ import annotations

from collections import deque


class Settling:
    """When how many events were logged, for the last while.

    Attributes:
        settle_s: how long a push may take.
    """

    __slots__ = ("_marks", "settle_s")

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self._marks: deque[tuple[float, int]] = deque([(float("-inf"), 0)])

    def note(self, total: int, now_s: float) -> None:
        """Note how many events there were by now."""
        marks = self._marks
        if total != marks[-1][1]:
            marks.append((now_s, total))
        while len(marks) > 1 and marks[1][0] <= now_s - self.settle_s:
            marks.popleft()

    def newest(self, total: int, now_s: float) -> int:
        """Return how many of them are not settled."""
        self.note(total, now_s)
        return total - self._marks[0][1]
