"""Who runs and who waits on one replica: permits, and a bounded queue.

The higher priority goes first, and among equals who came first.  A waiter gains
a step of priority each time that it has waited for ``aging_s``, so that nobody
waits for ever.  All grow at the same pace, so the order of two waiters never
changes, and the queue is a heap whose keys are constant.

The queue is a value machine: each call returns what happened, and the engine
core performs it.

Pure: ``now`` is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# A heap keeps who has left until they come up; past this it is made anew.
_MAX_GONE = 64


class Admission(Enum):
    """What became of a request for a permit."""

    GRANTED = "granted"
    QUEUED = "queued"
    REFUSED = "refused"


class AdmissionQueue(Generic[K]):
    """Permits for at most ``limit`` runs, and at most ``max_queue`` waiters.

    Invariant: a waiter exists only while every permit is taken or the queue is
    closed; so nobody waits beside a free permit.
    """

    def __init__(self, *, max_queue: int, aging_s: float = 10.0) -> None:
        """Start closed, with no permits: :meth:`open` gives them.

        Args:
            max_queue: waiters allowed, at least 0.
            aging_s: the wait that is worth one step of priority, in seconds.
        """
        self._limit = 0
        self._max_queue = max_queue
        self._aging_s = aging_s
        self._running: set[K] = set()
        self._waiting: dict[K, int] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._asked = 0

    @property
    def running(self) -> int:
        """Permits taken."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def outstanding(self) -> int:
        """Running and waiting together."""
        return len(self._running) + len(self._waiting)

    def reshape(self, *, max_queue: int, aging_s: float) -> None:
        """Take other bounds; who waits keeps place and rank.

        Args:
            max_queue: waiters allowed from now on, at least 0.
            aging_s: the wait that is worth one step of priority, in seconds.
        """
        self._max_queue = max_queue
        self._aging_s = aging_s

    def open(self, limit: int) -> list[K]:
        """Allow ``limit`` runs at once; return the waiters that may run now.

        A limit below what runs takes nobody's permit away.
        """
        self._limit = limit
        return self._promote()

    def close(self) -> None:
        """Grant nothing until the next :meth:`open`; waiters keep waiting."""
        self._limit = 0

    def ask(
        self, key: K, *, now: float = 0.0, priority: int = 0, may_wait: bool = True
    ) -> Admission:
        """Ask for a permit under ``key``, which must be new.

        Args:
            key: what the permit is known by.
            now: monotonic seconds.
            priority: higher goes first.
            may_wait: False refuses instead of queueing.
        """
        if key in self._running or key in self._waiting:
            raise ValueError(f"{key!r} has asked already")
        if len(self._running) < self._limit and not self._waiting:
            self._running.add(key)
            return Admission.GRANTED
        if not may_wait or len(self._waiting) >= self._max_queue:
            return Admission.REFUSED
        self._asked += 1
        self._waiting[key] = self._asked
        rank = now - priority * self._aging_s
        heapq.heappush(self._heap, (rank, self._asked, key))
        return Admission.QUEUED

    def leave(self, key: K) -> list[K]:
        """Give back ``key``'s permit or place; return the waiters that may run.

        A key that is not here (any more) changes nothing, so that a release
        and a crash report of the same request do not free two permits.
        """
        self._running.discard(key)
        if self._waiting.pop(key, None) is not None:
            self._compact()
        return self._promote()

    def _compact(self) -> None:
        if len(self._heap) - len(self._waiting) > _MAX_GONE + len(self._waiting):
            self._heap = [e for e in self._heap if self._waiting.get(e[2]) == e[1]]
            heapq.heapify(self._heap)

    def _promote(self) -> list[K]:
        promoted = []
        while self._waiting and len(self._running) < self._limit:
            _, asked, key = heapq.heappop(self._heap)
            if self._waiting.get(key) != asked:
                continue  # it has left
            del self._waiting[key]
            self._running.add(key)
            promoted.append(key)
        return promoted
