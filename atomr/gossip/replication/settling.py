"""How many of the latest events are still on their way to everybody.

A push takes some milliseconds.  A digest that is answered meanwhile would send the
same events again, so the newest are left to the pushes, until these had their time:
to a peer that is slow they take as long as all else does.

Pure.
"""

from __future__ import annotations

from collections import deque


class Settling:
    """When how many events were logged, for the last while.

    Attributes:
        settle_s: how long a push takes where nothing is slow.
        keep_s: for the last so many seconds.
    """

    __slots__ = ("_marks", "keep_s", "settle_s")

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self.keep_s = settle_s
        self._marks: deque[tuple[float, int]] = deque([(float("-inf"), 0)])

    @property
    def newest_at_s(self) -> float:
        """When the newest event was logged; minus infinity: there was none."""
        return self._marks[-1][0]

    def note(self, total: int, now_s: float) -> None:
        """Note how many events there were by now."""
        marks = self._marks
        if total != marks[-1][1]:
            if len(marks) > 1 and marks[-1][0] - marks[-2][0] < self.settle_s / 4:
                # Many within a moment are as late as the last of them.
                marks.pop()
            marks.append((now_s, total))
        while len(marks) > 1 and marks[1][0] <= now_s - self.keep_s:
            marks.popleft()

    def newest(self, total: int, now_s: float, *, within_s: float) -> int:
        """Return how many of them were logged in the last seconds."""
        self.note(total, now_s)
        for at_s, noted in reversed(self._marks):
            if at_s <= now_s - within_s:
                return total - noted
        return total - self._marks[0][1]
