"""A node's part in one limit: the permits that it gave, and those who wait for some.

Who is at the head is asked for first, and nobody overtakes it: a large request is not
starved by small ones.  Of those that are equally urgent, who came first goes first.

Pure.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import attrs

from atomr.gossip.escrow import Denied, Granted, Limit

_numbers = itertools.count()


@attrs.frozen(eq=False)
class Permits:
    """Permits that may be used, now; settle them when it is known how many were.

    Attributes:
        limit: its name.
        count: how many.
        at_s: since when they count as used.
    """

    limit: str
    count: int
    at_s: float = attrs.field(repr=False)
    granted: Granted = attrs.field(repr=False)
    part: Part = attrs.field(repr=False)


@attrs.define(eq=False)
class Waiter:
    """Somebody who waits.

    Attributes:
        permits: how many are wanted.
        priority: higher goes first.
        answer: called once, with what became of it.
        number: in the order of coming.
        is_over: whether it was answered, or has left.
    """

    permits: int
    priority: int
    answer: Callable[[Permits | Denied], None]
    number: int = attrs.field(factory=_numbers.__next__)
    is_over: bool = False


class Line:
    """The line in front of one limit.

    Attributes:
        heap: those that wait, and some that have left.
        asked: those for whom the home has been asked, by ticket.
        retry_s: when the head is tried again; infinite: not before something changes.
    """

    __slots__ = ("asked", "heap", "retry_s")

    def __init__(self) -> None:
        """Start empty."""
        self.heap: list[tuple[int, int, Waiter]] = []
        self.asked: dict[int, Waiter] = {}
        self.retry_s = float("inf")

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits; who has been asked for does."""
        self._drop_over()
        return not (self.heap or self.asked)

    def is_longer_than(self, most: int) -> bool:
        """Whether more than so many wait; those that left are counted out only then."""
        return len(self.heap) + len(self.asked) > most and self.length() > most

    def length(self) -> int:
        """Return how many wait."""
        waiting = [waiter for _, _, waiter in self.heap] + [*self.asked.values()]
        return sum(not waiter.is_over for waiter in waiting)

    def add(self, waiter: Waiter) -> None:
        """Let somebody wait, in its place."""
        heapq.heappush(self.heap, (-waiter.priority, waiter.number, waiter))

    def head(self) -> Waiter | None:
        """Return who is next; None: nobody, or the home is asked for all of them."""
        self._drop_over()
        return self.heap[0][2] if self.heap else None

    def take_head(self) -> None:
        """Take the head out."""
        heapq.heappop(self.heap)

    def all(self) -> list[Waiter]:
        """Return everybody, and empty the line."""
        waiting = [waiter for _, _, waiter in self.heap] + [*self.asked.values()]
        self.heap.clear()
        self.asked.clear()
        return [waiter for waiter in waiting if not waiter.is_over]

    def _drop_over(self) -> None:
        while self.heap and self.heap[0][2].is_over:
            heapq.heappop(self.heap)


@attrs.define
class Difference:
    """That another node has other terms for a limit.

    Attributes:
        since_s: since when; infinite: that was told.
        seen_s: when it was last seen.
    """

    since_s: float
    seen_s: float


@attrs.define(eq=False)
class Part:
    """This node's part in one limit; another one each time that it is added.

    Attributes:
        limit: its terms.
        line: who waits.
        differs: by the names of nodes that have other terms for it, or had them when
            they were last heard of.
        is_over: whether the limit was removed, or this life has ended.
    """

    limit: Limit
    line: Line = attrs.field(factory=Line)
    differs: dict[str, Difference] = attrs.field(factory=dict)
    is_over: bool = False
