"""Whose turn it is: a queue that is fair between tenants, and in order within one.

Start-time fair queueing, in as many levels as tenants have: teams, and the keys of a
team.  Each tenant has a clock that says how much it was served, by its weight: who
is behind is next.  Who comes to a queue where others wait starts at the clock of
whoever was served last, so that nobody saves up turns while away, and nobody is made
to pay for a time when there was enough for all.

So of two tenants that always wait, each is served its share, whatever the other
asks for; and a single request of one waits behind at most one of each of the others,
and not behind all that they have queued.

Pure.

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", 1996; the levels are theirs.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import pairwise
from typing import Generic, TypeVar

import attrs

K = TypeVar("K", bound=Hashable)

Shares = tuple[tuple[str, float], ...]
"""Tenants from the top down, each with its weight."""

NOBODY: Shares = (("", 1.0),)
"""Who is no tenant; all of them together are one."""

# A heap keeps who has left until they come up; past this it is made anew.
_MAX_GONE = 64


@attrs.define(eq=False)
class _Tenant(Generic[K]):
    """A tenant beside its like, or the top of all.

    Attributes:
        weight: its share.
        start: where its clock stands for its next turn.
        finish: where it stood after the last one.
        turn: what its entry in the heap is known by; 0: it does not wait.
        size: how many of its requests wait.
        below: the tenants that it consists of; none: it consists of requests.
        waiting: the requests and what each costs, in order.
        heap: who of those below waits, by their clocks.
        ahead: those below whose clocks are kept though they do not wait.
        is_ahead: whether it is among them.
        now: the clock of who was served last.
    """

    weight: float = 1.0
    start: float = 0.0
    finish: float = 0.0
    turn: int = 0
    size: int = 0
    below: dict[str, _Tenant[K]] = attrs.field(factory=dict)
    waiting: dict[K, float] = attrs.field(factory=dict)
    heap: list[tuple[float, int, str]] = attrs.field(factory=list)
    ahead: list[tuple[float, str]] = attrs.field(factory=list)
    is_ahead: bool = False
    now: float = 0.0

    def next(self) -> _Tenant[K]:
        """Return whose turn it is of those below; one of them waits."""
        while True:
            if _waits(self, self.heap[0]):
                return self.below[self.heap[0][2]]
            heapq.heappop(self.heap)

    def largest(self) -> _Tenant[K]:
        """Return who of those below has most waiting, by weight."""
        return max(self.below.values(), key=lambda tenant: tenant.size / tenant.weight)


class FairShare(Generic[K]):
    """Requests that wait, each with its tenant.

    A tenant's weight is that of its latest request.
    """

    def __init__(self) -> None:
        self._top: _Tenant[K] = _Tenant()
        self._shares: dict[K, Shares] = {}
        self._turns = 0

    def __len__(self) -> int:
        return len(self._shares)

    def __contains__(self, key: object) -> bool:
        return key in self._shares

    def push(self, key: K, shares: Shares = NOBODY, cost: float = 1.0) -> None:
        """Let a request wait.

        Args:
            key: what it is known by; must be new.
            shares: whose it is.
            cost: what its turn costs, above 0.
        """
        if key in self._shares:
            raise ValueError(f"{key!r} waits already")
        self._shares[key] = shares
        above = self._top
        above.size += 1
        for name, weight in shares:
            tenant = above.below.get(name)
            if tenant is None:
                tenant = above.below[name] = _Tenant()
            tenant.weight = weight
            tenant.size += 1
            if not tenant.turn:
                self._enter(above, name, tenant)
            above = tenant
        above.waiting[key] = cost

    def head(self) -> K:
        """Return whose turn it is.

        Raises:
            IndexError: nobody waits.
        """
        tenant = self._top
        while tenant.heap:
            tenant = tenant.next()
        if not tenant.waiting:
            raise IndexError("nobody waits")
        return next(iter(tenant.waiting))

    def pop(self) -> K:
        """Serve whose turn it is, and return it.

        Raises:
            IndexError: nobody waits.
        """
        key = self.head()
        path = self._path(key)
        cost = path[-1].waiting[key]
        for above, tenant in pairwise(path):
            above.now = tenant.start
            tenant.finish = tenant.start + cost / tenant.weight
            tenant.turn = 0
        self._take(key, path)
        return key

    def charge(self, shares: Shares, more: float) -> None:
        """Make a tenant pay for what its turns cost beyond what was thought.

        While nobody waits there is nothing to pay with.

        Args:
            shares: whose turns they were.
            more: how much more they cost; less than 0: how much less.
        """
        above = self._top
        for name, weight in shares:
            if not above.size:
                return
            tenant = above.below.get(name)
            if tenant is None:
                # It was not ahead of who is served now; what it owes puts it there.
                tenant = above.below[name] = _Tenant(weight=weight, finish=above.now)
            tenant.finish = max(above.now, tenant.finish) + more / weight
            if tenant.turn:
                tenant.start = max(above.now, tenant.start + more / weight)
                self._turns += 1
                tenant.turn = self._turns
                heapq.heappush(above.heap, (tenant.start, tenant.turn, name))
            elif not tenant.is_ahead:
                _rest(above, name)
            _tidy(above)
            above = tenant

    def remove(self, key: K) -> bool:
        """Let a request wait no more; return whether it did."""
        if key not in self._shares:
            return False
        self._take(key, self._path(key))
        return True

    def least_served(self, shares: Shares) -> K | None:
        """Return who should wait no more, that a request of a tenant can instead.

        It is the last request of whoever has most of them waiting, by weight, and
        more than the newcomer would have; None: nobody has.
        """
        tenant = self._top
        for name, weight in shares:
            if not tenant.below:
                return None
            most = tenant.largest()
            own = tenant.below.get(name)
            if most is not own:
                waiting = 0 if own is None else own.size
                is_more = most.size / most.weight > (waiting + 1) / weight
                return _last(most) if is_more else None
            tenant = most
        return None

    def last(self) -> K:
        """Return the last request of whoever has most waiting, by weight.

        Raises:
            IndexError: nobody waits.
        """
        if not self._shares:
            raise IndexError("nobody waits")
        return _last(self._top)

    # --- inside -------------------------------------------------------------------

    def _path(self, key: K) -> list[_Tenant[K]]:
        path = [self._top]
        for name, _ in self._shares[key]:
            path.append(path[-1].below[name])
        return path

    def _take(self, key: K, path: list[_Tenant[K]]) -> None:
        """Take a request out, and let its tenants wait on, or not."""
        shares = self._shares.pop(key)
        del path[-1].waiting[key]
        for tenant in path:
            tenant.size -= 1
        steps = zip(path, path[1:], shares, strict=False)
        for above, tenant, (name, _) in steps:
            if not tenant.size:
                tenant.turn = 0
                if not tenant.is_ahead:
                    _rest(above, name)
            elif not tenant.turn:
                self._enter(above, name, tenant)
        for tenant in path:
            _tidy(tenant)

    def _enter(self, above: _Tenant[K], name: str, tenant: _Tenant[K]) -> None:
        """Let a tenant wait for its turn among its like."""
        tenant.start = max(above.now, tenant.finish)
        self._turns += 1
        tenant.turn = self._turns
        heapq.heappush(above.heap, (tenant.start, tenant.turn, name))


def _last(tenant: _Tenant[K]) -> K:
    while tenant.below:
        tenant = tenant.largest()
    return next(reversed(tenant.waiting))


def _tidy(tenant: _Tenant[K]) -> None:
    """Forget what makes no difference any more."""
    if not tenant.size:
        # Nobody waits: whoever comes next starts with everybody else.
        tenant.below.clear()
        tenant.heap.clear()
        tenant.ahead.clear()
        tenant.now = 0.0
        return
    while tenant.ahead and tenant.ahead[0][0] <= tenant.now:
        _, name = heapq.heappop(tenant.ahead)
        _rest(tenant, name)
    if len(tenant.heap) > _MAX_GONE + 2 * len(tenant.below):
        waiting = [e for e in tenant.heap if _waits(tenant, e)]
        tenant.heap = waiting
        heapq.heapify(tenant.heap)


def _rest(above: _Tenant[K], name: str) -> None:
    """Keep the clock of a tenant that waits for nothing while it is ahead of all."""
    tenant = above.below[name]
    tenant.is_ahead = False
    if tenant.turn:
        return
    if tenant.finish <= above.now:
        del above.below[name]
    else:
        tenant.is_ahead = True
        heapq.heappush(above.ahead, (tenant.finish, name))


def _waits(above: _Tenant[K], entry: tuple[float, int, str]) -> bool:
    _, turn, name = entry
    tenant = above.below.get(name)
    return tenant is not None and tenant.turn == turn
