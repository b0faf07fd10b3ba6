"""Several flows into one, and one flow into several."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from atomr.errors import BranchOpenedAgainError, NoBranchError
from atomr.flow.buffer import Buffer
from atomr.flow.steps import noted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr.flow.stage import Stage

T = TypeVar("T")


class Merge(Generic[T]):
    """Takes from several stages in turn what they have."""

    def __init__(self, upstreams: Sequence[Stage[T]], ahead: int) -> None:
        self._arrived = trio.lowlevel.ParkingLot()
        self._buffers = deque(
            Buffer(upstream, ahead, arrived=self._arrived) for upstream in upstreams
        )

    def start(self, nursery: trio.Nursery) -> Merge[T]:
        """Start a task for each stage; return the merge."""
        for buffer in self._buffers:
            buffer.start(nursery)
        return self

    async def pull(self, demand: int) -> Sequence[T]:
        """Return events of one of the stages, each in its turn."""
        while True:
            for _ in range(len(self._buffers)):
                buffer = self._buffers[0]
                self._buffers.rotate(-1)
                if buffer.size or buffer.over:
                    events = buffer.take(demand)
                    if events:
                        return events
            if all(buffer.over for buffer in self._buffers):
                return ()
            await self._arrived.park()

    async def close(self) -> None:
        """Close all of them; of several that fail in it, the first one is told."""
        failure: Exception | None = None
        for buffer in self._buffers:
            try:
                await buffer.close()
            except Exception as error:  # noqa: BLE001 - raised when all are closed
                failure = failure or error
        if failure is not None:
            raise failure


class Outlet(Generic[T]):
    """What one branch is given, and has not taken yet."""

    def __init__(self, dispatcher: Dispatcher[T]) -> None:
        self._dispatcher = dispatcher
        self.events: deque[T] = deque()
        self.arrived = trio.lowlevel.ParkingLot()
        self.opened = False
        self.closed = False
        self._has_given = False
        self._awaited_by: set[object] = set()

    @property
    def is_awaited(self) -> bool:
        """Whether a part of the branch is to be opened that may begin with it."""
        return bool(self._awaited_by)

    def await_opening(self, part: object) -> None:
        """Keep what is given: a part has failed, and is opened again."""
        self._awaited_by.add(part)

    def stop_awaiting(self, part: object) -> None:
        """Keep it no longer for a part: that is open, or given up."""
        if part in self._awaited_by:
            self._awaited_by.remove(part)
            self._dispatcher.forget_unopened()

    def open(self, nursery: trio.Nursery) -> Outlet[T]:
        """Return the outlet as its branch's first stage, once.

        Raises:
            BranchOpenedAgainError: it was opened before; or the branch was, without
                it, and nothing is kept for it.
        """
        if self.opened or self.closed:
            raise BranchOpenedAgainError
        self.opened = True
        return self

    async def pull(self, demand: int) -> Sequence[T]:
        """Return events that were given to the branch, or wait for one."""
        # The task of a part that could not be opened begins all the same: cancelled,
        # it takes nothing, which would be lost, and the outlet no more be its part's.
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.events:
            if self._dispatcher.over:
                self._dispatcher.raise_failure()
                return ()
            await self.arrived.park()
        self._has_given = True
        taken = [self.events.popleft() for _ in range(min(demand, len(self.events)))]
        self._dispatcher.room.unpark_all()
        return taken

    async def close(self) -> None:
        """Take no more; the last branch to say so closes what is before.

        It may be opened again where it has given nothing, and the part that it is the
        first stage of is tried again.
        """
        if self.is_awaited and not self._has_given:
            self.opened = False
            return
        self.closed = True
        self.events.clear()
        await self._dispatcher.left()


class Dispatcher(Generic[T]):
    """Gives each event to the branches that it is for.

    The branch with the least room sets the pace: no more is asked for than each of
    them could take.  A branch that is over is given nothing, and holds nobody back.
    """

    def __init__(
        self,
        upstream: Stage[T],
        branches: int,
        ahead: int,
        by: Callable[[T], int] | None,
    ) -> None:
        self._upstream = upstream
        self._ahead = ahead
        self._by = by
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._failure: Exception | None = None
        self._not_closed: Exception | None = None
        self.outlets = tuple(Outlet(self) for _ in range(branches))
        self.room = trio.lowlevel.ParkingLot()

    def start(self, nursery: trio.Nursery) -> Dispatcher[T]:
        """Start its task; return the dispatcher."""
        nursery.start_soon(self._run)
        return self

    @property
    def over(self) -> bool:
        """True when nothing more will be given."""
        return self._ended.is_set()

    def raise_failure(self) -> None:
        """Raise why it is over, when that is no ordinary end."""
        if self._failure is not None:
            raise self._failure

    def forget_unopened(self) -> None:
        """Give nothing to branches that do not begin with what they are given."""
        for outlet in self.outlets:
            outlet.closed |= not (outlet.opened or outlet.is_awaited)
        self.room.unpark_all()
        if all(outlet.closed for outlet in self.outlets):
            self._scope.cancel()

    async def left(self) -> None:
        """A branch takes no more: go on for the others, or stop.

        Raises:
            Exception: what closing the stage before it has raised.
        """
        self.room.unpark_all()
        if all(outlet.closed for outlet in self.outlets):
            self._scope.cancel()
            # Who says it may be cancelled itself, as a buffer's task is by its close.
            with trio.CancelScope(shield=True):
                await self._ended.wait()
            if self._not_closed is not None:
                raise self._not_closed

    async def _run(self) -> None:
        try:
            with self._scope:
                try:
                    await self._give()
                except Exception as error:  # noqa: BLE001 - the branches get it
                    self._failure = error
                finally:
                    await self._upstream.close()
        except Exception as error:  # noqa: BLE001 - raised by closing: the branches'
            self._not_closed = error
            self._failure = self._failure or error
        finally:
            self._ended.set()
            for outlet in self.outlets:
                outlet.arrived.unpark_all()

    async def _give(self) -> None:
        while True:
            events = await self._upstream.pull(await self._room_for_all())
            if not events:
                return
            if self._by is None:
                for outlet in self.outlets:
                    self._give_to(outlet, events)
            else:
                for event in events:
                    self._give_to(self._outlet_for(event), (event,))

    async def _room_for_all(self) -> int:
        while True:
            taken = [len(o.events) for o in self.outlets if not o.closed]
            room = self._ahead - max(taken, default=self._ahead)
            if room > 0:
                return room
            await self.room.park()

    def _outlet_for(self, event: T) -> Outlet[T]:
        assert self._by is not None, "only a partition asks"
        try:
            branch = self._by(event)
        except Exception as error:
            noted(error, "partition")
            raise
        if not 0 <= branch < len(self.outlets):
            raise NoBranchError(branch, len(self.outlets))
        return self.outlets[branch]

    def _give_to(self, outlet: Outlet[T], events: Sequence[T]) -> None:
        if not outlet.closed:
            outlet.events.extend(events)
            outlet.arrived.unpark_all()
