"""Sinks for programs: one that keeps everything, one that is read as it comes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.model.batch import TokenChunk
from atomr_infer.model.collected import Collected
from atomr_infer.serving.requests.request import run_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from atomr_infer.model.batch import ExecuteBatch, RawChunk
    from atomr_infer.serving.requests.served import Served
    from atomr_infer.serving.shared import Serving


class CollectingSink:
    """Keeps everything.

    Attributes:
        answer: the chunks so far, put together.
    """

    def __init__(self) -> None:
        self.answer = Collected()
        self._served: Served | None = None

    @property
    def served(self) -> Served:
        """Who answers; known once the answer has begun."""
        assert self._served is not None, "a request that succeeds has begun"
        return self._served

    async def begin(self, served: Served) -> None:
        """Take the news that the answer starts."""
        self._served = served

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        """Keep a chunk."""
        assert isinstance(chunk, TokenChunk), "there is no source to pass on"
        self.answer.add(chunk)


class ChunkStream:
    """A sink on one side, an iterator on the other; nothing is buffered.

    Its task is shielded: it ends by :meth:`stop` only, so that a cancellation
    from outside has one way to the reader, through the block's own body.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[TokenChunk](0)
        self._scope = trio.CancelScope(shield=True)
        self._error: Exception | None = None

    async def run(self, serving: Serving, batch: ExecuteBatch) -> None:
        """Run the request; what it raises goes to the reader.

        Cancellation: none from outside; see :meth:`stop`.
        """
        with self._scope, self._send:
            try:
                await run_request(serving, batch, self)
            except Exception as error:  # noqa: BLE001 - raised by __anext__
                self._error = error

    def stop(self) -> None:
        """End the generation; a late reader gets an error, not a short answer."""
        self._scope.cancel()
        self._receive.close()

    async def begin(self, served: Served) -> None:
        """Nothing to do: the reader sees chunks only."""

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        """Hand a chunk over; returns when it was taken."""
        assert isinstance(chunk, TokenChunk), "there is no source to pass on"
        await self._send.send(chunk)

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> TokenChunk:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._error from self._error.__cause__
            raise StopAsyncIteration from None


@asynccontextmanager
async def streamed(
    serving: Serving,
    batch: ExecuteBatch,
    at_home: Callable[[], AbstractContextManager[None]],
) -> AsyncIterator[ChunkStream]:
    """Run a request for the length of the block, and give its chunks.

    Args:
        serving: the serving tree.
        batch: the request.
        at_home: a block in which names are looked up on the tree's node.
    """
    chunks = ChunkStream()
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        with at_home():
            nursery.start_soon(chunks.run, serving, batch)
        try:
            yield chunks
        except BaseException as error:  # noqa: BLE001 - raised again below
            # Kept away from the nursery, which would wrap it in a group.
            raised = error
        chunks.stop()
    if raised is not None:
        raise raised
