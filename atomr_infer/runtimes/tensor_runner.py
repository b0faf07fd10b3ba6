"""Requests of tensors that wait for runs, whoever computes them.

Requests wait in a queue, and as many runs are under way as there are lanes.  Where the
deployment says that rows are each for themselves, requests that wait share a run: those
whose tensors differ from the first one's in their rows only.  Of a run that fails and
was shared, each is run again alone: one of them is at fault, and the others are not to
hear of it.

A run happens in a worker thread; between runs everything belongs to the event loop.
What a run is, is for who inherits from :class:`TensorQueue`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import trio

from atomr_infer.errors import (
    EndpointUnsupportedError,
    EngineCrashedError,
    InferenceError,
    NotReadyError,
    decode,
    encode,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.tensors import ANY_SIZE, Inferred

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from atomr_infer.errors import ErrorRecord
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.tensors import InferRequest, Signature, Tensor

Array = np.ndarray[Any, np.dtype[Any]]

MAX_CONCURRENCY = 256
"""Requests that wait for a run cost little."""


@attrs.define(eq=False)
class Asked:
    """A request that waits, or is in a run.

    Attributes:
        feeds: its tensors.
        outputs: the names of those that are wanted.
        is_alone: whether it shares no run any more: one that it shared failed.
        done: set when it is in no further run.
        made: what is wanted, in the order of ``outputs``.
        error: why it failed.
        left: whether nobody waits for it.
    """

    feeds: Mapping[str, Array]
    outputs: tuple[str, ...]
    is_alone: bool = False
    done: trio.Event = attrs.field(factory=trio.Event)
    made: list[Array] = attrs.field(factory=list)
    error: InferenceError | None = None
    left: bool = False

    @property
    def rows(self) -> int | None:
        """How many it has to share a run; None: its tensors differ in them."""
        if self.is_alone:
            return None
        found = {len(feed) if feed.ndim else None for feed in self.feeds.values()}
        return found.pop() if len(found) == 1 else None

    def like(self, other: Asked) -> bool:
        """Whether two differ in their rows only."""
        return self.outputs == other.outputs and all(
            feed.shape[1:] == other.feeds[name].shape[1:]
            for name, feed in self.feeds.items()
        )

    def end(self, error: ErrorRecord | None = None) -> None:
        """Let it go on, with what was made or with an error."""
        if error is not None:
            # An error of its own for each: one that many raise mixes tracebacks.
            self.error = decode(error)
        self.done.set()


class TensorQueue(ABC):
    """A :class:`~atomr_infer.runtimes.contract.TensorRunner`, without its runs.

    Args:
        signature: what the model takes and gives.
        lanes: most runs at once.
        joins: whether requests share runs, where all of the model's tensors have
            rows.

    Attributes:
        runs: how many runs there were.
        steps: how many of them have ended.
        active: requests that wait or are in a run.
        joins: whether requests share runs.
        crash: why there can be no more runs; None: there can.
    """

    def __init__(self, signature: Signature, *, lanes: int, joins: bool) -> None:
        self.joins = joins and all(
            spec.shape[:1] == (ANY_SIZE,)
            for spec in (*signature.inputs, *signature.outputs)
        )
        self.runs = 0
        self.steps = 0
        self.active = 0
        self.crash: EngineCrashedError | None = None
        self.capabilities = Capabilities(
            features=frozenset({Feature.INFER}),
            sampling=frozenset(),
            max_concurrency=MAX_CONCURRENCY,
            signature=signature,
        )
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._lanes = lanes
        self._waiting: list[Asked] = []
        self._work = trio.Event()
        self._limiter = trio.CapacityLimiter(lanes)
        self._crashed = trio.Event()
        self._closed = False

    # --- what is asked ----------------------------------------------------------

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Refuse: the model does not generate.

        Raises:
            EndpointUnsupportedError: always.
        """
        raise EndpointUnsupportedError(
            "this model takes tensors; it does not write text",
            code="unsupported",
            param="model",
        )
        yield  # type: ignore[unreachable] # makes it a generator

    async def failed(self) -> InferenceError:
        """Return when a run has failed for another reason than its input."""
        await self._crashed.wait()
        assert self.crash is not None
        return self.crash

    async def infer(self, request: InferRequest) -> Inferred:
        """Return the outputs that are wanted.

        Raises:
            InvalidRequestError: the model cannot compute with these values or shapes.
            UnsupportedFeatureError: an output is of a kind or size that is not served.
            EngineError: there is no memory for it.
            EngineCrashedError: the engine failed.
            NotReadyError: it is closed.

        Cancellation: it is in no further run; one that is under way goes on.
        """
        asked = Asked(self._feeds(request), request.outputs or self._outputs)
        if self.crash is not None:
            raise decode(encode(self.crash))
        if self._closed:
            raise NotReadyError("the engine is closed")
        self._waiting.append(asked)
        self._work.set()
        self.active += 1
        try:
            await asked.done.wait()
        finally:
            self.active -= 1
            asked.left = True
        if asked.error is not None:
            raise asked.error
        named = zip(asked.outputs, asked.made, strict=True)
        return Inferred(outputs=tuple(self._tensor(name, made) for name, made in named))

    # --- the runs ---------------------------------------------------------------

    async def run(self) -> None:
        """Run what waits while there is any; wait while there is none.

        Cancellation: at the end of the runs that are under way.
        """
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._lanes):
                    nursery.start_soon(self._work_on)
        finally:
            self._closed = True
            closed = NotReadyError("the engine is closed")
            gone = encode(closed if self.crash is None else self.crash)
            for asked in self._waiting:
                asked.end(gone)

    async def _work_on(self) -> None:
        while self.crash is None:
            group = self._next()
            if not group:
                if self._work.is_set():
                    self._work = trio.Event()
                await self._work.wait()
                continue
            await self._run(group)
        self._work.set()  # the other lanes end, too

    def _next(self) -> list[Asked]:
        self._waiting = [one for one in self._waiting if not one.left]
        if not self._waiting:
            return []
        group = self._waiting[:1]
        if self.joins:
            group = choose(self._waiting, self._takes)
        taken = set(map(id, group))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return group

    async def _run(self, group: list[Asked]) -> None:
        self.runs += 1
        try:
            made = await trio.to_thread.run_sync(
                self._compute, group, limiter=self._limiter
            )
        except trio.Cancelled:
            self._waiting += group
            raise
        except Exception as error:  # noqa: BLE001  the engine's boundary: all of it is told
            self._failed(group, self._told(error))
            return
        finally:
            self.steps += 1
        for asked, outputs in zip(group, made, strict=True):
            asked.made = outputs
            asked.end()

    def _failed(self, group: list[Asked], error: InferenceError) -> None:
        if len(group) > 1 and not isinstance(error, EngineCrashedError):
            for asked in group:
                asked.is_alone = True
            self._waiting = group + self._waiting
            self._work.set()
            return
        for asked in group:
            asked.end(encode(error))
        if isinstance(error, EngineCrashedError):
            self.crash = EngineCrashedError(error.message, code=error.code)
            self._crashed.set()

    def _compute(self, group: Sequence[Asked]) -> list[list[Array]]:
        """Return what each of a group gets, in the order of its outputs."""
        first = group[0]
        names = list(first.outputs)
        if len(group) == 1:
            return [self._made(names, first.feeds)]
        feeds = {
            name: np.concatenate([asked.feeds[name] for asked in group])
            for name in first.feeds
        }
        made = self._made(names, feeds)
        sizes = [asked.rows or 0 for asked in group]
        if any(len(one) != sum(sizes) for one in made):
            # Its rows are not what they seem to be: each alone, from now on.
            self.joins = False
            return [self._made(names, asked.feeds) for asked in group]
        ends = np.cumsum(sizes)[:-1]
        parts = [np.split(one, ends) for one in made]
        return [[part[at] for part in parts] for at in range(len(group))]

    # --- what an engine adds ----------------------------------------------------------

    @abstractmethod
    def _feeds(self, request: InferRequest) -> dict[str, Array]:
        """Return a request's tensors as arrays.

        Raises:
            InferenceError: the model does not take them.
        """

    @abstractmethod
    def _tensor(self, name: str, made: Array) -> Tensor:
        """Return an output as a tensor.

        Raises:
            UnsupportedFeatureError: it is of a kind that tensors do not have.
        """

    @abstractmethod
    def _takes(self, first: Asked, rows: int) -> bool:
        """Whether a run may have so many rows, of requests that are like the first."""

    @abstractmethod
    def _made(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Run the model; in the thread.

        Raises:
            Exception: as the engine raises it.
        """

    @abstractmethod
    def _told(self, error: Exception) -> InferenceError:
        """Return why a run failed; an ``EngineCrashedError``: there can be no other."""


def choose(
    waiting: Sequence[Asked], takes: Callable[[Asked, int], bool]
) -> list[Asked]:
    """Return which of those that wait share the next run: the first, and those like it.

    Args:
        waiting: those that wait, in their order.
        takes: whether a run takes so many rows; of the first alone it takes any.
    """
    first, *others = waiting
    chosen, total = [first], first.rows
    if total is None:
        return chosen
    for other in others:
        rows = other.rows
        if rows is None or not first.like(other) or not takes(first, total + rows):
            continue
        chosen.append(other)
        total += rows
    return chosen
