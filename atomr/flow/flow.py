"""A flow as it is described: a source, and what is done with its events.

A :class:`Flow` is a value: each method returns another one, and nothing runs.  It
runs when its events are asked for, by :meth:`Flow.open` or one of the sinks; each run
has stages, states and tasks of its own, which are gone when the run is.

Everything is driven by demand: a sink asks for at most ``max_demand`` events, each
stage asks the one before it for no more than it can use, and no source is ever asked
for an event that nobody wants (see ``stage``).

Source: Elixir's ``GenStage`` and ``Flow``.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

import trio

from atomr.core.checks import (
    check_async,
    check_count,
    check_member,
    check_plain,
    check_seconds,
)
from atomr.core.exits import unwrap
from atomr.core.intensity import RestartIntensity
from atomr.flow import steps
from atomr.flow.buffer import BatchWithin, Buffer, WhenFull
from atomr.flow.concurrent import AsyncMap, AsyncStep, ConcurrentMap
from atomr.flow.fan import Dispatcher, Merge
from atomr.flow.inline import Batch, Fused, Restarted, Take, Throttle, Until
from atomr.flow.opening import InBranch, Opening, opened
from atomr.flow.retry import NEVER
from atomr.flow.steps import OnError, Step
from atomr.flow.stream import Stream

if TYPE_CHECKING:
    from atomr.flow.kill_switch import KillSwitch
    from atomr.flow.retry import Retry
    from atomr.flow.stage import OpenStage, Stage

T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S")

MAX_DEMAND = 64
"""Events that a sink asks for at a time: enough that asking costs little."""

AHEAD = 16
"""Events that a merge or a branch holds ready."""

Branch: TypeAlias = "Callable[[Flow[T]], Flow[U]]"
_Plain: TypeAlias = Callable[[object], object]

_USE_ASYNC = "use map_async"


class Flow(Generic[T]):
    """Events of one type, from their source on; made by the functions below."""

    def __init__(self, source: OpenStage[T], fused: tuple[Step, ...] = ()) -> None:
        self._source = source
        self._fused = fused

    # --- one event after the other --------------------------------------------------

    def map(self, fn: Callable[[T], U], *, on_error: OnError = OnError.FAIL) -> Flow[U]:
        """Put ``fn(event)`` in the place of each event."""
        check_plain("map", fn, _USE_ASYNC)
        return self._then(steps.map_step(cast("_Plain", fn), on_error))

    def tap(
        self, fn: Callable[[T], object], *, on_error: OnError = OnError.FAIL
    ) -> Flow[T]:
        """Show each event to ``fn``, and pass it on."""
        check_plain("tap", fn, _USE_ASYNC)
        return self._then(steps.tap_step(cast("_Plain", fn), on_error))

    def filter(
        self, wanted: Callable[[T], object], *, on_error: OnError = OnError.FAIL
    ) -> Flow[T]:
        """Pass on the events for which ``wanted(event)`` is true."""
        check_plain("filter", wanted, _USE_ASYNC)
        return self._then(steps.filter_step(cast("_Plain", wanted), on_error))

    def flat_map(
        self, fn: Callable[[T], Iterable[U]], *, on_error: OnError = OnError.FAIL
    ) -> Flow[U]:
        """Pass on each of the events of ``fn(event)``, which must be finite."""
        check_plain("flat_map", fn, _USE_ASYNC)
        made = cast("Callable[[object], Iterable[object]]", fn)
        return self._then(steps.flat_map_step(made, on_error))

    def scan(
        self, initial: S, fn: Callable[[S, T], S], *, on_error: OnError = OnError.FAIL
    ) -> Flow[S]:
        """Fold the events, and pass on the state after each.

        Args:
            initial: the state before the first event; not changed.
            fn: returns the next state from a state and an event.
            on_error: what becomes of an error; the state stays what it was.
        """
        check_plain("scan", fn, _USE_ASYNC)
        folded = cast("Callable[[object, object], object]", fn)
        return self._then(steps.scan_step(initial, folded, on_error))

    def map_async(
        self,
        fn: Callable[[T], Awaitable[U]],
        *,
        concurrency: int = 1,
        ordered: bool = True,
        retry: Retry = NEVER,
        on_error: OnError = OnError.FAIL,
    ) -> Flow[U]:
        """Put ``await fn(event)`` in the place of each event.

        Args:
            fn: an async function.
            concurrency: calls at a time; 1 needs no further task.
            ordered: False passes each result on as soon as it is there.
            retry: how often an event is tried.
            on_error: what becomes of the last error.
        """
        check_async("map_async", fn)
        check_count("concurrency", concurrency, least=1)
        step = AsyncStep(fn, retry, on_error)
        if concurrency == 1:
            return Flow(lambda nursery: AsyncMap(self.opened(nursery), step))
        return Flow(
            lambda nursery: ConcurrentMap(
                self.opened(nursery), step, concurrency=concurrency, ordered=ordered
            ).start(nursery)
        )

    # --- how many, when -------------------------------------------------------------

    def take(self, count: int) -> Flow[T]:
        """Pass on the first events, ask for no more, and be over."""
        check_count("count", count)
        return Flow(lambda nursery: Take(self.opened(nursery), count))

    def batch(self, size: int, *, within_s: float | None = None) -> Flow[tuple[T, ...]]:
        """Put events together.

        Args:
            size: events in a batch; the last one may have less.
            within_s: how long its first event waits for the others; None: until
                the batch is full.
        """
        check_count("size", size, least=1)
        if within_s is None:
            return Flow(lambda nursery: Batch(self.opened(nursery), size))
        age_s = within_s
        check_seconds("within_s", age_s, zero=False)
        return Flow(
            lambda nursery: BatchWithin(
                Buffer(self.opened(nursery), size).start(nursery), size, age_s
            )
        )

    def throttle(self, per_s: float, *, burst: int = 1) -> Flow[T]:
        """Let so many events pass in a second, by a bucket of permits.

        Args:
            per_s: permits that come back in a second.
            burst: permits that the bucket holds, and has at the start.
        """
        check_seconds("per_s", per_s, zero=False)
        check_count("burst", burst, least=1)
        return Flow(lambda nursery: Throttle(self.opened(nursery), per_s, burst))

    def buffer(
        self, size: int, *, when_full: WhenFull = WhenFull.BACKPRESSURE
    ) -> Flow[T]:
        """Work ahead in a task of its own, up to ``size`` events."""
        check_count("size", size, least=1)
        check_member("when_full", when_full, WhenFull)
        return Flow(
            lambda nursery: Buffer(self.opened(nursery), size, when_full).start(nursery)
        )

    # --- fan in, fan out ------------------------------------------------------------

    def merge(self, *others: Flow[T], ahead: int = AHEAD) -> Flow[T]:
        """Take the events of several flows as they come, in turn."""
        check_count("ahead", ahead, least=1)
        flows = (self, *others)
        return Flow(
            lambda nursery: Merge(
                [flow.opened(nursery) for flow in flows], ahead
            ).start(nursery)
        )

    def broadcast(self, *branches: Branch[T, U], ahead: int = AHEAD) -> Flow[U]:
        """Give every event to every branch, and merge what comes of them.

        Args:
            branches: each makes a flow from the flow of the events.
            ahead: events that a branch may be behind the fastest one.
        """
        return self._fan_out(branches, ahead, None)

    def partition(
        self, by: Callable[[T], int], *branches: Branch[T, U], ahead: int = AHEAD
    ) -> Flow[U]:
        """Give each event to one branch, and merge what comes of them.

        Args:
            by: returns the branch's number, from 0.
            branches: each makes a flow from the flow of its events.
            ahead: events that may wait for a branch before all others wait, too.
        """
        check_plain("partition", by, "decide in a map_async before")
        return self._fan_out(branches, ahead, by)

    # --- how it ends ----------------------------------------------------------------

    def until(self, switch: KillSwitch) -> Flow[T]:
        """End when the switch is used."""
        return Flow(lambda nursery: Until(self.opened(nursery), switch))

    def restarted(
        self, max_restarts: int = 3, max_seconds: float = 5.0, *, backoff_s: float = 0.0
    ) -> Flow[T]:
        """Open everything before this anew when it fails.

        An iterable begins again, a channel goes on with its next event.  What was on
        its way between the source and here is lost, and so are the states.

        Args:
            max_restarts: restarts allowed inside the window.
            max_seconds: the window's length.
            backoff_s: the wait before each.
        """
        intensity = RestartIntensity(max_restarts, max_seconds)
        check_seconds("backoff_s", backoff_s)
        return Flow(
            lambda nursery: Restarted(nursery, self.opened, intensity, backoff_s)
        )

    # --- running it -----------------------------------------------------------------

    @asynccontextmanager
    async def open(self, *, max_demand: int = MAX_DEMAND) -> AsyncIterator[Stream[T]]:
        """Run it for the length of the block, and hand its events out.

        Args:
            max_demand: events that the stream asks for at a time.

        Raises:
            Exception: what a stage, or the block, raises.

        Cancellation: cancels every stage; all tasks have ended behind the block.
        """
        check_count("max_demand", max_demand, least=1)
        raised: Exception | None = None
        async with trio.open_nursery() as nursery:
            opening = Opening(nursery)
            stage: Stage[T] | None = None
            try:
                stage = opening.open(self.opened)
                yield Stream(stage, max_demand)
            except Exception as error:  # noqa: BLE001 - raised again, not in a group
                raised = error
            finally:
                try:
                    await (opening if stage is None else stage).close()
                except Exception as error:  # noqa: BLE001 - raised again below
                    raised = raised or error
                nursery.cancel_scope.cancel()
        if raised is not None:
            try:
                raise unwrap(raised)
            finally:
                raised = None  # it holds this frame

    async def drain(self, *, max_demand: int = MAX_DEMAND) -> int:
        """Run it to its end; return how many events there were."""
        count = 0
        async with self.open(max_demand=max_demand) as stream:
            while events := await stream.pull(max_demand):
                count += len(events)
        return count

    async def collect(self, *, max_demand: int = MAX_DEMAND) -> list[T]:
        """Run it to its end; return its events."""
        found: list[T] = []
        async with self.open(max_demand=max_demand) as stream:
            while events := await stream.pull(max_demand):
                found += events
        return found

    async def fold(
        self, initial: S, fn: Callable[[S, T], S], *, max_demand: int = MAX_DEMAND
    ) -> S:
        """Run it to its end; return the last state of ``state = fn(state, event)``."""
        state = initial
        async with self.open(max_demand=max_demand) as stream:
            while events := await stream.pull(max_demand):
                for event in events:
                    state = fn(state, event)
        return state

    async def send_to(self, channel: trio.MemorySendChannel[T]) -> None:
        """Run it to its end into a channel, which stays open; no event waits twice."""
        async with self.open(max_demand=1) as stream:
            async for event in stream:
                await channel.send(event)

    # --- inside ---------------------------------------------------------------------

    def _then(self, step: Step) -> Flow[U]:
        """Return the flow with a step more; its type is the caller's promise."""
        source = cast("OpenStage[U]", self._source)
        return Flow(source, (*self._fused, step))

    def opened(self, nursery: trio.Nursery) -> Stage[T]:
        """Start its stages for one run, and return the last one; close it."""
        stage = opened(self._source, nursery)
        if not self._fused:
            return stage
        return cast("Stage[T]", Fused(stage, self._fused))

    def _fan_out(
        self,
        branches: Sequence[Branch[T, U]],
        ahead: int,
        by: Callable[[T], int] | None,
    ) -> Flow[U]:
        check_count("branches", len(branches), least=1)
        check_count("ahead", ahead, least=1)

        def open_branches(nursery: trio.Nursery) -> Stage[U]:
            dispatcher = Dispatcher(self.opened(nursery), len(branches), ahead, by)
            dispatcher.start(nursery)
            flows = [
                branch(Flow(outlet.open))
                for branch, outlet in zip(branches, dispatcher.outlets, strict=True)
            ]
            inside = [InBranch(nursery, outlet) for outlet in dispatcher.outlets]
            stages = [
                each.opened(cast("trio.Nursery", branch))
                for each, branch in zip(flows, inside, strict=True)
            ]
            merged = Merge(stages, ahead).start(nursery)
            dispatcher.forget_unopened()
            return merged

        return Flow(open_branches)
