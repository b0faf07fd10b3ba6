"""What a program asks of deployments: the half of the facade that makes requests.

Each call is a request like any other; only its parts are plain Python values.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Unpack

from atomr.process.context import NODE
from atomr_infer.actors.refs import Caller, Lookups
from atomr_infer.model.conversation import ChatReply, request_of
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import InferRequest
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.sinks import CollectingSink, streamed
from atomr_infer.serving.requests.whole_calls import embed, infer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from atomr.process import Node
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.conversation import Conversation, SamplingOptions
    from atomr_infer.model.cost import CostEstimate
    from atomr_infer.model.embeddings import Embeddings
    from atomr_infer.model.tensors import Inferred, Tensor
    from atomr_infer.serving.shared import Serving


class Requests(Lookups):
    """Requests to the deployments of one serving tree.

    Args:
        serving: the tree.
        node: the node of processes that it stands on.
    """

    def __init__(self, serving: Serving, node: Node) -> None:
        self._serving = serving
        self._node = node

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Look process names up on this cluster's node, whatever task this is.

        A task belongs to the node that was opened last around it: another cluster's,
        or none.  The methods here do it themselves; a gateway's and atomr's need it.
        """
        outer = NODE.get()
        NODE.set(self._node)
        try:
            yield
        finally:
            NODE.set(outer)

    def _caller_of(self, name: str) -> Caller:
        self._serving.table.resolve(name)
        return _Caller(self._serving, self.at_home)

    async def chat(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> ChatReply:
        """Return the whole answer to a conversation.

        Raises:
            InferenceError: the request failed.

        Cancellation: ends the generation.
        """
        collected = CollectingSink()
        batch = _batch(model, conversation, sampling, stream=False)
        with self.at_home():
            await run_request(self._serving, batch, collected)
        return _reply_of(collected)

    def stream(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]:
        """Give the answer's chunks as they are made.

        Leaving the block early ends the generation; when the block has been
        left, the engine is free.

        Raises:
            InferenceError: from the iteration, when the request fails.  What
                the block itself raises leaves it as it is, in no group.
        """
        batch = _batch(model, conversation, sampling, stream=True)
        return streamed(self._serving, batch, self.at_home)

    async def embed(
        self, model: str, *texts: str, dimensions: int | None = None
    ) -> Embeddings:
        """Return a vector for each text, in order, and what they used.

        Args:
            model: who is asked.
            texts: one at least.
            dimensions: how long each vector shall be; None: the model's own length.

        Raises:
            InferenceError: it failed, or the model embeds nothing.
            ValueError: there is no text.

        Cancellation: ends the request.
        """
        if not texts:
            raise ValueError(
                f"embed({model!r}): there is no text; give it at least one"
            )
        request = EmbedRequest(
            request_id=_new_id(),
            model=model,
            inputs=texts,
            dimensions=dimensions,
        )
        with self.at_home():
            return (await embed(self._serving, request)).value

    async def infer(
        self, model: str, *inputs: Tensor, outputs: Iterable[str] = ()
    ) -> Inferred:
        """Return what a model makes of tensors: the named outputs, or all.

        Raises:
            InferenceError: it failed, or the model takes others; it says which.

        Cancellation: ends the request.
        """
        request = InferRequest(
            request_id=_new_id(), model=model, inputs=inputs, outputs=tuple(outputs)
        )
        with self.at_home():
            return (await infer(self._serving, request)).value

    async def estimate_cost(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> CostEstimate | None:
        """Return what :meth:`chat` may cost, None where no price is known.

        Raises:
            ModelNotFoundError: nobody serves the model.
        """
        batch = _batch(model, conversation, sampling, stream=False)
        with self.at_home():
            return await self._serving.estimate_cost(batch)


class _Caller:
    """Asks as a program does."""

    def __init__(
        self, serving: Serving, at_home: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._serving = serving
        self._at_home = at_home

    def new_id(self) -> str:
        return _new_id()

    def generate(
        self, batch: ExecuteBatch
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]:
        return streamed(self._serving, batch, self._at_home)

    async def vectors(self, request: EmbedRequest) -> Embeddings:
        with self._at_home():
            return (await embed(self._serving, request)).value

    async def tensors(self, request: InferRequest) -> Inferred:
        with self._at_home():
            return (await infer(self._serving, request)).value


def _new_id() -> str:
    return os.urandom(12).hex()


def _batch(
    model: str, conversation: Conversation, sampling: SamplingOptions, *, stream: bool
) -> ExecuteBatch:
    return request_of(
        model, conversation, sampling, stream=stream, request_id=_new_id()
    )


def _reply_of(sink: CollectingSink) -> ChatReply:
    choice = sink.answer.choice()
    return ChatReply(
        text=choice.text,
        finish_reason=choice.finish_reason,
        usage=sink.answer.usage,
        deployment=sink.served.deployment,
        attempts=len(sink.served.attempts),
    )
