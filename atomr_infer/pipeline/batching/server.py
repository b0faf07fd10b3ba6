"""`DynamicBatchingServer`: many small questions, asked together.

::

    async def work(texts: Sequence[str]) -> Sequence[Vector]:
        return await model.embed(texts)

    server = DynamicBatchingServer(work, BatchRules(max_batch=64))
    nursery.start_soon(server.run)
    vector = await server.ask("a text", size=2)

What goes together, and when, is decided in :mod:`.batching`.  Each batch is a task;
who asks waits for its own items only.  One who leaves takes with it what has not
begun, and a batch that all have left is cancelled.

A batch that fails in a way that one item may be to blame for is made again in halves,
until the one is alone: the others have their results.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import attrs
import trio

from atomr.core.child_spec import ChildSpec
from atomr.process import PlainProcess
from atomr_infer.errors import (
    InferenceError,
    InternalError,
    NotReadyError,
    OverloadedError,
)
from atomr_infer.pipeline.batching.queue import Batch, BatchQueue, BatchRules
from atomr_infer.serving.replicas.fresh_error import fresh

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]]
"""Returns a result, or an error, for each item; what it raises is every item's."""


def _nobody(_: Exception) -> bool:
    return False


@attrs.define(eq=False)
class _Asked(Generic[T, R]):
    """An item, and what came of it.

    Attributes:
        item: what is asked.
        ask: who asked.
        batch: that it is in; None: it waits.
        result: what came of it; nothing: nothing yet.
    """

    item: T
    ask: _Ask
    batch: _Running[T, R] | None = None
    result: list[R | Exception] = attrs.field(factory=list)

    def end(self, result: R | Exception) -> None:
        """Take the result; the first one counts."""
        if self.result:
            return
        self.result.append(result)
        self.ask.missing -= 1
        if not self.ask.missing:
            self.ask.done.set()


@attrs.define(eq=False)
class _Ask:
    """Who waits for some items.

    Attributes:
        missing: how many have no result.
        done: set when all have one.
        left: whether nobody waits any more.
    """

    missing: int
    done: trio.Event = attrs.field(factory=trio.Event)
    left: bool = False


