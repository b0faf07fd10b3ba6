"""The node's clock: timers and call timeouts, with one trio deadline in all.

A trio cancel scope with a deadline costs 5.8 us, more than a whole call.
Nearly every call uses one of a few timeout lengths, and calls of one length
expire in the order they began.  So a *bucket* per length is a dict in
insertion order: adding and removing an entry is a dict operation, and only its
first entry can be due.  Timers of arbitrary length sit in a heap.

One task sleeps until the earliest of them.  It moves its own deadline when an
earlier one comes; it does not when one goes, but wakes then once for nothing:
at most once per timeout length.
"""

from __future__ import annotations

import heapq
import itertools
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPACT_FROM = 64


class Timer:
    """One armed timer; ``callback`` is None when it fired or was cancelled.

    ``owner`` is a set that holds the timer for as long as it is armed.
    """

    __slots__ = ("at", "callback", "owner", "service")

    def __init__(
        self, service: TimerService, at: float, callback: Callable[[], None]
    ) -> None:
        self.service = service
        self.at = at
        self.callback: Callable[[], None] | None = callback
        self.owner: set[Timer] | None = None

    def cancel(self) -> bool:
        """Disarm it; return whether it was armed."""
        if self.callback is None:
            return False
        self.disarm()
        self.service.forget_one()
        return True

    def disarm(self) -> None:
        """Become harmless."""
        self.callback = None
        if self.owner is not None:
            self.owner.discard(self)


class Expiring(Protocol):
    """What waits for something, but not for ever: a call, a wait for a task."""

    def expire(self, timeout_s: float) -> None:
        """Give up; must not raise."""


class TimeoutBucket:
    """The calls that share one timeout length, oldest first."""

    __slots__ = ("calls", "length_s", "service")

    def __init__(self, service: TimerService, length_s: float) -> None:
        self.service = service
        self.length_s = length_s
        self.calls: dict[Expiring, float] = {}

    def add(self, ref: Expiring) -> None:
        """Let ``ref`` expire ``length_s`` from now."""
        deadline = trio.current_time() + self.length_s
        self.calls[ref] = deadline
        if deadline < self.service.wake_at:
            self.service.wake_by(deadline)

    def first_at(self) -> float:
        """Return when the oldest call is due."""
        for deadline in self.calls.values():
            return deadline
        return inf

    def expire(self, now: float) -> None:
        """Fail what is due."""
        while self.calls:
            ref, deadline = next(iter(self.calls.items()))
            if deadline > now:
                return
            del self.calls[ref]
            ref.expire(self.length_s)


class TimerService:
    """All timers and call timeouts of one node.

    Attributes:
        wake_at: when its task wakes next.
    """

    def __init__(self) -> None:
        self.wake_at = inf
        self._armed = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._buckets: dict[float, TimeoutBucket] = {}
        self._sequence = itertools.count()
        self._scope: trio.CancelScope | None = None

    @property
    def size(self) -> int:
        """Timers armed and calls in wait."""
        return self._armed + sum(len(b.calls) for b in self._buckets.values())

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, ``delay_s`` from now; it must not raise."""
        return self.at(trio.current_time() + delay_s, callback)

    def at(self, time: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, at ``time`` on trio's clock, or now if it is past."""
        timer = Timer(self, time, callback)
        heapq.heappush(self._heap, (timer.at, next(self._sequence), timer))
        self._armed += 1
        if timer.at < self.wake_at:
            self.wake_by(timer.at)
        return timer

    def bucket(self, length_s: float) -> TimeoutBucket:
        """Return the bucket of that timeout length."""
        bucket = self._buckets.get(length_s)
        if bucket is None:
            # Odd lengths (what is left of a deadline) must not pile up.
            if len(self._buckets) >= _COMPACT_FROM:
                self._buckets = {k: b for k, b in self._buckets.items() if b.calls}
            bucket = self._buckets[length_s] = TimeoutBucket(self, length_s)
        return bucket

    def wake_by(self, deadline: float) -> None:
        """Wake no later than ``deadline``."""
        self.wake_at = deadline
        if self._scope is not None:
            self._scope.deadline = deadline

    def forget_one(self) -> None:
        """Count a cancelled timer, and drop cancelled ones when they prevail."""
        self._armed -= 1
        if len(self._heap) > _COMPACT_FROM and self._armed * 2 < len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback]
            heapq.heapify(self._heap)

    @enable_ki_protection
    async def run(self) -> None:
        """Fire what is due, for ever.

        Cancellation: ends at once; what is armed stays unfired.
        """
        try:
            while True:
                with trio.CancelScope(deadline=self._next_at()) as scope:
                    self._scope = scope
                    self.wake_at = scope.deadline
                    await trio.sleep_forever()
                self._fire(trio.current_time())
        finally:
            # They refer back here.
            self._heap.clear()
            self._buckets.clear()

    def _next_at(self) -> float:
        first = self._heap[0][0] if self._heap else inf
        return min(first, *(b.first_at() for b in self._buckets.values()), inf)

    def _fire(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            callback = timer.callback
            if callback is not None:
                timer.disarm()
                self._armed -= 1
                callback()
        for bucket in tuple(self._buckets.values()):
            bucket.expire(now)
