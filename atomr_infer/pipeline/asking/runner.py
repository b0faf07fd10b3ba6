"""What runners have in common that answer by asking other deployments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import BudgetExceededError, DeadlineError, InferenceError
from atomr_infer.model.capabilities import ALL_SAMPLING, Capabilities, Feature
from atomr_infer.model.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.runtimes.others import Asking, Others

# Who is asked has bounds of its own.
_CONCURRENCY = 10_000

_NO_GENERATIONS = frozenset({Feature.EMBEDDINGS, Feature.COUNT_TOKENS})

CAPABILITIES = Capabilities(
    features=frozenset(Feature) - _NO_GENERATIONS,
    sampling=ALL_SAMPLING,
    extra_of=frozenset(Dialect),
    max_concurrency=_CONCURRENCY,
)
"""Whatever is asked is let through: who is asked says itself what it cannot do."""


class AskingRunner(ABC):
    """Answers a generation by others' answers; holds nothing that can fail."""

    def __init__(self, others: Others) -> None:
        self._others = others
        self._active = 0

    @property
    def capabilities(self) -> Capabilities:
        """Everything: who is asked says what it cannot do."""
        return CAPABILITIES

    @property
    def active(self) -> int:
        """Generations whose block is open."""
        return self._active

    async def failed(self) -> InferenceError:
        """Never."""
        await trio.sleep_forever()

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Answer a request.

        Raises:
            InferenceError: that of the last one who was asked.
        """
        self._active += 1
        try:
            async with (
                self._others.asking() as asking,
                self._answer(batch, asking) as chunks,
            ):
                yield chunks
        finally:
            self._active -= 1

    @abstractmethod
    def _answer(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]:
        """Return the block in which the answer's chunks come."""


class GeneratingRunner(AskingRunner):
    """Answers by a generator of chunks, which is closed with the answer's block."""

    def _answer(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]:
        return aclosing(self._chunks(batch, asking))

    @abstractmethod
    def _chunks(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncGenerator[TokenChunk, None]:
        """Yield the answer's chunks."""


def goes_on_after(error: InferenceError) -> bool:
    """Whether the next one is asked after one failed so.

    A request that is wrong, or withheld for its content, is so for each of them.
    """
    return error.fallback or isinstance(error, DeadlineError | BudgetExceededError)
