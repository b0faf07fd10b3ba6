"""A flow while it runs, as the task sees it that asks for its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from atomr.core.checks import check_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from atomr.flow.stage import Stage

T = TypeVar("T")


class Stream(Generic[T]):
    """A flow that runs: iterate over its events, or ask for some; not both."""

    def __init__(self, stage: Stage[T], max_demand: int) -> None:
        self._stage = stage
        self._max_demand = max_demand
        self._over = False
        self._ready: Iterator[T] = iter(())

    async def pull(self, demand: int) -> Sequence[T]:
        """Return at least one event and at most ``demand``; none when it is over.

        Raises:
            Exception: a stage has failed; the stream is over.

        Cancellation: may lose events that were on their way.
        """
        check_count("demand", demand, least=1)
        if self._over:
            return ()
        self._over = True  # unless this comes back with events
        events = await self._stage.pull(demand)
        self._over = not events
        return events

    def __aiter__(self) -> AsyncIterator[T]:
        """Hand out events one by one, asking for ``max_demand`` at a time."""
        return self

    async def __anext__(self) -> T:
        """Return the next event.

        Raises:
            StopAsyncIteration: the flow is over.
            Exception: a stage has failed.
        """
        for event in self._ready:
            return event
        try:
            self._ready = iter(await self.pull(self._max_demand))
        except StopAsyncIteration as error:
            # As from a generator (PEP 479): else the loop would end, and say nothing.
            raise RuntimeError("a stage raised StopAsyncIteration") from error
        for event in self._ready:
            return event
        raise StopAsyncIteration
