"""A stage with a task of its own that works ahead of its consumer, up to a bound.

Its task asks the stage before it for as many events as there is room for, so the
bound holds for what is asked for, and not only for what is kept.  An error, or the
end, comes behind the events before it.

A waiting :meth:`Buffer.pull` that is cancelled loses nothing.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from atomr import telemetry
from atomr.errors import BufferFullError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.flow.stage import Stage

T = TypeVar("T")


class WhenFull(Enum):
    """What happens to an event for a full buffer."""

    BACKPRESSURE = "backpressure"
    """it is not asked for: the stages before wait"""
    DROP_NEW = "drop_new"
    """it is dropped"""
    DROP_OLD = "drop_old"
    """the one that has waited longest is dropped"""
    FAIL = "fail"
    """the flow fails with ``BufferFullError``, behind what the buffer holds"""


class Buffer(Generic[T]):
    """Events between the task that makes them and the one that takes them.

    Attributes:
        arrived: where consumers wait; several buffers may share one.
        filled_at: when it was last empty, and became it no longer.
    """

    def __init__(
        self,
        upstream: Stage[T],
        size: int,
        when_full: WhenFull = WhenFull.BACKPRESSURE,
        *,
        arrived: trio.lowlevel.ParkingLot | None = None,
    ) -> None:
        self._upstream = upstream
        self._size = size
        self._when_full = when_full
        self._events: deque[T] = deque()
        self._room = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._failure: Exception | None = None
        self._not_closed: Exception | None = None
        self.arrived = trio.lowlevel.ParkingLot() if arrived is None else arrived
        self.filled_at = 0.0

    def start(self, nursery: trio.Nursery) -> Buffer[T]:
        """Start its task; return the buffer."""
        nursery.start_soon(self._run)
        return self

    # --- its consumer -------------------------------------------------------------

    @property
    def size(self) -> int:
        """Events that wait."""
        return len(self._events)

    @property
    def over(self) -> bool:
        """True when nothing more will come; events may still wait."""
        return self._ended.is_set()

    async def pull(self, demand: int) -> Sequence[T]:
        """Return events that are there, or wait for one."""
        while not self._events and not self.over:
            await self.arrived.park()
        return self.take(demand)

    def take(self, demand: int) -> Sequence[T]:
        """Return events that are there.

        Raises:
            Exception: there are none, and the stage before it has failed.
        """
        events = self._events
        if not events:
            if self._failure is not None:
                raise self._failure
            return ()
        if demand >= len(events):
            taken = list(events)
            events.clear()
        else:
            taken = [events.popleft() for _ in range(demand)]
        self.filled_at = trio.current_time()
        self._room.unpark_all()
        return taken

    async def close(self) -> None:
        """End its task, and wait for that.

        Raises:
            Exception: what closing the stage before it has raised.
        """
        self._scope.cancel()
        # Who closes it may be cancelled itself, as the task of a stage behind it is
        # by its own close; the task here is cancelled, so it ends.
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        if self._not_closed is not None:
            raise self._not_closed

    # --- its task -----------------------------------------------------------------

    async def _run(self) -> None:
        try:
            with self._scope:
                try:
                    await self._fill()
                except Exception as error:  # noqa: BLE001 - its consumer gets it
                    self._failure = error
                finally:
                    await self._upstream.close()
        except Exception as error:  # noqa: BLE001 - raised by closing: its consumer's
            self._not_closed = error
            self._failure = self._failure or error
        finally:
            self._ended.set()
            self.arrived.unpark_all()

    async def _fill(self) -> None:
        while True:
            room = await self._room_for()
            events = await self._upstream.pull(room)
            if not events:
                return
            self._put(events)

    async def _room_for(self) -> int:
        """Return how many events are asked for, when there is room for one."""
        if self._when_full is not WhenFull.BACKPRESSURE:
            return self._size
        while len(self._events) >= self._size:
            await self._room.park()
        return self._size - len(self._events)

    def _put(self, events: Sequence[T]) -> None:
        if not self._events:
            self.filled_at = trio.current_time()
        room = self._size - len(self._events)
        beyond = len(events) - room
        if beyond > 0:
            self._overflow(events, room, beyond)
        else:
            self._events.extend(events)
        self.arrived.unpark_all()

    def _overflow(self, events: Sequence[T], room: int, beyond: int) -> None:
        """Deal with more events than there is room for."""
        if self._when_full is WhenFull.DROP_OLD:
            self._events.extend(events)
            for _ in range(beyond):
                self._events.popleft()
        else:
            self._events.extend(events[:room])
        if self._when_full is WhenFull.FAIL:
            raise BufferFullError(self._size)
        telemetry.emit(
            ("atomr", "flow", "drop"), {"events": beyond}, {"size": self._size}
        )


class BatchWithin(Generic[T]):
    """Batches that are full, or as old as they may be."""

    def __init__(self, buffer: Buffer[T], size: int, within_s: float) -> None:
        self._buffer = buffer
        self._size = size
        self._within_s = within_s

    async def pull(self, demand: int) -> Sequence[tuple[T, ...]]:
        """Return one batch: full, or ``within_s`` after its first event was there."""
        buffer = self._buffer
        while not buffer.size and not buffer.over:
            await buffer.arrived.park()
        with trio.CancelScope(deadline=buffer.filled_at + self._within_s):
            while buffer.size < self._size and not buffer.over:
                await buffer.arrived.park()
        batch = tuple(buffer.take(self._size))
        return (batch,) if batch else ()

    async def close(self) -> None:
        """Close the buffer."""
        await self._buffer.close()
