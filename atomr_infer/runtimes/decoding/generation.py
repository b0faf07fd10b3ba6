"""One request in the engine, and the reader of its answers.

All of it belongs to the event loop; the engine's thread sees it only while a
step runs, and the event loop leaves it alone then but for ``leave``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from atomr_infer.model.batch import TokenChunk, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer.errors import InferenceError
    from atomr_infer.runtimes.decoding.answer import Answer

WINDOW = 64
"""Unread chunks at which a request's answers rest until they are read."""


class Generation:
    """Answers that are being made.

    Args:
        prompt: the prompt's tokens.
        answers: one for each of ``n``.
        most: most tokens of an answer.
        wake: called when the engine may have something to do.

    Attributes:
        ended: set when it is out of the engine.
        left: whether the reader is gone.
        cached: tokens of the prompt that were in the engine's cache already.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        answers: Sequence[Answer],
        most: int,
        wake: Callable[[], None],
    ) -> None:
        self.prompt = prompt
        self.answers = answers
        self.cache_tokens = len(answers) * (len(prompt) + most)
        self.ended = trio.Event()
        self.left = False
        self.cached = 0
        self._wake_engine = wake
        self._chunks: deque[TokenChunk] = deque()
        self._wake = trio.Event()
        self._error: InferenceError | None = None

    @property
    def rests(self) -> bool:
        """Whether its reader has enough to read."""
        return len(self._chunks) >= WINDOW

    # --- the reader's side -----------------------------------------------------

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> TokenChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: the answers are complete.
            InferenceError: it failed.
        """
        # Chunks that are already here must not starve the other tasks.
        await trio.lowlevel.checkpoint()
        while not self._chunks:
            if self.ended.is_set():
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._wake = trio.Event()
            await self._wake.wait()
        rested = self.rests
        chunk = self._chunks.popleft()
        if rested:
            self._wake_engine()
        return chunk

    async def leave(self) -> None:
        """Wait until the engine works on it no more.

        Cancellation: shielded; takes the rest of the current step.
        """
        self.left = True
        self._wake_engine()
        with trio.CancelScope(shield=True):
            await self.ended.wait()

    # --- the engine's side -----------------------------------------------------

    def deliver(self, chunk: TokenChunk) -> None:
        """Take what is new."""
        self._chunks.append(chunk)
        self._wake.set()

    def end(self, error: InferenceError | None = None) -> None:
        """Note that it is out of the engine; the reader gets what came before."""
        if self.ended.is_set():
            return
        if error is None and not self.left:
            self._chunks.append(TokenChunk(usage=self._usage()))
        self._error = error
        self.ended.set()
        self._wake.set()

    def _usage(self) -> Usage:
        made = sum(answer.count for answer in self.answers)
        drafts = [each.drafts for each in self.answers if each.drafts is not None]
        return Usage(
            input_uncached=len(self.prompt) - self.cached,
            cache_read=self.cached,
            output_text=made,
            drafted=sum(each.drafted for each in drafts),
            drafts_accepted=sum(each.accepted for each in drafts),
        )
