"""A runner that plays one act after another, and remembers what it was asked."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    RawChunk,
    TokenChunk,
    Usage,
)
from atomr_infer.model.capabilities import Capabilities, Feature

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

STOP = TokenChunk(finish_reason=FinishReason.STOP)
USAGE = TokenChunk(usage=Usage(input_uncached=3, output_text=2))


@attrs.frozen
class Act:
    """One answer.

    Attributes:
        chunks: what is sent.
        error: what it fails with behind them; None: it hangs where ``hangs``
            says so, and else it is complete.
        hangs: whether it is silent for ever behind the chunks.
        gate: what is waited for before the first chunk; None: nothing.
        before_s: the wait before the first chunk, too.
    """

    chunks: tuple[TokenChunk | RawChunk, ...] = ()
    error: InferenceError | None = None
    hangs: bool = False
    gate: trio.Event | None = None
    before_s: float = 0.0


def says(*texts: str, before_s: float = 0.0, gate: trio.Event | None = None) -> Act:
    """A complete answer."""
    chunks = tuple(TokenChunk(text=text) for text in texts)
    return Act((*chunks, STOP, USAGE), gate=gate, before_s=before_s)


def cut(*texts: str, error: InferenceError | None = None) -> Act:
    """An answer whose connection ends in the middle, or that fails there."""
    return Act(tuple(TokenChunk(text=text) for text in texts), error)


def stalls(*texts: str) -> Act:
    """An answer that is silent for ever behind these words."""
    return Act(tuple(TokenChunk(text=text) for text in texts), hangs=True)


def fails(error: InferenceError) -> Act:
    """A refusal."""
    return Act(error=error)


class Player:
    """A runner; past its acts it answers "ok".

    Attributes:
        batches: what it was asked, oldest first.
        left: answers whose block was left before they were complete.
        peak: the most that ran at once.
    """

    def __init__(
        self,
        acts: Iterable[Act] = (),
        *,
        features: Iterable[Feature] = tuple(Feature),
        max_concurrency: int = 8,
    ) -> None:
        self._acts = iter(acts)
        self.batches: list[ExecuteBatch] = []
        self.left = 0
        self.active = 0
        self.peak = 0
        self.capabilities = Capabilities(
            features=frozenset(features),
            sampling=frozenset({"n", "max_tokens"}),
            max_concurrency=max_concurrency,
        )

    def act(self, batch: ExecuteBatch) -> Act:
        """Return what is done with a request."""
        return next(self._acts, says("ok"))

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk | RawChunk]]:
        self.batches.append(batch)
        act = self.act(batch)
        self.active += 1
        self.peak = max(self.peak, self.active)
        complete = False

        async def play() -> AsyncGenerator[TokenChunk | RawChunk, None]:
            nonlocal complete
            if act.gate is not None:
                await act.gate.wait()
            await trio.sleep(act.before_s)
            for chunk in act.chunks:
                await trio.lowlevel.checkpoint()
                yield chunk
            if act.error is not None:
                raise act.error
            if act.hangs:
                await trio.sleep_forever()
            complete = True

        try:
            async with aclosing(play()) as chunks:
                yield chunks
        finally:
            self.active -= 1
            self.left += not complete

    async def failed(self) -> InferenceError:
        await trio.sleep_forever()
        raise AssertionError("it sleeps for ever")
