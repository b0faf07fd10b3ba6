"""Which item of a stream may run next, and which result comes next.

A *window* of items is out of the input at any time: those that run, and those
whose results wait.  By what the stream promises:

==========  ============================  ====================================
ordered     running, at most              running and waiting, at most
==========  ============================  ====================================
False       ``max_concurrency``           ``max_concurrency``
True        ``max_concurrency``           ``2 * max_concurrency``
==========  ============================  ====================================

In order, a slow item must not stop the others at once, so as many results as
run may wait behind it; then no more input is taken.  (Elixir lets any number
wait; here memory has a bound.)  A consumer that takes no results fills the
window, and then no more input is taken either.

Pure.

Source: Elixir ``Task.async_stream``.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

V = TypeVar("V")


class StreamWindow(Generic[V]):
    """The bookkeeping of one stream of results.

    Args:
        max_concurrency: items that run at the same time, at least 1.
        ordered: whether results come in the order of the input.

    Attributes:
        running: items that run now.

    >>> window = StreamWindow[str](2, ordered=True)
    >>> window.pulled(), window.pulled(), window.may_pull
    (0, 1, False)
    >>> window.settle(1, "b"); window.ready, window.may_pull
    (False, True)
    >>> window.settle(0, "a"); window.take(), window.take()
    ('a', 'b')
    """

    __slots__ = (
        "_closed",
        "_in_order",
        "_in_turn",
        "_max",
        "_next",
        "_ordered",
        "_outside",
        "_pulled",
        "running",
    )

    def __init__(self, max_concurrency: int, *, ordered: bool) -> None:
        self.running = 0
        self._max = max_concurrency
        self._outside = max_concurrency * 2 if ordered else max_concurrency
        self._ordered = ordered
        self._closed = False
        self._pulled = 0
        self._next = 0
        self._in_order: dict[int, V] = {}
        self._in_turn: deque[V] = deque()

    @property
    def may_pull(self) -> bool:
        """Whether another item may be taken out of the input."""
        return (
            not self._closed
            and self.running < self._max
            and self.running + self.waiting < self._outside
        )

    @property
    def waiting(self) -> int:
        """Results that nobody has taken."""
        return len(self._in_order if self._ordered else self._in_turn)

    @property
    def ready(self) -> bool:
        """Whether there is a result to take."""
        if self._ordered:
            return self._next in self._in_order
        return bool(self._in_turn)

    @property
    def exhausted(self) -> bool:
        """Whether there is no result to come."""
        return self._closed and self.running == 0 and self.waiting == 0

    def close(self) -> None:
        """Note that the input has ended."""
        self._closed = True

    def pulled(self) -> int:
        """Note that an item runs; return its position in the input."""
        position = self._pulled
        self._pulled += 1
        self.running += 1
        return position

    def settle(self, position: int, result: V) -> None:
        """Note the result of the item at that position."""
        self.running -= 1
        if self._ordered:
            self._in_order[position] = result
        else:
            self._in_turn.append(result)

    def take(self) -> V:
        """Return the next result; only when :attr:`ready`."""
        if not self._ordered:
            return self._in_turn.popleft()
        result = self._in_order.pop(self._next)
        self._next += 1
        return result
