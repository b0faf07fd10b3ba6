"""Batching: texts of several requests are embedded by one.

The texts of requests that are the same but for them wait together, and go to who is
asked as one request: its queue, limits, budget and retries see one.  Its cost is each
request's by the length of its texts.

Only requests of the same virtual key are put together: one request has one payer, whose
limits and budgets hold for it (decision 0046).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    InvalidRequestError,
    UnsupportedFeatureError,
    UpstreamProtocolError,
)
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer.pipeline.asking.runner import CAPABILITIES, AskingRunner
from atomr_infer.pipeline.asking.sameness import key_of
from atomr_infer.pipeline.asking.tasks import open_tasks
from atomr_infer.pipeline.batching.server import DynamicBatchingServer
from atomr_infer.policy.estimates.shared_usage import split_usage
from atomr_infer.policy.estimates.token_estimate import estimate_input_tokens
from atomr_infer.runtimes.others import Made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.embeddings import Vector
    from atomr_infer.pipeline.batching.queue import BatchingOptions
    from atomr_infer.runtimes.others import Asking, Others

_CAPABILITIES: Capabilities = attrs.evolve(
    CAPABILITIES, features=CAPABILITIES.features | {Feature.EMBEDDINGS}
)


@attrs.define(eq=False)
class _Owner:
    """A request whose texts are asked for.

    Attributes:
        request: the request.
        parts: its part of each request that was made, and of how many it was one.
        usage: what its texts used.
        model: the model that served.
        labels: what the vectors' numbers are the probabilities of.
    """

    request: EmbedRequest
    parts: list[tuple[Made, int]] = attrs.field(factory=list)
    usage: Usage | None = None
    model: str | None = None
    labels: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class _Text:
    """One text of a request.

    Attributes:
        text: it, or its token ids.
        size: about how many tokens it has.
        owner: whose it is.
    """

    text: str | tuple[int, ...]
    size: int
    owner: _Owner


class BatchingRunner(AskingRunner):
    """Asks for the vectors of many requests at once; passes generations on."""

    def __init__(self, options: BatchingOptions, others: Others) -> None:
        super().__init__(others)
        self._options = options
        self.server = DynamicBatchingServer[_Text, "Vector"](
            self._embed, options, divides=_is_of_one
        )

    @property
    def capabilities(self) -> Capabilities:
        """Everything: who is asked says what it cannot do."""
        return _CAPABILITIES

    @asynccontextmanager
    async def _answer(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        # An engine puts generations together by itself, token by token.
        yield asking.generate(batch.asked_for(self._options.model))

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return the vectors of some texts, which were asked for with others'.

        Raises:
            InferenceError: that of who is asked; an error that another request's
                texts are to blame for is not this one's.

        Cancellation: ends what is asked for this request only.
        """
        owner = _Owner(attrs.evolve(request, model=self._options.model))
        texts = [_Text(x, estimate_input_tokens(x), owner) for x in request.inputs]
        self._active += 1
        try:
            async with self._others.asking() as asking:
                try:
                    found = await self.server.ask_all(
                        texts,
                        sizes=[text.size for text in texts],
                        priority=request.priority,
                        lane=_lane_of(owner.request),
                    )
                finally:
                    for part, count in owner.parts:
                        asking.take_part(part, f"batch of {count}")
        finally:
            self._active -= 1
        vectors: list[Vector] = []
        for each in found:
            if isinstance(each, Exception):
                raise each
            vectors.append(each)
        return Embeddings(
            vectors=tuple(vectors),
            usage=owner.usage or Usage(),
            model=owner.model,
            labels=owner.labels,
        )

    async def _embed(self, texts: Sequence[_Text]) -> Sequence[Vector]:
        """Ask for the vectors of a batch."""
        asked = attrs.evolve(
            texts[0].owner.request,
            inputs=tuple(text.text for text in texts),
            priority=max(text.owner.request.priority for text in texts),
            # Those who wait have bounds of their own.
            timeout_s=None,
        )
        sizes: dict[_Owner, int] = {}
        for text in texts:
            sizes[text.owner] = sizes.get(text.owner, 0) + text.size
        weights = [max(size, 1) for size in sizes.values()]
        async with self._others.asking() as asking:
            try:
                found = await asking.embed(asked)
            finally:
                for made in asking.made:
                    for owner, part in zip(sizes, made.split(weights), strict=True):
                        owner.parts.append((part, len(texts)))
        if len(found.vectors) != len(texts):
            told = f"{len(found.vectors)} vectors for {len(texts)} texts"
            raise UpstreamProtocolError(f"{self._options.model} returned {told}")
        usages = split_usage(found.usage, weights)
        for owner, usage in zip(sizes, usages, strict=True):
            owner.usage = usage if owner.usage is None else owner.usage + usage
            owner.model, owner.labels = found.model, found.labels
        return found.vectors


def _lane_of(request: EmbedRequest) -> tuple[bytes, str | None]:
    """Return what requests have in common that may be asked for together."""
    return key_of(request, shared_by="key"), request.user


def _is_of_one(error: Exception) -> bool:
    """Whether one text may be to blame, and not what all requests have in common."""
    return isinstance(error, InvalidRequestError) and not isinstance(
        error, UnsupportedFeatureError
    )


@asynccontextmanager
async def open_batching(
    options: BatchingOptions, others: Others
) -> AsyncIterator[BatchingRunner]:
    """Return a block in which batches are made; its end ends what is asked."""
    runner = BatchingRunner(options, others)
    async with open_tasks() as nursery:
        nursery.start_soon(runner.server.run)
        yield runner
