"""Who runs and who waits on one replica: permits, and a bounded queue.

First come, first served.  The queue is a value machine: each call returns
what happened, and the engine core performs it.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


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

    def __init__(self, *, max_queue: int) -> None:
        """Start closed, with no permits: :meth:`open` gives them.

        Args:
            max_queue: waiters allowed, at least 0.
        """
        self._limit = 0
        self._max_queue = max_queue
        self._running: set[K] = set()
        self._waiting: OrderedDict[K, None] = OrderedDict()

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

    def open(self, limit: int) -> list[K]:
        """Allow ``limit`` runs at once; return the waiters that may run now."""
        self._limit = limit
        return self._promote()

    def close(self) -> None:
        """Grant nothing until the next :meth:`open`; waiters keep waiting."""
        self._limit = 0

    def ask(self, key: K) -> Admission:
        """Ask for a permit under ``key``, which must be new."""
        if key in self._running or key in self._waiting:
            raise ValueError(f"{key!r} has asked already")
        if len(self._running) < self._limit and not self._waiting:
            self._running.add(key)
            return Admission.GRANTED
        if len(self._waiting) >= self._max_queue:
            return Admission.REFUSED
        self._waiting[key] = None
        return Admission.QUEUED

    def leave(self, key: K) -> list[K]:
        """Give back ``key``'s permit or place; return the waiters that may run.

        A key that is not here (any more) changes nothing, so that a release
        and a crash report of the same request do not free two permits.
        """
        self._running.discard(key)
        self._waiting.pop(key, None)
        return self._promote()

    def _promote(self) -> list[K]:
        promoted = []
        while self._waiting and len(self._running) < self._limit:
            key, _ = self._waiting.popitem(last=False)
            self._running.add(key)
            promoted.append(key)
        return promoted
