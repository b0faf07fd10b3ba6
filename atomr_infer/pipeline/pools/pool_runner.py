"""`ModelReplicaPool`: deployments that answer for each other.

Who is asked, and who is left alone, is decided in :mod:`.pool`.  A member that fails
before its first words is followed by another one; what comes later cannot be taken
back, and is the client's error.
"""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.capabilities import Feature
from atomr_infer.pipeline.asking.runner import (
    CAPABILITIES,
    GeneratingRunner,
    goes_on_after,
)
from atomr_infer.pipeline.pools.pool import Ended, Pool, ended_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.pipeline.pools.pool import PoolOptions
    from atomr_infer.runtimes.others import Asking, Others

log = logging.getLogger(__name__)

_CAPABILITIES: Capabilities = attrs.evolve(
    CAPABILITIES, features=CAPABILITIES.features | {Feature.EMBEDDINGS, Feature.RERANK}
)


@attrs.define(eq=False)
class _Try:
    """One member asked for a request.

    Attributes:
        model: whom it asks.
        begun: whether the client has something of its answer.
        failed: whether another member is to be asked.
    """

    model: str
    begun: bool = False
    failed: bool = False


class ModelReplicaPool(GeneratingRunner):
    """Asks one of several deployments, and another one where that fails."""

    def __init__(self, name: str, options: PoolOptions, others: Others) -> None:
        """Make a pool all of whose members are well.

        Args:
            name: the deployment's, for the log.
            options: the members, and how they are chosen.
            others: who is asked.
        """
        super().__init__(others)
        self._name = name
        self._options = options
        self.pool = Pool(options)

    @property
    def capabilities(self) -> Capabilities:
        """Everything: who is asked says what it cannot do."""
        return _CAPABILITIES

    async def _chunks(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncGenerator[TokenChunk, None]:
        tried: list[str] = []
        while True:
            with self._member(tried) as asked:
                stream = asking.generate(batch.asked_for(asked.model))
                try:
                    async for chunk in stream:
                        asked.begun = True
                        yield chunk
                finally:
                    await stream.close()
            if not asked.failed:
                return

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return the vectors of some texts.

        Raises:
            InferenceError: that of the last one who was asked.

        Cancellation: ends what is asked.
        """
        tried: list[str] = []
        self._active += 1
        try:
            async with self._others.asking() as asking:
                while True:
                    with self._member(tried) as asked:
                        return await asking.embed(
                            attrs.evolve(request, model=asked.model)
                        )
        finally:
            self._active -= 1

    @contextmanager
    def _member(self, tried: list[str]) -> Iterator[_Try]:
        """Choose a member for the block, and note how the block ends.

        Raises:
            InferenceError: the block's, if no other member is to be asked.
        """
        chosen = self.pool.take(trio.current_time(), tried=tried, random=random.random)
        assert chosen is not None, "no more are tried than there are"
        asked, ended = _Try(chosen.model), Ended.UNKNOWN
        try:
            yield asked
            ended = Ended.ANSWERED
        except InferenceError as error:
            ended = ended_by(error)
            tried.append(asked.model)
            most = min(self._options.attempts, len(self._options.members))
            goes_on = ended is Ended.FAILED or goes_on_after(error)
            if asked.begun or len(tried) >= most or not goes_on:
                raise
            asked.failed = True
        finally:
            news = self.pool.ended(chosen, ended, trio.current_time())
            if news is not None:
                log.warning(
                    "%s: %s is left alone for %g s: %s",
                    self._name,
                    news.model,
                    news.rest_s,
                    news.why,
                )
