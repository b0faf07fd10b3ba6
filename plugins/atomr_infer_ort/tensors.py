"""Models that take tensors: any ONNX file, as it is.

Requests wait in a queue, and one run is under way at a time.  Where the deployment
says that rows are each for themselves, requests that wait share a run: those whose
tensors differ from the first one's in their rows only.

A run happens in a worker thread; between runs everything belongs to the event loop.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import numpy as np
import trio

from atomr_infer.errors import (
    EndpointUnsupportedError,
    EngineCrashedError,
    InferenceError,
    InvalidRequestError,
    NotReadyError,
    decode,
    encode,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.tensors import ANY_SIZE, Inferred
from atomr_infer_ort.arrays import Array, array_of, signature_of, tensor_of
from atomr_infer_ort.faults import first_line, is_out_of_memory, step_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.errors import ErrorRecord
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.tensors import InferRequest
    from atomr_infer_ort.session import Session

MAX_CONCURRENCY = 256
"""Requests that wait for a run cost little."""

MAX_JOINED_ROWS = 256
"""Of a run that several requests share; one request may have more."""

# What ONNX Runtime says of values that a model cannot compute with.  On a GPU the
# other errors may have broken its context.
_CLIENTS_FAULT = ("InvalidArgument", "NotImplemented")
_ON_A_CPU = (*_CLIENTS_FAULT, "Fail", "RuntimeException")


@attrs.define(eq=False)
class Asked:
    """A request that waits, or is in a run.

    Attributes:
        feeds: its tensors.
        outputs: the names of those that are wanted.
        is_alone: whether it shares no run any more: one that it shared failed.
    """

    feeds: dict[str, Array]
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


class OrtTensorRunner:
    """A :class:`~atomr_infer.runtimes.contract.TensorRunner` on ONNX Runtime.

    Args:
        session: the model.
        joins: whether requests share runs, where all of the model's tensors have
            rows.
        on_cpu: whether a run that fails leaves the session as it was.

    Attributes:
        runs: how often the model was run.
        active: requests that wait or are in a run.
    """

    def __init__(
        self, session: Session, *, joins: bool = False, on_cpu: bool = True
    ) -> None:
        self._recovers_from = _ON_A_CPU if on_cpu else _CLIENTS_FAULT
        self._session = session
        signature = signature_of(session)
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._joins = joins and all(
            spec.shape[:1] == (ANY_SIZE,)
            for spec in (*signature.inputs, *signature.outputs)
        )
        self._waiting: list[Asked] = []
        self._work = trio.Event()
        self._turn = trio.CapacityLimiter(1)
        self._crash: EngineCrashedError | None = None
        self._crashed = trio.Event()
        self._closed = False
        self.runs = 0
        self.active = 0
        self.capabilities = Capabilities(
            features=frozenset({Feature.INFER}),
            sampling=frozenset(),
            max_concurrency=MAX_CONCURRENCY,
            signature=signature,
        )

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
            f"the model {batch.model!r} takes tensors; it does not write text",
            code="unsupported",
            param="model",
        )
        yield  # type: ignore[unreachable] # makes it a generator

    async def failed(self) -> InferenceError:
        """Return when a run has failed for another reason than its input."""
        await self._crashed.wait()
        assert self._crash is not None
        return self._crash

    async def infer(self, request: InferRequest) -> Inferred:
        """Return the outputs that are wanted.

        Raises:
            InvalidRequestError: the model cannot compute with these values.
            UnsupportedFeatureError: an output is of a kind that tensors do not have.
            EngineError: there is no memory for it.
            EngineCrashedError: the engine failed.
            NotReadyError: it is closed.

        Cancellation: it is in no further run; one that is under way goes on.
        """
        feeds = {tensor.name: array_of(tensor) for tensor in request.inputs}
        asked = Asked(feeds, request.outputs or self._outputs)
        if self._crash is not None:
            raise EngineCrashedError(self._crash.message)
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
        return Inferred(outputs=tuple(tensor_of(name, made) for name, made in named))

    # --- the runs ---------------------------------------------------------------

    async def run(self) -> None:
        """Run what waits while there is any; wait while there is none.

        Cancellation: at the end of the current run.
        """
        try:
            while self._crash is None:
                self._waiting = [one for one in self._waiting if not one.left]
                if not self._waiting:
                    self._work = trio.Event()
                    await self._work.wait()
                    continue
                group = choose(self._waiting) if self._joins else self._waiting[:1]
                taken = set(map(id, group))
                self._waiting = [one for one in self._waiting if id(one) not in taken]
                await self._run(group)
        finally:
            self._closed = True
            closed = NotReadyError("the engine is closed")
            gone = encode(closed if self._crash is None else self._crash)
            for asked in self._waiting:
                asked.end(gone)

    async def _run(self, group: list[Asked]) -> None:
        self.runs += 1
        try:
            made = await trio.to_thread.run_sync(
                self._compute, group, limiter=self._turn
            )
        except trio.Cancelled:
            self._waiting += group
            raise
        except Exception as error:  # noqa: BLE001  the engine's boundary: all of it is told
            self._failed(group, error)
            return
        for asked, outputs in zip(group, made, strict=True):
            asked.made = outputs
            asked.end()

    def _failed(self, group: list[Asked], error: Exception) -> None:
        told = run_error(error, self._recovers_from)
        if len(group) > 1 and not isinstance(told, EngineCrashedError):
            # One of them is at fault: the others are not to hear of it.
            for asked in group:
                asked.is_alone = True
            self._waiting = group + self._waiting
            return
        for asked in group:
            asked.end(encode(told))
        if isinstance(told, EngineCrashedError):
            self._crash = EngineCrashedError(told.message)
            self._crashed.set()

    def _compute(self, group: Sequence[Asked]) -> list[list[Array]]:
        """Return what each of a group gets, in the order of its outputs."""
        first = group[0]
        names = list(first.outputs)
        if len(group) == 1:
            return [self._session.run(names, first.feeds)]
        feeds = {
            name: np.concatenate([asked.feeds[name] for asked in group])
            for name in first.feeds
        }
        made = self._session.run(names, feeds)
        sizes = [asked.rows or 0 for asked in group]
        if any(len(one) != sum(sizes) for one in made):
            # Its rows are not what they seem to be: each alone, from now on.
            self._joins = False
            return [self._session.run(names, asked.feeds) for asked in group]
        ends = np.cumsum(sizes)[:-1]
        parts = [np.split(one, ends) for one in made]
        return [[part[at] for part in parts] for at in range(len(group))]


def choose(waiting: Sequence[Asked]) -> list[Asked]:
    """Return which of those that wait share the next run: the first, and those like it.

    They have ``MAX_JOINED_ROWS`` at most, but for a first one that has more alone.
    """
    first, *others = waiting
    chosen, total = [first], first.rows
    if total is None:
        return chosen
    for other in others:
        rows = other.rows
        if rows is None or total + rows > MAX_JOINED_ROWS or not first.like(other):
            continue
        chosen.append(other)
        total += rows
    return chosen


def run_error(error: Exception, recovers_from: Sequence[str]) -> InferenceError:
    """Return why a run failed.

    Args:
        error: what ONNX Runtime raised.
        recovers_from: names of errors behind which it goes on.
    """
    if type(error).__name__ in recovers_from and not is_out_of_memory(error):
        problem = f"the model cannot compute with this: {first_line(error)}"
        return InvalidRequestError(problem, param="inputs")
    return step_error(error)
