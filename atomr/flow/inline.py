"""Stages that need no task: they work in the task that asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from atomr.errors import BranchOpenedAgainError, FlowRestartsError
from atomr.flow.opening import Opening, Unopened, outlets_of, part_around
from atomr.flow.stage import Inline
from atomr.flow.steps import begin, log_restarted, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.core.intensity import RestartIntensity
    from atomr.flow.kill_switch import KillSwitch
    from atomr.flow.stage import OpenStage, Stage
    from atomr.flow.steps import Step

T = TypeVar("T")


class Fused(Inline[object]):
    """All adjacent steps as one stage.

    What a ``flat_map`` makes beyond the demand stays here until it is asked for.
    """

    def __init__(self, upstream: Stage[object], steps: tuple[Step, ...]) -> None:
        super().__init__(upstream)
        self._steps = begin(steps)
        self._made: Sequence[object] = ()
        self._given = 0
        self._failure: Exception | None = None

    async def pull(self, demand: int) -> Sequence[object]:
        """Return what comes of the next events."""
        while self._given == len(self._made):
            if self._failure is not None:
                raise self._failure
            events = await self._upstream.pull(demand)
            if not events:
                return ()
            self._made, self._failure = take(self._steps, events)
            self._given = 0
        made, given = self._made, self._given
        if not given and len(made) <= demand:
            self._made = ()
            return made
        self._given = min(given + demand, len(made))
        return made[given : self._given]


class Take(Inline[T]):
    """Asks for so many events in all, and is over."""

    def __init__(self, upstream: Stage[T], count: int) -> None:
        super().__init__(upstream)
        self._left = count
        self._failure: Exception | None = None

    async def pull(self, demand: int) -> Sequence[T]:
        """Return events until the count is reached; then close what is before."""
        if self._failure is not None:
            raise self._failure
        if not self._left:
            return ()
        events = await self._upstream.pull(min(demand, self._left))
        self._left = self._left - len(events) if events else 0
        if not self._left:
            try:
                await self._upstream.close()
            except Exception as error:
                if not events:
                    raise
                self._failure = error  # behind the events
        return events

    async def close(self) -> None:
        """Close the stage before it, or say why that failed."""
        await super().close()
        if self._failure is not None:
            raise self._failure


class Batch(Inline[T]):
    """Waits until a batch is full, or the flow is over."""

    def __init__(self, upstream: Stage[T], size: int) -> None:
        super().__init__(upstream)
        self._size = size
        self._over = False

    async def pull(self, demand: int) -> Sequence[tuple[T, ...]]:
        """Return one batch."""
        batch: list[T] = []
        while len(batch) < self._size and not self._over:
            events = await self._upstream.pull(self._size - len(batch))
            self._over = not events
            batch += events
        return (tuple(batch),) if batch else ()


class Throttle(Inline[T]):
    """A bucket of permits: each event takes one, and they come back in time."""

    def __init__(self, upstream: Stage[T], per_s: float, burst: int) -> None:
        super().__init__(upstream)
        self._per_s = per_s
        self._burst = burst
        self._permits = float(burst)
        self._counted_at = trio.current_time()

    async def pull(self, demand: int) -> Sequence[T]:
        """Wait for a permit, and return as many events as there are permits."""
        self._count()
        if self._permits < 1:
            await trio.sleep((1 - self._permits) / self._per_s)
            self._count()
            # What was slept for is there, whatever the floats say.
            self._permits = max(self._permits, 1.0)
        events = await self._upstream.pull(min(demand, int(self._permits)))
        self._count()
        self._permits -= len(events)
        return events

    def _count(self) -> None:
        now = trio.current_time()
        gained = (now - self._counted_at) * self._per_s
        self._permits = min(self._permits + gained, float(self._burst))
        self._counted_at = now


class Until(Inline[T]):
    """Passes events on until a switch says that it is over."""

    def __init__(self, upstream: Stage[T], switch: KillSwitch) -> None:
        super().__init__(upstream)
        self._switch = switch

    async def pull(self, demand: int) -> Sequence[T]:
        """Return the next events; none when the switch was used meanwhile."""
        events: Sequence[T] = ()
        try:
            if not self._switch.used:
                with self._switch.stopping():
                    events = await self._upstream.pull(demand)
            if not events:
                await self._upstream.close()
        except Exception as error:
            # What was before it may fail of being stopped: that is no reason to end
            # with something else than was asked for.
            self._switch.raise_error(besides=error)
            raise
        if not events:
            self._switch.raise_error()
        return events


class Restarted(Inline[T]):
    """Opens what is before it anew when it fails."""

    def __init__(
        self,
        nursery: trio.Nursery,
        open_stage: OpenStage[T],
        intensity: RestartIntensity,
        backoff_s: float,
    ) -> None:
        self._nursery = nursery
        self._open = open_stage
        self._outlets = outlets_of(nursery)
        self._around = part_around(nursery)
        self._is_over = False
        super().__init__(self._opened())
        self._intensity = intensity
        self._backoff_s = backoff_s

    async def pull(self, demand: int) -> Sequence[T]:
        """Return the next events of the stage that runs now."""
        while True:
            try:
                return await self._upstream.pull(demand)
            except Exception as error:  # noqa: BLE001 - a supervisor's boundary
                await self._restart(error)

    async def _restart(self, error: Exception) -> None:
        """Close what failed, and open it anew, or give up."""
        intensity = self._intensity = self._intensity.record(trio.current_time())
        if intensity.exceeded:
            self._give_up()
        else:
            self.await_opening()
        try:
            await self._upstream.close()
        except Exception as closing:  # noqa: BLE001 - it is given up anyway
            if closing is not error:
                error.add_note(f"closing it raised {closing!r}")
        if intensity.exceeded:
            raise FlowRestartsError(
                intensity.max_restarts, intensity.max_seconds
            ) from error
        log_restarted(error)
        await trio.sleep(self._backoff_s)
        self._upstream = self._opened()

    def _opened(self) -> Stage[T]:
        """Open what is before it; that it cannot be opened is a failure of it."""
        opening = Opening(self._nursery, self)
        try:
            stage = opening.open(self._open)
        except BranchOpenedAgainError:
            self._stop_awaiting()
            raise  # it cannot be opened ever
        except Exception as error:  # noqa: BLE001 - a supervisor's boundary
            self.await_opening()
            return Unopened(error, opening)
        self._stop_awaiting()
        return stage

    def await_opening(self) -> None:
        """Keep what its branch is given, until it is open again, or over."""
        if not self._is_over:
            for outlet in self._outlets:
                outlet.await_opening(self)

    def _give_up(self) -> None:
        if self._around is not None:
            # That learns of it later, as when a buffer is between: when this one, and
            # what it began with, is closed already.
            self._around.await_opening()
        self._is_over = True
        self._stop_awaiting()

    def _stop_awaiting(self) -> None:
        for outlet in self._outlets:
            outlet.stop_awaiting(self)

    async def close(self) -> None:
        """Close the stage before it; it is opened no more."""
        self._is_over = True
        self._stop_awaiting()
        await super().close()
