"""Models that write nothing tell the ends of their runs as their steps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import trio
import trio.testing

from atomr_infer.errors import EngineError
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import (
    Datatype,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
)
from atomr_infer.runtimes.contract import Stepped
from atomr_infer.runtimes.tensor_runner import Array, Asked, TensorQueue
from atomr_infer.runtimes.text_runner import TextRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from atomr_infer.errors import InferenceError
    from atomr_infer.runtimes.text_runner import TextModel, TextTokenizer

    Opened = tuple[Stepped, Callable[[], Awaitable[object]]]

FAILS = 3


class Gate:
    """Runs go on one by one, as far as they are let; one of them fails."""

    def __init__(self) -> None:
        self._open = threading.Semaphore(0)
        self._runs = 0

    def let(self) -> None:
        """Let one more run end."""
        self._open.release()

    def wait(self) -> None:
        """Wait for that; in the run's thread."""
        assert self._open.acquire(timeout=30)
        self._runs += 1
        if self._runs == FAILS:
            raise ArithmeticError


def told(_: Exception) -> InferenceError:
    return EngineError("it failed")


class Texts:
    """A model of texts, and its tokenizer."""

    feature = Feature.EMBEDDINGS
    labels = ()
    size = 1

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def encode(self, text: str, **_: Any) -> list[int]:
        """Return a token."""
        return [0]

    def run(self, texts: Sequence[Sequence[int]]) -> Array:
        """Return a vector for each."""
        self._gate.wait()
        return np.ones((len(texts), 2))


class Tensors(TensorQueue):
    """A model of tensors."""

    def __init__(self, gate: Gate) -> None:
        spec = TensorSpec("x", Datatype.FP32, ())
        super().__init__(Signature((spec,), (spec,)), lanes=1, joins=False)
        self._gate = gate

    def _feeds(self, request: InferRequest) -> dict[str, Array]:
        return {}

    def _tensor(self, name: str, made: Array) -> Tensor:
        return Tensor(name, Datatype.FP32, (), bytes(4))

    def _takes(self, first: Asked, rows: int) -> bool:
        raise AssertionError(rows)

    def _made(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        self._gate.wait()
        return [np.zeros(())]

    def _told(self, error: Exception) -> InferenceError:
        return told(error)


def texts(nursery: trio.Nursery, gate: Gate) -> Opened:
    model = Texts(gate)
    runner = TextRunner(
        cast("TextModel", model),
        cast("TextTokenizer", model),
        told=told,
        context_tokens=9,
        batch_tokens=1,
    )
    nursery.start_soon(runner.run)
    # A run for each of them.
    asked = EmbedRequest(request_id="r", model="m", inputs=("a",) * FAILS)
    return runner, lambda: runner.embed(asked)


def tensors(nursery: trio.Nursery, gate: Gate) -> Opened:
    runner = Tensors(gate)
    nursery.start_soon(runner.run)

    async def ask() -> None:
        for _ in range(FAILS):
            await runner.infer(InferRequest(request_id="r", model="m", inputs=()))

    return runner, ask


@pytest.mark.parametrize("opened", [texts, tensors])
async def test_the_end_of_each_run_is_a_step(
    opened: Callable[[trio.Nursery, Gate], Opened],
) -> None:
    gate = Gate()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            runner, ask = opened(nursery, gate)
            assert isinstance(runner, Stepped)

            async def fail() -> None:
                with pytest.raises(EngineError, match="it failed"):
                    await ask()
                nursery.cancel_scope.cancel()

            nursery.start_soon(fail)
            for ended in range(FAILS):
                await trio.testing.wait_all_tasks_blocked()
                # One is under way, and is none.
                assert runner.steps == ended
                gate.let()
                while runner.steps == ended:
                    await trio.lowlevel.checkpoint()
    assert runner.steps == FAILS
