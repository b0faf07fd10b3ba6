"""Async functions on events: one at a time in place, or several in tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr.core.checks import name_of
from atomr.flow.retry import Retry
from atomr.flow.stage import Inline
from atomr.flow.steps import OnError, log_skipped, noted

if TYPE_CHECKING:
    from atomr.flow.stage import Stage

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen(eq=False)
class AsyncStep(Generic[T, U]):
    """An async function, and what becomes of its errors.

    Attributes:
        fn: what is called.
        retry: how often.
        on_error: what becomes of the last error.
    """

    fn: Callable[[T], Awaitable[U]]
    retry: Retry
    on_error: OnError

    @property
    def name(self) -> str:
        """What notes and log lines call it."""
        return f"map_async({name_of(self.fn)})"

    async def call(self, event: T) -> tuple[U, ...]:
        """Return what comes of an event; nothing when it is skipped.

        Raises:
            Exception: the last call's error.
        """
        failed = 0
        while True:
            try:
                return (await self.fn(event),)
            except Exception as error:
                failed += 1
                wait_s = self.retry.wait_s(error, failed=failed)
                if wait_s is None:
                    if self.on_error is OnError.FAIL:
                        noted(error, self.name)
                        raise
                    log_skipped(error, self.name)
                    return ()
            await trio.sleep(wait_s)


class AsyncMap(Inline[T], Generic[T, U]):
    """Calls the function in the task that asks: one event is under way."""

    def __init__(self, upstream: Stage[T], step: AsyncStep[T, U]) -> None:
        super().__init__(upstream)
        self._step = step

    async def pull(self, demand: int) -> Sequence[U]:
        """Return what comes of the next event."""
        while True:
            # One at a time: the next one is not asked for before this one is done.
            events = await self._upstream.pull(1)
            if not events:
                return ()
            made = await self._step.call(events[0])
            if made:
                return made


@attrs.define(eq=False)
class _Slot(Generic[U]):
    """One event under way."""

    done: bool = False
    made: tuple[U, ...] = ()
    error: Exception | None = None


class ConcurrentMap(Generic[T, U]):
    """Calls the function for several events at once.

    An event takes a place from when it is asked for until what comes of it is taken,
    so no more than ``concurrency`` are ever under way or waiting.
    """

    def __init__(
        self,
        upstream: Stage[T],
        step: AsyncStep[T, U],
        *,
        concurrency: int,
        ordered: bool,
    ) -> None:
        self._upstream = upstream
        self._step = step
        self._concurrency = concurrency
        self._ordered = ordered
        self._slots: deque[_Slot[U]] = deque()
        self._places = trio.Semaphore(concurrency)
        self._changed = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._over = False
        self._failure: Exception | None = None
        self._not_closed: Exception | None = None

    def start(self, nursery: trio.Nursery) -> ConcurrentMap[T, U]:
        """Start its task; return the stage."""
        nursery.start_soon(self._run)
        return self

    async def pull(self, demand: int) -> Sequence[U]:
        """Return what is done, up to the demand; wait for one."""
        while True:
            made = self._take(demand)
            if made:
                return made
            if self._over and not self._slots:
                if self._failure is not None:
                    raise self._failure
                return ()
            await self._changed.park()

    def _take(self, demand: int) -> list[U]:
        taken: list[U] = []
        while len(taken) < demand and self._slots and self._slots[0].done:
            slot = self._slots[0]
            if slot.error is not None:
                if taken:
                    break  # behind those before it
                raise slot.error
            self._slots.popleft()
            self._places.release()
            taken += slot.made
        return taken

    async def close(self) -> None:
        """Cancel the calls, and wait until they have ended.

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

    async def _run(self) -> None:
        try:
            with self._scope:
                try:
                    async with trio.open_nursery() as calls:
                        await self._feed(calls)
                finally:
                    await self._upstream.close()
        except Exception as error:  # noqa: BLE001 - raised by closing: its consumer's
            self._not_closed = error
            self._failure = self._failure or error
        finally:
            self._over = True
            self._ended.set()
            self._changed.unpark_all()

    async def _feed(self, calls: trio.Nursery) -> None:
        """Begin calls as there are places for them."""
        try:
            while True:
                await self._places.acquire()
                events = await self._upstream.pull(1)
                if not events:
                    return
                slot: _Slot[U] = _Slot()
                if self._ordered:
                    self._slots.append(slot)
                calls.start_soon(self._call, slot, events[0])
        except Exception as error:  # noqa: BLE001 - its consumer gets it
            self._failure = error

    async def _call(self, slot: _Slot[U], event: T) -> None:
        try:
            slot.made = await self._step.call(event)
        except Exception as error:  # noqa: BLE001 - its consumer gets it
            slot.error = error
        slot.done = True
        if not self._ordered:
            self._slots.append(slot)
        self._changed.unpark_all()
