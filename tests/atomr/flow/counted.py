"""A source that counts what is asked of it, for assertions on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio


class Counted:
    """A source of the numbers below ``count`` that gives all that is asked for.

    Attributes:
        asked: the demand of each pull.
        given: how many numbers are out.
        opened: how many runs there were.
        closed: how often it was closed.
    """

    def __init__(self, count: int = 1_000_000) -> None:
        self.count = count
        self.asked: list[int] = []
        self.given = 0
        self.opened = 0
        self.closed = 0

    def flow(self) -> Flow[int]:
        return Flow(self._open)

    def _open(self, nursery: trio.Nursery) -> Counted:
        del nursery
        self.opened += 1
        return self

    async def pull(self, demand: int) -> Sequence[int]:
        assert demand > 0
        self.asked.append(demand)
        first = self.given
        self.given = min(first + demand, self.count)
        return range(first, self.given)

    async def close(self) -> None:
        self.closed += 1
