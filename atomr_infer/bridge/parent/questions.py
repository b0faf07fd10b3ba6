"""What a child is asked beside generations, as the parent's runner offers it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

from atomr_infer.bridge.protocol.frames import Count, Embed, Infer
from atomr_infer.bridge.protocol.values import (
    batch_to_wire,
    embed_request_to_wire,
    infer_request_to_wire,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.bridge.protocol.calls import Value
    from atomr_infer.bridge.protocol.frames import ParentFrame
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.model.tensors import Inferred, InferRequest


class Questions(ABC):
    """A runner's questions with one value for an answer."""

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Have the child's runner turn texts into vectors.

        Raises:
            InferenceError: as ``execute``; also when it does no such thing.

        Cancellation: as leaving a generation.
        """
        found = await self._ask(lambda n: Embed(n, embed_request_to_wire(request)))
        return cast("Embeddings", found)

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Have the child's runner count a prompt's tokens; fails as :meth:`embed`."""
        found = await self._ask(
            lambda n: Count(n, batch_to_wire(batch)), computes=False
        )
        return cast("int", found)

    async def infer(self, request: InferRequest) -> Inferred:
        """Have the child's runner take tensors; fails as :meth:`embed`."""
        found = await self._ask(lambda n: Infer(n, infer_request_to_wire(request)))
        return cast("Inferred", found)

    @abstractmethod
    async def _ask(
        self, frame: Callable[[int], ParentFrame], *, computes: bool = True
    ) -> Value:
        """Send a question, and return what comes of it.

        Args:
            frame: makes it of its number.
            computes: whether the engine runs for it.
        """
