"""Who runs and who waits on one replica: permits, and a bounded queue.

The higher priority goes first.  Within a priority the queue is fair between tenants,
by their weights and by what their requests cost (:mod:`.fair_share`), and in order
within one.  Between priorities those are compared whose turn it is: a waiter gains a
step of priority each time that it has waited for ``aging_s``, so that nobody waits for
ever.  All grow at the same pace, so the order of two waiters never changes.

A queue that is full has room for who comes with a higher priority, or for a tenant
that has less waiting than another: the last one of whom has most makes room
(:meth:`AdmissionQueue.displace`).  Who runs is never stopped for anybody.

The queue is a value machine: each call returns what happened, and the engine
core performs it.

Pure: ``now`` is an argument.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

import attrs

from atomr_infer.policy.tenants.fair_share import NOBODY, FairShare, Shares

K = TypeVar("K", bound=Hashable)


class Admission(Enum):
    """What became of a request for a permit."""

    GRANTED = "granted"
    QUEUED = "queued"
    REFUSED = "refused"


@attrs.frozen
class Claim:
    """Whose turn a request takes, where it must wait.

    Attributes:
        shares: its tenant, from the top down, with weights.
        cost: what its turn costs, above 0: tokens.
    """

    shares: Shares = NOBODY
    cost: float = 1.0


UNCLAIMED = Claim()
"""Of nobody's requests."""


@attrs.frozen
class _Place:
    """Where a waiter stands.

    Attributes:
        priority: that it came with.
        rank: when it came, less what its priority is worth; then in which order.
    """

    priority: int
    rank: tuple[float, int]


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
        self._waiting: dict[K, _Place] = {}
        self._levels: dict[int, FairShare[K]] = {}
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
        self,
        key: K,
        *,
        now: float = 0.0,
        priority: int = 0,
        may_wait: bool = True,
        claim: Claim = UNCLAIMED,
    ) -> Admission:
        """Ask for a permit under ``key``, which must be new.

        Args:
            key: what the permit is known by.
            now: monotonic seconds.
            priority: higher goes first.
            may_wait: False refuses instead of queueing.
            claim: whose turn it takes where it must wait.
        """
        if key in self._running or key in self._waiting:
            raise ValueError(f"{key!r} has asked already")
        if len(self._running) < self._limit and not self._waiting:
            self._running.add(key)
            return Admission.GRANTED
        if not may_wait or len(self._waiting) >= self._max_queue:
            return Admission.REFUSED
        self._asked += 1
        rank = self._rank(now, priority), self._asked
        self._waiting[key] = _Place(priority, rank)
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = FairShare()
        level.push(key, claim.shares, claim.cost)
        return Admission.QUEUED

    def displace(
        self, *, now: float = 0.0, priority: int = 0, claim: Claim = UNCLAIMED
    ) -> K | None:
        """Let a waiter go, that a request which was refused can wait in its place.

        Args:
            now: monotonic seconds.
            priority: the newcomer's.
            claim: the newcomer's.

        Returns:
            Who waits no more; None: everybody has more of a right to wait.
        """
        if len(self._waiting) < self._max_queue:
            return None
        for level in sorted(self._levels):
            waiting = self._levels[level]
            if level > priority:
                return None
            last: K | None
            if level == priority:
                last = waiting.least_served(claim.shares)
            else:
                last = waiting.last()
                if self._waiting[last].rank[0] <= self._rank(now, priority):
                    last = None  # it has waited so long that it goes before
            if last is not None:
                self._take(last)
                return last
        return None

    def leave(self, key: K) -> list[K]:
        """Give back ``key``'s permit or place; return the waiters that may run.

        A key that is not here (any more) changes nothing, so that a release
        and a crash report of the same request do not free two permits.
        """
        self._running.discard(key)
        if key in self._waiting:
            self._take(key)
        return self._promote()

    def charge(self, claim: Claim, *, cost: float, priority: int = 0) -> None:
        """Make a tenant pay what a turn has cost in the place of what was thought.

        Args:
            claim: with what the turn was asked for.
            cost: what it has cost.
            priority: with which it was asked for.
        """
        level = self._levels.get(priority)
        if level is not None:
            level.charge(claim.shares, cost - claim.cost)

    def _rank(self, now: float, priority: int) -> float:
        return now - priority * self._aging_s

    def _take(self, key: K) -> None:
        """Let a waiter wait no more."""
        level = self._waiting.pop(key).priority
        waiting = self._levels[level]
        waiting.remove(key)
        if not waiting:
            del self._levels[level]

    def _promote(self) -> list[K]:
        promoted = []
        while self._waiting and len(self._running) < self._limit:
            level = self._next()
            waiting = self._levels[level]
            key = waiting.pop()
            if not waiting:
                del self._levels[level]
            del self._waiting[key]
            self._running.add(key)
            promoted.append(key)
        return promoted

    def _next(self) -> int:
        """Return the priority from which the next one comes; somebody waits."""
        if len(self._levels) == 1:
            return next(iter(self._levels))
        ranks = {
            level: self._waiting[waiting.head()].rank
            for level, waiting in self._levels.items()
        }
        return min(ranks, key=ranks.__getitem__)
