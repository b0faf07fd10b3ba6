"""A runtime whose start waits for the test, or fails as the test says.

It embeds, too: a text becomes the number of its letters, and the number asked for.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import EngineStartError
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer.runtimes.contract import Host, Progress, RunnerContext, RuntimePlugin
from atomr_infer.testing.mock import MockRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment


@attrs.define
class WaitingPlugin(RuntimePlugin):
    """Options: ``load_s``, seconds of loading; ``fails``, whether it then fails.

    Attributes:
        loading: set when one is being loaded.
        embedded: the inputs of each request for vectors.
    """

    loading: threading.Event = attrs.field(factory=threading.Event)
    embedded: list[tuple[object, ...]] = attrs.field(factory=list)

    name = "waiting"
    summary = "for tests"
    host = Host.IN_PROCESS

    def validate(self, deployment: Deployment) -> None:
        """Anything goes."""

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[MockRunner]:
        context.progress(Progress("loading weights", 1, 2))
        self.loading.set()
        load_s = deployment.options.get("load_s", 0.0)
        assert isinstance(load_s, float)
        await trio.sleep(load_s)
        if deployment.options.get("fails"):
            raise EngineStartError("the weights are damaged")
        yield EmbeddingRunner(self.embedded)


class EmbeddingRunner(MockRunner):
    """A mock that embeds."""

    def __init__(self, embedded: list[tuple[object, ...]]) -> None:
        super().__init__()
        self._embedded = embedded

    async def embed(self, request: EmbedRequest) -> Embeddings:
        self._embedded.append(request.inputs)
        await trio.sleep(0.01)
        last = float(request.dimensions or 0)
        vectors = tuple((float(len(each)), last) for each in request.inputs)
        return Embeddings(vectors=vectors, usage=Usage(input_uncached=len(vectors)))


PLUGIN = WaitingPlugin()