@attrs.define(eq=False)
class _Running(Generic[T, R]):
    """A batch that is under way.

    Attributes:
        all_asked: what is in it.
        scope: ends it.
        ended: set when it has ended.
    """

    all_asked: Sequence[_Asked[T, R]]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for anything in it any more."""
        return all(asked.result or asked.ask.left for asked in self.all_asked)


class DynamicBatchingServer(Generic[T, R]):
    """Puts together what several tasks ask, and gives each its own results."""

    def __init__(
        self,
        work: Work[T, R],
        rules: BatchRules | None = None,
        *,
        divides: Callable[[Exception], bool] = _nobody,
    ) -> None:
        """Make a server, which works as long as :meth:`run` does.

        Args:
            work: does a batch.
            rules: what a batch may be, and how long it waits.
            divides: whether one item may be to blame for an error, so that the batch
                is made again in halves.
        """
        self._work = work
        self._divides = divides
        self._queue: BatchQueue[_Asked[T, R]] = BatchQueue(rules or BatchRules())
        self._changed = trio.Event()
        self._runs = False
        self.batches = 0

    @property
    def waiting(self) -> int:
        """Items in no batch yet."""
        return len(self._queue)

    @property
    def under_way(self) -> int:
        """Batches that are worked on."""
        return self._queue.under_way

    def child(self, child_id: str) -> ChildSpec:
        """Return how a supervisor starts it."""
        return ChildSpec(id=child_id, start=lambda: PlainProcess(self.run))

    async def run(self) -> None:
        """Work; never returns.

        Cancellation: ends the batches; who waits gets a ``NotReadyError``.
        """
        self._runs = True
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._begin(nursery)
                    with trio.move_on_at(self._queue.next_at()):
                        await self._changed.wait()
                    if self._changed.is_set():
                        self._changed = trio.Event()
        finally:
            self._runs = False
            self._stop()

    def _begin(self, nursery: trio.Nursery) -> None:
        while (batch := self._queue.take(trio.current_time())) is not None:
            self.batches += 1
            running = _Running(batch.keys)
            for asked in batch.keys:
                asked.batch = running
            nursery.start_soon(self._run_batch, batch, running)

    def _stop(self) -> None:
        while (batch := self._queue.take(math.inf)) is not None:
            self._queue.ended(batch)
            for asked in batch.keys:
                asked.end(_stopped())

    async def ask(
        self, item: T, *, size: int = 1, priority: int = 0, lane: Hashable = None
    ) -> R:
        """Return what comes of an item, in a batch with others'.

        Args:
            item: what is asked.
            size: what it adds to a batch, in tokens.
            priority: higher goes first.
            lane: the same for those that may be in one batch.

        Raises:
            OverloadedError: too many wait.
            NotReadyError: the server does not run, or was stopped.
            Exception: what the work raised, or returned for the item.

        Cancellation: it is in no further batch.
        """
        [result] = await self.ask_all(
            [item], sizes=[size], priority=priority, lane=lane
        )
        if isinstance(result, Exception):
            raise result
        return result

    async def ask_all(
        self,
        items: Sequence[T],
        *,
        sizes: Sequence[int],
        priority: int = 0,
        lane: Hashable = None,
    ) -> list[R | Exception]:
        """Return what comes of several items, each a result or an error.

        They may be in several batches.

        Args:
            items: what is asked.
            sizes: what each adds to a batch, in tokens.
            priority: higher goes first.
            lane: the same for those that may be in one batch.

        Raises:
            OverloadedError: too many wait.
            NotReadyError: the server does not run.
            ValueError: there are not as many sizes as items; nobody waits.

        Cancellation: they are in no further batch.
        """
        if len(items) != len(sizes):
            raise ValueError(f"{len(sizes)} sizes are given for {len(items)} items")
        if not self._runs:
            raise _stopped()
        if self._queue.is_full:
            raise OverloadedError(f"{len(self._queue)} items wait for a batch already")
        if not items:
            await trio.lowlevel.checkpoint()
            return []
        ask, now = _Ask(missing=len(items)), trio.current_time()
        all_asked: list[_Asked[T, R]] = []
        for item, size in zip(items, sizes, strict=True):
            asked = _Asked[T, R](item, ask)
            self._queue.push(asked, lane, size=size, now=now, priority=priority)
            all_asked.append(asked)
        self._changed.set()
        try:
            await ask.done.wait()
        finally:
            if ask.missing:
                await self._leave(ask, all_asked)
        return [each.result[0] for each in all_asked]

    async def _leave(self, ask: _Ask, all_asked: Sequence[_Asked[T, R]]) -> None:
        """Take items out; end the batches in which nobody's are left."""
        ask.left = True
        running: set[_Running[T, R]] = set()
        for asked in all_asked:
            if not self._queue.remove(asked) and not asked.result:
                assert asked.batch is not None, "it waits, is under way, or is done"
                running.add(asked.batch)
        self._changed.set()
        for batch in running:
            if batch.is_left:
                batch.scope.cancel()
                with trio.CancelScope(shield=True):
                    await batch.ended.wait()

    async def _run_batch(
        self, batch: Batch[_Asked[T, R]], running: _Running[T, R]
    ) -> None:
        try:
            with running.scope:
                await self._work_on(batch.keys)
        finally:
            self._queue.ended(batch)
            for asked in batch.keys:
                asked.end(_stopped())
            running.ended.set()
            self._changed.set()

    async def _work_on(self, all_asked: Sequence[_Asked[T, R]]) -> None:
        """Do items, each half by itself where one of them may be to blame."""
        wanted = [asked for asked in all_asked if not asked.ask.left]
        if not wanted:
            return
        results: Sequence[R | Exception]
        try:
            results = list(await self._work([asked.item for asked in wanted]))
        except Exception as error:  # noqa: BLE001 - who asked gets it
            if len(wanted) > 1 and self._divides(error):
                middle = len(wanted) // 2
                await self._work_on(wanted[:middle])
                await self._work_on(wanted[middle:])
                return
            results = [_own(error) for _ in wanted]
        if len(results) != len(wanted):
            told = f"{len(results)} results for {len(wanted)} items"
            results = [InternalError(f"a batch's work returned {told}") for _ in wanted]
        for asked, result in zip(wanted, results, strict=True):
            asked.end(result)


def _own(error: Exception) -> Exception:
    """Return an error that one may raise while others raise theirs."""
    if not isinstance(error, InferenceError):
        return error
    own = fresh(error)
    own.final = error.final
    return own


def _stopped() -> NotReadyError:
    return NotReadyError("the batching server was stopped")
