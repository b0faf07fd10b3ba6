"""Other deployments, asked by a runner from inside a request.

What is asked is a request like any other, in a task of its own, under the one that it
is asked for (see :mod:`atomr_infer.serving.requests.stages`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError, InternalError
from atomr_infer.policy.routing.composition import MAX_DEPTH
from atomr_infer.serving.requests.sinks import ChunkStream
from atomr_infer.serving.requests.stages import CURRENT, Stage
from atomr_infer.serving.requests.whole_calls import embed, infer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.cost import CostEstimate
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.model.tensors import Inferred, InferRequest
    from atomr_infer.runtimes.others import Made
    from atomr_infer.serving.shared import Serving

_NUMBERS = count(1)


class StageStream(ChunkStream):
    """An inner request's chunks."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._ended = trio.Event()

    async def run(self, serving: Serving, batch: ExecuteBatch) -> None:
        """Run the request as the stage."""
        CURRENT.set(self._stage)  # this task's own
        try:
            await super().run(serving, batch)
            if isinstance(self._error, InferenceError):
                # It was tried as often as its own deployment says.
                self._error.final = True
        finally:
            self._ended.set()

    async def close(self) -> None:
        """End the generation, and wait until what it used is noted.

        Cancellation: it ends all the same, within its own bounds.
        """
        self.stop()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    def __aiter__(self) -> StageStream:
        return self

    def judge(self, verdict: str) -> None:
        """Say what became of the answer."""
        self._stage.verdict = verdict


class AskingOthers:
    """A block in which others are asked; see :class:`OtherDeployments`."""

    def __init__(self, serving: Serving, nursery: trio.Nursery) -> None:
        self._serving = serving
        self._nursery = nursery
        self._streams: list[StageStream] = []
        self._made: list[Stage] = []

    @property
    def made(self) -> tuple[Stage, ...]:
        """What was asked for vectors in this block, the last one last."""
        return tuple(self._made)

    def generate(self, batch: ExecuteBatch) -> StageStream:
        """Ask who serves ``batch.model``."""
        stage = _entered(batch.model)
        stream = StageStream(stage)
        self._streams.append(stream)
        inner = attrs.evolve(batch, request_id=_inner_id(batch.request_id), source=None)
        self._nursery.start_soon(stream.run, self._serving, inner)
        return stream

    def note(self, model: str, verdict: str) -> None:
        """Say that nobody was asked for a model's answer, and why."""
        outer = CURRENT.get()
        if outer is not None:
            outer.stages.append(Stage(model, outer.depth + 1, verdict=verdict))

    def take_part(self, part: Made, verdict: str) -> None:
        """Say that another block asked for this one, too, and what its part is."""
        outer = CURRENT.get()
        if outer is not None and isinstance(part, Stage):
            serving, spent = self._serving, (*part.spent, *part.all_spent())
            cost = serving.prices.cost(spent, serving.deployments)
            depth = outer.depth + 1
            outer.stages.append(
                attrs.evolve(part, depth=depth, verdict=verdict, cost=cost)
            )

    async def estimate(self, batch: ExecuteBatch) -> CostEstimate | None:
        """Return what a request may cost; nothing is asked."""
        return await self._serving.estimate_cost(batch)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Ask who serves ``request.model`` for vectors."""
        stage = _entered(request.model)
        self._made.append(stage)
        inner = attrs.evolve(request, request_id=_inner_id(request.request_id))
        with _inside(stage):
            return (await embed(self._serving, inner)).value

    async def infer(self, request: InferRequest) -> Inferred:
        """Ask who serves ``request.model`` what it makes of tensors."""
        stage = _entered(request.model)
        inner = attrs.evolve(request, request_id=_inner_id(request.request_id))
        with _inside(stage):
            return (await infer(self._serving, inner)).value

    async def close(self) -> None:
        """End all that is under way."""
        for stream in self._streams:
            await stream.close()


class OtherDeployments:
    """The deployments of a serving tree, as a runner asks them."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[AskingOthers]:
        """Return a block in which they are asked; its end ends what is asked."""
        raised: BaseException | None = None
        async with trio.open_nursery() as nursery:
            asking = AskingOthers(self._serving, nursery)
            try:
                yield asking
            except BaseException as error:  # noqa: BLE001 - raised again below
                # Kept away from the nursery, which would wrap it in a group.
                raised = error
            await asking.close()
        if raised is not None:
            try:
                raise raised
            finally:
                raised = None  # it holds this frame


def _entered(model: str) -> Stage:
    """Return a stage of the request that this task is of.

    Raises:
        InternalError: it is in too many already.
    """
    outer = CURRENT.get() or Stage()
    if outer.depth >= MAX_DEPTH:
        raise InternalError(f"{model}: deployments ask each other, {MAX_DEPTH} deep")
    stage = Stage(model, outer.depth + 1)
    outer.stages.append(stage)
    return stage


@contextmanager
def _inside(stage: Stage) -> Iterator[None]:
    """Return a block in which this task is of a stage, whose failure is final."""
    token = CURRENT.set(stage)
    try:
        yield
    except InferenceError as error:
        # It was tried as often as its own deployment says.
        error.final = True
        raise
    finally:
        CURRENT.reset(token)


def _inner_id(request_id: str) -> str:
    # Unique under the requests, and found with the outer one's id in the log.
    return f"{request_id}+{next(_NUMBERS)}"
