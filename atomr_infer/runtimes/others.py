"""What a runner needs that asks other deployments: a pipeline's.

A plugin that :class:`Composes` gets :class:`Others` with its context.  What it asks
goes the way of every request: routing, limits, budgets, retries, fallbacks, costs and
cancellation hold by themselves, and are those of the deployment that is asked.

A runner asks inside a block of :meth:`Others.asking`, and enters that block where it
begins a generation: the block holds the tasks of what is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.cost import CostEstimate
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.model.tensors import Inferred, InferRequest


class Stream(Protocol):
    """The chunks of one answer, which is under way from the start."""

    def __aiter__(self) -> Stream: ...

    async def __anext__(self) -> TokenChunk:
        """Return the next chunk; what comes next waits until it is asked for.

        Raises:
            InferenceError: it failed.
        """
        ...

    async def close(self) -> None:
        """End the generation, if it is not over; what it used is billed."""
        ...

    def judge(self, verdict: str) -> None:
        """Say what became of the answer, for the log and the client's headers."""
        ...


class Made(Protocol):
    """A request that was made of others, and has ended: who was asked, what it cost."""

    def split(self, weights: Sequence[int]) -> Sequence[Made]:
        """Return its parts, where it was made for several requests.

        Args:
            weights: how much of it was for each, at least 0; for one at least more.
        """
        ...


class Asking(Protocol):
    """A block in which others are asked."""

    @property
    def made(self) -> Sequence[Made]:
        """What was asked for vectors in this block, the last one last."""
        ...

    def take_part(self, part: Made, verdict: str) -> None:
        """Say that another block asked for this one, too, and what its part is."""
        ...

    def generate(self, batch: ExecuteBatch) -> Stream:
        """Ask who serves ``batch.model``; its ``request_id`` is the runner's.

        Raises:
            InferenceError: deployments ask each other too deep.
        """
        ...

    def note(self, model: str, verdict: str) -> None:
        """Say that nobody was asked for a model's answer, and why."""
        ...

    async def estimate(self, batch: ExecuteBatch) -> CostEstimate | None:
        """Return what a request may cost; nothing is asked.

        Returns:
            None when the price of ``batch.model`` is not known.

        Raises:
            ModelNotFoundError: nobody serves it.
        """
        ...

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Ask who serves ``request.model`` for vectors.

        Raises:
            InferenceError: it failed.

        Cancellation: ends it.
        """
        ...

    async def infer(self, request: InferRequest) -> Inferred:
        """Ask who serves ``request.model`` what it makes of tensors.

        Raises:
            InferenceError: it failed, or the model takes no tensors like these.

        Cancellation: ends it.
        """
        ...


class Others(Protocol):
    """The deployments of the gateway, by their public names."""

    def asking(self) -> AbstractAsyncContextManager[Asking]:
        """Return a block in which they are asked; its end ends what is asked."""
        ...


@runtime_checkable
class Composes(Protocol):
    """A plugin whose runners ask other deployments; it lives in this process."""

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the public names of the models that it asks, each once.

        Raises:
            ConfigError: its options cannot be read.
        """
        ...
