"""Whoever asks an engine that has crashed is told all of why: the code, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from atomr_infer.errors import OUT_OF_MEMORY, EngineCrashedError, InferenceError
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import (
    Datatype,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
)
from atomr_infer.runtimes.decoding.engine import Bounds, Engine, Outcome, Running
from atomr_infer.runtimes.decoding.generation import Generation
from atomr_infer.runtimes.tensor_runner import Array, Asked, TensorQueue
from atomr_infer.runtimes.text_runner import TextRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from atomr_infer.runtimes.decoding.answer import Answer
    from atomr_infer.runtimes.text_runner import TextModel, TextTokenizer

WHY = "the device is full"


def crash(error: Exception | None = None) -> EngineCrashedError:
    return EngineCrashedError(WHY, code=OUT_OF_MEMORY)


class Unfinished:
    """An answer that never comes."""

    finished = False


class Crashing(Engine[int]):
    """An engine whose first step is its end."""

    def _place(self, generation: Generation) -> int:
        return 0

    def _let_go(self, place: int) -> None:
        """Nothing is held."""

    def _step(self, awake: Sequence[Running[int]]) -> Outcome:
        outcome = Outcome()
        outcome.fail(self.generations, crash())
        return outcome


class CrashingTensors(TensorQueue):
    """A model of tensors whose first run is its end."""

    def _feeds(self, request: InferRequest) -> dict[str, Array]:
        return {}

    def _tensor(self, name: str, made: Array) -> Tensor:
        raise AssertionError(name)

    def _takes(self, first: Asked, rows: int) -> bool:
        raise AssertionError(rows)

    def _made(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        raise MemoryError

    def _told(self, error: Exception) -> InferenceError:
        return crash()


class CrashingTexts:
    """A model of texts whose first run is its end, and its tokenizer."""

    feature = Feature.EMBEDDINGS
    labels = ()
    size = 1

    def encode(self, text: str, **_: Any) -> list[int]:
        """Return a token."""
        return [0]

    def run(self, texts: Sequence[Sequence[int]]) -> None:
        """Fail."""
        raise MemoryError


async def engine(nursery: trio.Nursery) -> Callable[[], Awaitable[object]]:
    crashing = Crashing(Bounds(max_seqs=1, prefill_tokens=1, cache_tokens=9))
    nursery.start_soon(crashing.run)

    async def ask() -> None:
        answers = [cast("Answer", Unfinished())]
        generation = Generation([1], answers, 1, crashing.wake)
        crashing.submit(generation)
        async for _ in generation:
            raise AssertionError("it answered")

    return ask


async def tensors(nursery: trio.Nursery) -> Callable[[], Awaitable[object]]:
    spec = TensorSpec("x", Datatype.FP32, ())
    runner = CrashingTensors(Signature((spec,), (spec,)), lanes=1, joins=False)
    nursery.start_soon(runner.run)
    return lambda: runner.infer(InferRequest(request_id="r", model="m", inputs=()))


async def texts(nursery: trio.Nursery) -> Callable[[], Awaitable[object]]:
    model = CrashingTexts()
    runner = TextRunner(
        cast("TextModel", model),
        cast("TextTokenizer", model),
        told=crash,
        context_tokens=9,
        batch_tokens=9,
    )
    nursery.start_soon(runner.run)
    asked = EmbedRequest(request_id="r", model="m", inputs=("Hi",))
    return lambda: runner.embed(asked)


@pytest.mark.parametrize("opened", [engine, tensors, texts])
async def test_who_comes_later_hears_the_code_as_well(
    opened: Callable[[trio.Nursery], Awaitable[Callable[[], Awaitable[object]]]],
) -> None:
    raised = []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            ask = await opened(nursery)
            for _ in range(2):
                with pytest.raises(EngineCrashedError) as caught:
                    await ask()
                raised.append(caught.value)
            nursery.cancel_scope.cancel()
    assert [(one.message, one.code) for one in raised] == [(WHY, OUT_OF_MEMORY)] * 2
    # One that several raise mixes their tracebacks.
    assert raised[0] is not raised[1]
