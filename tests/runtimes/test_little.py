"""The least that each kind of runner is asked for is what it is for."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest

from atomr_infer.model.batch import ExecuteBatch, TokenChunk
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.tensors import (
    ANY_SIZE,
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    TensorSpec,
    check_tensors,
)
from atomr_infer.model.usage import Usage
from atomr_infer.runtimes.little import ask_little

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from atomr_infer.runtimes.contract import ModelRunner

SIGNATURE = Signature(
    inputs=(
        TensorSpec("ids", Datatype.INT64, (ANY_SIZE, ANY_SIZE)),
        TensorSpec("image", Datatype.BF16, (ANY_SIZE, 3, 2)),
        TensorSpec("words", Datatype.BYTES, (2,)),
        TensorSpec("scale", Datatype.FP32, ()),
    ),
    outputs=(),
)


class Noting:
    """A runner that notes what it is asked, and writes without end."""

    def __init__(self, *features: Feature) -> None:
        self.capabilities = Capabilities(
            features=frozenset(features), signature=SIGNATURE
        )
        self.asked: list[ExecuteBatch | EmbedRequest | InferRequest] = []
        self.made = 0

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Write."""
        self.asked.append(batch)
        async with aclosing(self._write()) as written:
            yield written

    async def _write(self) -> AsyncGenerator[TokenChunk, None]:
        while True:
            self.made += 1
            yield TokenChunk(text="a")

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return a number."""
        self.asked.append(request)
        return Embeddings(vectors=((1.0,),), usage=Usage())

    async def infer(self, request: InferRequest) -> Inferred:
        """Return nothing."""
        self.asked.append(request)
        return Inferred(outputs=())


async def asked_of(*features: Feature) -> Noting:
    runner = Noting(*features)
    await ask_little(cast("ModelRunner", runner), request_id="r", model="m", tokens=3)
    return runner


@pytest.mark.parametrize(
    ("feature", "prompt"), [(Feature.CHAT, None), (Feature.COMPLETIONS, "Hi")]
)
async def test_who_writes_is_asked_for_some_tokens(
    feature: Feature, prompt: str | None
) -> None:
    runner = await asked_of(feature, Feature.INFER)
    [batch] = runner.asked
    assert isinstance(batch, ExecuteBatch)
    assert (batch.prompt, batch.sampling.max_tokens, runner.made) == (prompt, 3, 3)


@pytest.mark.parametrize(
    ("feature", "query", "classifies"),
    [
        (Feature.EMBEDDINGS, None, False),
        (Feature.RERANK, "Hi", False),
        (Feature.CLASSIFY, None, True),
    ],
)
async def test_who_reads_is_asked_for_one_text(
    feature: Feature, query: str | None, classifies: bool
) -> None:
    [request] = (await asked_of(feature)).asked
    assert isinstance(request, EmbedRequest)
    assert (request.query, request.classifies) == (query, classifies)


async def test_who_takes_tensors_is_given_the_smallest() -> None:
    [request] = (await asked_of(Feature.INFER)).asked
    assert isinstance(request, InferRequest)
    check_tensors(request, SIGNATURE)
    shapes = {tensor.name: tensor.shape for tensor in request.inputs}
    assert shapes == {"ids": (1, 1), "image": (1, 3, 2), "words": (2,), "scale": ()}
    assert request.inputs[2].values() == [b"", b""]


async def test_of_whom_nothing_is_known_nothing_is_asked() -> None:
    assert (await asked_of(Feature.COUNT_TOKENS)).asked == []
