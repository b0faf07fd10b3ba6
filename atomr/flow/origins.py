"""Flows that begin: of an iterable, an async iterable, a channel, a clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from atomr.core.checks import check_seconds
from atomr.flow.flow import AHEAD, Flow
from atomr.flow.sources import (
    AsyncIterableStage,
    ChannelStage,
    IterableStage,
    TickStage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    import trio

T = TypeVar("T")


def from_iterable(iterable: Iterable[T]) -> Flow[T]:
    """Return a flow of the events of an iterable, from its beginning in each run."""
    return Flow(lambda _: IterableStage(iterable))


def from_async_iterable(
    made: AsyncIterable[T] | Callable[[], AsyncIterable[T]],
) -> Flow[T]:
    """Return a flow of the events of an async iterable.

    Args:
        made: the iterable, or a function that makes one for each run.
    """
    return Flow(lambda _: AsyncIterableStage(made))


def from_channel(channel: trio.MemoryReceiveChannel[T]) -> Flow[T]:
    """Return a flow of what comes out of a channel; the channel stays open."""
    return Flow(lambda _: ChannelStage(channel))


def tick(every_s: float) -> Flow[int]:
    """Return a flow of the numbers of a clock's ticks, from 0 and without end.

    Ticks that pass while nobody asks are left out.
    """
    check_seconds("every_s", every_s, zero=False)
    return Flow(lambda _: TickStage(every_s))


def merge(first: Flow[T], *others: Flow[T], ahead: int = AHEAD) -> Flow[T]:
    """Return a flow of the events of several, as they come, in turn.

    Args:
        first: one of them.
        others: the others.
        ahead: events that are held ready of each.
    """
    return first.merge(*others, ahead=ahead)
