"""Questions with one value for an answer on their way over the bridge.

Embeddings, counts of tokens and tensors are asked beside the streams, under numbers of
the same row: the parent cancels them in the same way, and ``End`` is their end.  An
engine's figures are asked so too, but for the cancelling: whoever looks at an engine
must not have it killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.bridge.protocol.frames import (
    ChildFrame,
    Chunk,
    Count,
    Counted,
    Embed,
    FrameError,
    Infer,
    Measure,
    Measured,
    Question,
    Tensors,
    Text,
    Told,
    Vectors,
)
from atomr_infer.bridge.protocol.values import (
    batch_from_wire,
    embed_request_from_wire,
    embeddings_from_wire,
    embeddings_to_wire,
    figures_from_wire,
    figures_to_wire,
    infer_request_from_wire,
    inferred_from_wire,
    inferred_to_wire,
)
from atomr_infer.errors import EndpointUnsupportedError, InternalError
from atomr_infer.runtimes.contract import (
    Embedder,
    ModelRunner,
    TensorRunner,
    TokenCounter,
)
from atomr_infer.runtimes.metered import Metered

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.model.embeddings import Embeddings
    from atomr_infer.model.figures import Figure
    from atomr_infer.model.tensors import Inferred

    Value = Embeddings | Inferred | tuple[Figure, ...] | int

MEASURED_IN_S = 5.0
"""A runner that tells no figures until then is not waited for any longer."""


class ParentCall:
    """What the parent knows of one question.

    Attributes:
        number: the question's number on the wire.
        ended: set when it is out of the engine, however it ended.
        computes: whether the engine runs for it.
        left: whether the child was told to stop it.
    """

    has_room = True

    def __init__(self, number: int, *, computes: bool = True) -> None:
        self.number = number
        self.computes = computes
        self.left = False
        self.ended = trio.Event()
        self._value: Value | None = None
        self._error: InferenceError | None = None

    def take(self, frame: Told) -> None:
        """Take the answer.

        Raises:
            FrameError: it is no answer.
        """
        match frame:
            case Counted():
                self._value = frame.tokens
            case Vectors() | Tensors() | Measured():
                try:
                    self._value = _value_of(frame)
                except ValueError as error:
                    raise FrameError(str(error)) from error
            case Chunk() | Text():
                raise FrameError("a chunk for a question that has one answer")

    def end(self, error: InferenceError | None) -> None:
        """Note the end."""
        self._error = error
        self.ended.set()

    def cut(self, error: InferenceError) -> None:
        """End at once."""
        if not self.ended.is_set():
            self.end(error)

    async def value(self) -> Value:
        """Wait for the answer and return it.

        Raises:
            InferenceError: it failed, or the child died.
            InternalError: the child ended it without an answer.
        """
        await self.ended.wait()
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise InternalError("the engine ended a question without an answer")
        return self._value


def _value_of(frame: Vectors | Tensors | Measured) -> Value:
    match frame:
        case Vectors():
            return embeddings_from_wire(frame.embeddings)
        case Tensors():
            return inferred_from_wire(frame.inferred)
        case Measured():
            return figures_from_wire(frame.figures)


async def answer_to(runner: ModelRunner, frame: Question) -> ChildFrame:
    """Ask a child's runner, and return what the parent is told.

    Raises:
        EndpointUnsupportedError: the runner does not do that.
        InferenceError: as the runner raises it.
    """
    match frame:
        case Embed(number, request):
            if not isinstance(runner, Embedder):
                raise _unsupported("embeddings")
            embeddings = await runner.embed(embed_request_from_wire(request))
            return Vectors(number, embeddings_to_wire(embeddings))
        case Count(number, batch):
            if not isinstance(runner, TokenCounter):
                raise _unsupported("counting tokens")
            return Counted(number, await runner.count_tokens(batch_from_wire(batch)))
        case Infer(number, tensors):
            if not isinstance(runner, TensorRunner):
                raise _unsupported("raw tensors")
            inferred = await runner.infer(infer_request_from_wire(tensors))
            return Tensors(number, inferred_to_wire(inferred))
        case Measure(number):
            return Measured(number, figures_to_wire(await _figures_of(runner)))


async def _figures_of(runner: ModelRunner) -> tuple[Figure, ...]:
    if not isinstance(runner, Metered):
        return ()
    with trio.move_on_after(MEASURED_IN_S):
        return await runner.figures()
    raise InternalError(f"the runner told no figures in {MEASURED_IN_S:g} s")


def _unsupported(what: str) -> EndpointUnsupportedError:
    return EndpointUnsupportedError(
        f"this model does not support {what}", code="unsupported", param="model"
    )
