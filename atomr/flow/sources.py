"""Where events come from: iterables, async iterables, channels, a clock."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class IterableStage(Generic[T]):
    """Takes events from an iterator as they are asked for, never more."""

    def __init__(self, iterable: Iterable[T]) -> None:
        self._iterator = iter(iterable)
        self._failure: Exception | None = None

    async def pull(self, demand: int) -> Sequence[T]:
        """Return the next events; lets other tasks run first."""
        await trio.lowlevel.checkpoint()
        if self._failure is not None:
            raise self._failure
        events: list[T] = []
        try:
            for event in islice(self._iterator, demand):
                events.append(event)  # noqa: PERF402 - those before an error stay
        except Exception as error:
            if not events:
                raise
            self._failure = error
        return events

    async def close(self) -> None:
        """Close a generator."""
        close = getattr(self._iterator, "close", None)
        if close is not None and hasattr(self._iterator, "gi_frame"):
            close()


class AsyncIterableStage(Generic[T]):
    """Takes one event at a time: nobody can tell whether the next one is there."""

    def __init__(self, made: AsyncIterable[T] | Callable[[], AsyncIterable[T]]) -> None:
        iterable = made if isinstance(made, AsyncIterable) else made()
        self._iterator: AsyncIterator[T] = aiter(iterable)

    async def pull(self, demand: int) -> Sequence[T]:
        """Return the next event."""
        try:
            return (await anext(self._iterator),)
        except StopAsyncIteration:
            return ()

    async def close(self) -> None:
        """Close an async generator, whose ``finally`` runs here."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class ChannelStage(Generic[T]):
    """Takes what is in a channel; leaves the channel open, which is its user's."""

    def __init__(self, channel: trio.MemoryReceiveChannel[T]) -> None:
        self._channel = channel

    async def pull(self, demand: int) -> Sequence[T]:
        """Wait for one event, and take those that are there besides."""
        try:
            events = [await self._channel.receive()]
        except trio.EndOfChannel:
            return ()
        try:
            while len(events) < demand:
                events.append(self._channel.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass  # the end is said again by the next receive
        return events

    async def close(self) -> None:
        """Leave the channel as it is."""


class TickStage:
    """Counts the ticks of a clock; those that nobody was there for are left out."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._began_at = trio.current_time()
        self._last = -1

    async def pull(self, demand: int) -> Sequence[int]:
        """Wait for the next tick, or return at once the last one that was missed."""
        passed_s = trio.current_time() - self._began_at
        # A sum of floats may be a hair below the tick that it has reached.
        now = math.floor(passed_s / self._every_s + 1e-9)
        self._last = max(now, self._last + 1)
        await trio.sleep_until(self._began_at + self._last * self._every_s)
        return (self._last,)

    async def close(self) -> None:
        """Nothing is open."""
