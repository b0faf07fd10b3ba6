"""The runner of a plan that takes tensors.

Requests wait in a queue, and as many runs are under way as there are contexts.
Where the deployment says that rows are each for themselves, requests that wait share a
run (:mod:`~atomr_infer_tensorrt.joining`).

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
from atomr_infer.model.tensors import Inferred, Signature, Tensor, TensorSpec
from atomr_infer_tensorrt.joining import Shapes, can_join, choose, rows_of
from atomr_infer_tensorrt.plan import Array
from atomr_infer_tensorrt.shapes import choose_profile, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.errors import ErrorRecord
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.tensors import InferRequest
    from atomr_infer_tensorrt.plan import Binding
    from atomr_infer_tensorrt.running import PlanRuns

MAX_CONCURRENCY = 256
"""Requests that wait for a run cost little."""


@attrs.define(eq=False)
class _Asked:
    """A request that waits, or is in a run."""

    arrays: dict[str, Array]
    shapes: Shapes
    done: trio.Event = attrs.field(factory=trio.Event)
    outputs: dict[str, Array] = attrs.field(factory=dict)
    error: InferenceError | None = None
    left: bool = False

    def end(self, error: ErrorRecord | None = None) -> None:
        if error is not None:
            # An error of its own for each: one that many raise mixes tracebacks.
            self.error = decode(error)
        self.done.set()


class PlanRunner:
    """A :class:`~atomr_infer.runtimes.contract.TensorRunner` on a plan.

    Args:
        runs: the plan.
        lanes: most runs at once.
        joins: whether requests share runs, where the plan's rows vary.
    """

    def __init__(self, runs: PlanRuns, *, lanes: int, joins: bool) -> None:
        self._runs = runs
        self._lanes = lanes
        self._joins = joins and can_join(
            [one.shape for one in runs.inputs.values()],
            [one.shape for one in runs.outputs.values()],
        )
        self._waiting: list[_Asked] = []
        self._work = trio.Event()
        self._limiter = trio.CapacityLimiter(lanes)
        self._crash: EngineCrashedError | None = None
        self._crashed = trio.Event()
        self._closed = False
        self.runs = 0
        self.active = 0
        self.capabilities = Capabilities(
            features=frozenset({Feature.INFER}),
            sampling=frozenset(),
            max_concurrency=MAX_CONCURRENCY,
            signature=Signature(
                inputs=tuple(map(_spec, runs.inputs.values())),
                outputs=tuple(map(_spec, runs.outputs.values())),
            ),
        )

    @property
    def joins(self) -> bool:
        """Whether requests share runs."""
        return self._joins

    # --- what is asked ----------------------------------------------------------

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Refuse: the plan does not generate.

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
        """Return when a run has failed."""
        await self._crashed.wait()
        assert self._crash is not None
        return self._crash

    async def infer(self, request: InferRequest) -> Inferred:
        """Return the outputs that are wanted.

        Raises:
            InvalidRequestError: no profile takes the shapes; names a tensor, its
                shape and what is taken.
            UnsupportedFeatureError: an output's size depends on values.
            EngineError: the GPU has no memory for it.
            EngineCrashedError: the engine failed.
            NotReadyError: it is closed.

        Cancellation: it is in no further run; one that is under way goes on.
        """
        asked = self._asked(request)
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
        names = request.outputs or tuple(self._runs.outputs)
        return Inferred(outputs=tuple(self._tensor(n, asked.outputs[n]) for n in names))

    def _asked(self, request: InferRequest) -> _Asked:
        arrays = {
            tensor.name: np.frombuffer(
                tensor.data, self._runs.inputs[tensor.name].dtype
            ).reshape(tensor.shape)
            for tensor in request.inputs
        }
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        choose_profile(self._runs.plan.profiles, shapes)
        return _Asked(arrays, shapes)

    def _tensor(self, name: str, value: Array) -> Tensor:
        kind = self._runs.outputs[name].datatype
        return Tensor(name, kind, tuple(value.shape), value.tobytes())

    # --- the runs ---------------------------------------------------------------

    async def run(self) -> None:
        """Run what waits, until cancelled or broken.

        Cancellation: at the end of the runs that are under way.
        """
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._lanes):
                    nursery.start_soon(self._work_on)
        finally:
            self._closed = True
            closed = NotReadyError("the engine is closed")
            gone = encode(closed if self._crash is None else self._crash)
            for asked in self._waiting:
                asked.end(gone)
            # A broken context gives nothing back; the process's end does.
            if self._crash is None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._runs.close)

    async def _work_on(self) -> None:
        while self._crash is None:
            group = self._next()
            if not group:
                if self._work.is_set():
                    self._work = trio.Event()
                await self._work.wait()
                continue
            await self._run(group)
        self._work.set()  # the other lanes end, too

    def _next(self) -> list[_Asked]:
        self._waiting = [one for one in self._waiting if not one.left]
        if not self._waiting:
            return []
        numbers = [0]
        if self._joins:
            shapes = [one.shapes for one in self._waiting]
            numbers = choose(shapes, self._runs.plan.profiles)
        chosen = [self._waiting[number] for number in numbers]
        taken = set(map(id, chosen))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return chosen

    async def _run(self, group: list[_Asked]) -> None:
        self.runs += 1
        try:
            made = await trio.to_thread.run_sync(
                self._compute, group, limiter=self._limiter
            )
        except trio.Cancelled:
            self._waiting += group
            raise
        except InferenceError as error:
            self._fail(group, error)
            return
        for asked, outputs in zip(group, made, strict=True):
            asked.outputs = outputs
            asked.end()

    def _fail(self, group: Sequence[_Asked], error: InferenceError) -> None:
        for asked in group:
            asked.end(encode(error))
        if isinstance(error, EngineCrashedError):
            self._crash = EngineCrashedError(error.message)
            self._crashed.set()

    def _compute(self, group: Sequence[_Asked]) -> list[dict[str, Array]]:
        """Return each request's outputs; in the thread."""
        names = list(self._runs.outputs)
        feeds = {
            name: np.concatenate([asked.arrays[name] for asked in group])
            if len(group) > 1
            else group[0].arrays[name]
            for name in self._runs.inputs
        }
        made = dict(zip(names, self._runs.run(names, feeds), strict=True))
        if len(group) == 1:
            return [made]
        counts = [rows_of(asked.shapes) or 0 for asked in group]
        return split(made, counts)


def split(made: dict[str, Array], counts: Sequence[int]) -> list[dict[str, Array]]:
    """Return each request's part of a run's outputs.

    Raises:
        InvalidRequestError: an output has not a row for each row of the inputs.
    """
    total = sum(counts)
    for name, value in made.items():
        if value.shape[0] != total:
            raise InvalidRequestError(
                f"{total} rows were given, and the output {name!r} is "
                f"{shown(value.shape)}: this model's rows are not each for themselves; "
                "leave out join_requests"
            )
    ends = np.cumsum(counts)
    return [
        {name: value[end - count : end] for name, value in made.items()}
        for count, end in zip(counts, ends.tolist(), strict=True)
    ]


def _spec(one: Binding) -> TensorSpec:
    return TensorSpec(one.name, one.datatype, one.shape)
