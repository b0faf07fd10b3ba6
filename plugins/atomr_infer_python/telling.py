"""From what the user's code yields to an answer: stop strings, the bound, usage.

A piece is a text.  One that knows more may be a ``TokenChunk``, and a ``Usage`` says
what was counted elsewhere.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InternalError
from atomr_infer.model.batch import FinishReason, TokenChunk
from atomr_infer.model.usage import Usage
from atomr_infer.runtimes.decoding.text import StopFinder

if TYPE_CHECKING:
    from collections.abc import Sequence

Piece = str | TokenChunk | Usage


def piece_of(yielded: object, who: str) -> Piece:
    """Return what was yielded, when it is a piece of an answer.

    Raises:
        InternalError: it is not.
    """
    if isinstance(yielded, str | TokenChunk | Usage):
        return yielded
    raise InternalError(
        f"{who} yields {type(yielded).__name__}; a piece of an answer is a str, a "
        "TokenChunk or a Usage"
    )


class Telling:
    """One answer on its way.

    Args:
        stops: texts that end it.
        most: most tokens; None: no bound.
        prompt_tokens: the tokens of the prompt.
        estimated: whether tokens are counted without a tokenizer.

    Attributes:
        over: whether nothing more is wanted.
    """

    def __init__(
        self,
        stops: Sequence[str],
        most: int | None,
        prompt_tokens: int,
        *,
        estimated: bool,
    ) -> None:
        self.over = False
        self._finished = False
        self._estimated = estimated
        self._stops = StopFinder(stops)
        self._most = most
        self._prompt_tokens = prompt_tokens
        self._made = 0
        self._usage: Usage | None = None

    def take(self, piece: Piece, tokens: int) -> TokenChunk | None:
        """Take a piece; return what is to be told of it.

        Args:
            piece: what was yielded.
            tokens: how many tokens its text has.
        """
        if isinstance(piece, Usage):
            self._usage = piece
            return None
        if isinstance(piece, str):
            piece = TokenChunk(text=piece)
        if piece.usage is not None:
            self._usage = piece.usage
            piece = attrs.evolve(piece, usage=None)
        if self._finished:
            return None  # what is behind the finish is counted, and not told
        if piece.text and self._most is not None and self._made + tokens > self._most:
            return self._finish(FinishReason.LENGTH, self._stops.flush())
        self._made += tokens if piece.text else 0
        return self._told(piece)

    def _told(self, piece: TokenChunk) -> TokenChunk | None:
        told = self._stops.push(piece.text)
        if told.stop is not None:
            done = self._finish(FinishReason.STOP, told.text)
            return attrs.evolve(done, stop_sequence=told.stop)
        text = told.text
        if piece.finish_reason is not None:
            self._finished = True
            text += self._stops.flush()
        elif self._made == self._most:
            return self._finish(FinishReason.LENGTH, text + self._stops.flush())
        chunk = attrs.evolve(piece, text=text)
        is_new = chunk.has_content or chunk.finish_reason is not None
        return chunk if is_new or chunk.logprobs is not None else None

    def end(self) -> TokenChunk | None:
        """Return the last piece: the code has said all that it has to say."""
        self.over = True
        if self._finished:
            return None
        return self._finish(FinishReason.STOP, self._stops.flush())

    def _finish(self, reason: FinishReason, text: str) -> TokenChunk:
        self.over = True
        return TokenChunk(text=text, finish_reason=reason)

    @property
    def usage(self) -> TokenChunk:
        """The chunk behind the finish."""
        counted = Usage(
            input_uncached=self._prompt_tokens,
            output_text=self._made,
            estimated=self._estimated,
        )
        return TokenChunk(usage=self._usage or counted)
