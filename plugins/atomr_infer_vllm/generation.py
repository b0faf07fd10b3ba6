"""One generation: a task of vLLM's loop that takes outputs, a trio task that reads.

The task takes an output only when the reader has room.  While it does not, vLLM
joins what is new into one output, so a slow reader costs at most the memory of one
answer, and nobody else's time.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import EngineError
from atomr_infer_vllm.faults import to_inference_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from atomr_infer.model.batch import TokenChunk
    from atomr_infer_vllm.answer import Answer, Output
    from atomr_infer_vllm.loop import LoopThread

WINDOW = 16
"""Outputs that are taken and not read."""

_BACK = WINDOW // 2
"""Room is given back in halves: each time wakes the other thread."""


class Generation:
    """An answer that is being made; iterate it for its chunks.

    Args:
        loop: vLLM's.
        outputs: makes the engine's stream of outputs; called in the loop.
        answer: turns outputs into chunks.
    """

    def __init__(
        self,
        loop: LoopThread,
        outputs: Callable[[], AsyncGenerator[Output, None]],
        answer: Answer,
    ) -> None:
        self._loop = loop
        self._outputs = outputs
        self._answer = answer
        self._room = asyncio.Semaphore(WINDOW)
        self._read = 0
        send, self._receive = trio.open_memory_channel[list["TokenChunk"]](math.inf)
        self._send = send
        self._chunks: list[TokenChunk] = []
        self._task = loop.start(self._pump)

    # --- the reader's side: trio --------------------------------------------------

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> TokenChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: the answer is complete.
            InferenceError: it failed.
        """
        while not self._chunks:
            try:
                self._chunks = (await self._receive.receive())[::-1]
            except trio.EndOfChannel:
                await self._task.ended.wait()
                if self._task.error is not None:
                    raise to_inference_error(self._task.error) from self._task.error
                raise StopAsyncIteration from None
            self._give_back()
        return self._chunks.pop()

    def _give_back(self) -> None:
        self._read += 1
        if self._read % _BACK == 0:
            self._loop.soon(self._make_room)

    async def leave(self) -> None:
        """Have the engine drop it, if it has not ended; shielded."""
        if not self._task.ended.is_set():
            await self._task.cancel()
        self._receive.close()

    # --- the engine's side: the loop ------------------------------------------------

    def _make_room(self) -> None:
        for _ in range(_BACK):
            self._room.release()

    async def _pump(self) -> None:
        finished = False
        try:
            # Closed here: when it is cancelled while it waits for room, the engine's
            # stream would not hear of it, and the engine would go on.
            async with aclosing(self._outputs()) as outputs:
                async for output in outputs:
                    chunks = self._answer.take(output)
                    finished = output.finished
                    self._loop.to_trio(self._take, chunks)
                    if not finished:
                        await self._room.acquire()
            if not finished:
                raise EngineError("vLLM ended the answer without saying why")
        finally:
            self._loop.to_trio(self._send.close)

    def _take(self, chunks: list[TokenChunk]) -> None:
        try:
            self._send.send_nowait(chunks)
        except trio.BrokenResourceError:
            """It was left: nobody reads what was on the way."""
