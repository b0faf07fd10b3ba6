"""What an actor is given with a request: the way to the deployments that it asks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from atomr_infer.actors.refs import Caller, Lookups
from atomr_infer.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.model.tensors import Inferred, InferRequest
    from atomr_infer.runtimes.others import Asking


@attrs.frozen
class Context(Lookups):
    """A request's, from its beginning to its end.

    What is asked through it belongs to that request: it ends with it, whoever made the
    request pays for it, and it is a stage of it in the log.

    Attributes:
        request_id: the request's, as it stands in the log.
        asks: the names that may be looked up.
    """

    request_id: str
    asks: frozenset[str]
    _caller: Caller = attrs.field(repr=False)

    def _caller_of(self, name: str) -> Caller:
        if name not in self.asks:
            known = ", ".join(sorted(self.asks)) or "nobody"
            raise InternalError(
                f"lookup({name!r}): this actor asks {known}; add the name to asks, in "
                "its decorator or in the options of its deployment"
            )
        return self._caller


class StageCaller:
    """Asks from inside a request, for who has made it.

    Args:
        asking: the block in which others are asked; None: nobody is.
        batch: the request.
    """

    def __init__(self, asking: Asking | None, batch: ExecuteBatch) -> None:
        self._asking = asking
        self._batch = batch

    def new_id(self) -> str:
        """Return the request's, which is made another one for each stage."""
        return self._batch.request_id

    @asynccontextmanager
    async def generate(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Ask as the one who asks for this."""
        outer = self._batch
        chunks = self._others().generate(
            attrs.evolve(
                batch,
                user=outer.user,
                client_headers=outer.client_headers,
                session=outer.session,
                priority=outer.priority,
                asker=outer.asker,
            )
        )
        try:
            yield chunks
        finally:
            await chunks.close()

    async def vectors(self, request: EmbedRequest) -> Embeddings:
        """Ask as the one who asks for this."""
        outer = self._batch
        return await self._others().embed(
            attrs.evolve(
                request, user=outer.user, priority=outer.priority, asker=outer.asker
            )
        )

    async def tensors(self, request: InferRequest) -> Inferred:
        """Ask as the one who asks for this."""
        outer = self._batch
        return await self._others().infer(
            attrs.evolve(request, priority=outer.priority, asker=outer.asker)
        )

    def _others(self) -> Asking:
        assert self._asking is not None, "only who is in asks is asked"
        return self._asking
