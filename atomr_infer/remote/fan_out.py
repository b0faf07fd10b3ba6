"""Several answers to one request, from a provider that gives one at a time.

The request is made ``n`` times at once.  The answers are told apart by their
index, which is dense whatever order they come in, and their usage is the sum.
If one of them fails, all do: a client that asked for three cannot be given two.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.exits import unwrap
from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
from atomr_infer.model.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Execute = Callable[
        [ExecuteBatch],
        AbstractAsyncContextManager[AsyncIterator[TokenChunk | RawChunk]],
    ]

_Item = TokenChunk | InferenceError


@asynccontextmanager
async def fan_out(
    batch: ExecuteBatch, execute: Execute
) -> AsyncIterator[AsyncIterator[TokenChunk | RawChunk]]:
    """Run a request for ``n`` answers as ``n`` requests for one.

    Args:
        batch: what was asked; it has no ``source``.
        execute: runs one generation, as ``ModelRunner.execute`` does.

    Raises:
        InferenceError: from the iteration, the first one of any answer.

    Cancellation: leaving the block ends every generation before it passes on.
    """
    alone = attrs.evolve(batch, sampling=attrs.evolve(batch.sampling, n=1))
    send, receive = trio.open_memory_channel[_Item](0)
    try:
        async with trio.open_nursery() as nursery, receive:
            async with send:
                for index in range(batch.sampling.n):
                    nursery.start_soon(_run_one, index, alone, execute, send.clone())
            yield _Merged(receive)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours alone: what the block raised must leave it bare.
        error = unwrap(group)
        if isinstance(error, BaseExceptionGroup):
            raise
        raise error from error.__cause__


async def _run_one(
    index: int,
    batch: ExecuteBatch,
    execute: Execute,
    send: trio.MemorySendChannel[_Item],
) -> None:
    async with send:
        try:
            async with execute(batch) as chunks:
                async for chunk in chunks:
                    assert isinstance(chunk, TokenChunk), "there is no source"
                    await send.send(attrs.evolve(chunk, index=index))
        except InferenceError as error:
            await send.send(error)


class _Merged:
    """Iterates over the answers as they come; the sum of their usage is last."""

    def __init__(self, receive: trio.MemoryReceiveChannel[_Item]) -> None:
        self._receive = receive
        self._usage: Usage | None = None
        self._model: str | None = None
        self._is_over = False

    def __aiter__(self) -> AsyncIterator[TokenChunk]:
        return self

    async def __anext__(self) -> TokenChunk:
        while not self._is_over:
            try:
                item = await self._receive.receive()
            except trio.EndOfChannel:
                self._is_over = True
                return TokenChunk(usage=self._usage or Usage(), model=self._model)
            if isinstance(item, InferenceError):
                self._is_over = True
                raise item
            self._model = item.model or self._model
            if item.usage is None:
                return item
            self._usage = item.usage + (self._usage or Usage())
        raise StopAsyncIteration
