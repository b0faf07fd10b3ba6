"""Permits that were used, and are locked until a window has passed.

Uses are remembered in batches: each says how many there were, and when the last
of them was, because that one must have cooled before the batch is free.  So the
memory is bounded by the number of batches in a window, whatever the limit.

Pure: times are arguments, in seconds of the holder's monotonic clock.
"""

from __future__ import annotations

from collections import deque

_NEVER = float("inf")


class Batch:
    """Uses within a short time of each other.

    Attributes:
        opened_s: when the first was.
        last_s: when the last was.
        count: how many are locked; a refund makes it less.
        is_gone: whether they are free again, or have been given up.
    """

    __slots__ = ("count", "is_gone", "last_s", "opened_s")

    def __init__(self, at_s: float) -> None:
        """Start empty."""
        self.opened_s = self.last_s = at_s
        self.count = 0
        self.is_gone = False


class Cooling:
    """Used permits, oldest first.

    Attributes:
        count: how many are locked.
        next_s: when the oldest batch is free; infinite without one.
    """

    __slots__ = ("_batch_s", "_batches", "_cooling_s", "count", "next_s")

    def __init__(self, *, cooling_s: float, batch_s: float) -> None:
        """Start without any.

        Args:
            cooling_s: how long a permit is locked after its use.
            batch_s: uses that are no further apart may share a batch.
        """
        self._cooling_s = cooling_s
        self._batch_s = batch_s
        self._batches: deque[Batch] = deque()
        self.count = 0
        self.next_s = _NEVER

    def add(self, count: int, at_s: float) -> Batch:
        """Lock permits that were used at that time, and return their batch.

        A time before the last one's counts as the last one's: too late is safe.
        """
        batches = self._batches
        batch = batches[-1] if batches else None
        if batch is None or at_s >= batch.opened_s + self._batch_s:
            batch = Batch(at_s)
            batches.append(batch)
            if self.next_s == _NEVER:
                self.next_s = at_s + self._cooling_s
        elif at_s > batch.last_s:
            batch.last_s = at_s
        batch.count += count
        self.count += count
        return batch

    def refund(self, batch: Batch, count: int) -> int:
        """Unlock permits that were not used after all.

        Returns:
            How many: as many of ``count`` as are still locked.
        """
        if batch.is_gone:
            return 0
        if count > batch.count:
            count = batch.count
        batch.count -= count
        self.count -= count
        return count

    def thaw(self, now_s: float) -> int:
        """Unlock what has cooled, and return how many."""
        if now_s < self.next_s:
            return 0
        before = self.count
        batches = self._batches
        while batches and now_s >= batches[0].last_s + self._cooling_s:
            batch = batches.popleft()
            batch.is_gone = True
            self.count -= batch.count
        self.next_s = batches[0].last_s + self._cooling_s if batches else _NEVER
        return before - self.count

    def free_at_s(self, count: int) -> float:
        """Return when that many will have been unlocked; infinite: never."""
        for batch in self._batches:
            count -= batch.count
            if count <= 0:
                return batch.last_s + self._cooling_s
        return _NEVER

    def forget(self) -> None:
        """Give all of them up: they belong to somebody else now."""
        for batch in self._batches:
            batch.is_gone = True
        self._batches.clear()
        self.count = 0
        self.next_s = _NEVER
