"""A context of llama.cpp's that takes nothing amiss, and a model that is a sum.

What follows a sequence depends on all of its tokens, so one that was read at a wrong
place, or goes on from another's cache, says something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer_llamacpp.pieces import Piece

WORDS = 50


def next_of(tokens: Sequence[int]) -> int:
    """The token that follows some others."""
    found = 7
    for token in tokens:
        found = (found * 31 + token + 1) % 10_007
    return found % WORDS


class StrictContext:
    """Has what :class:`~atomr_infer_llamacpp.model.LlamaContext` has.

    Args:
        cache_tokens: cells of the cache; sequences that share tokens share cells.
        batch_tokens: most tokens of a run.

    Attributes:
        read_tokens: tokens that were computed.
        most_cells: most cells that were in use.
        meanwhile: called in each run.
    """

    def __init__(self, *, cache_tokens: int, batch_tokens: int) -> None:
        self._cache_tokens = cache_tokens
        self._batch_tokens = batch_tokens
        self._cells: dict[int, list[tuple[int, int]]] = {}
        self._made = 0
        self.read_tokens = 0
        self.most_cells = 0
        self.meanwhile: Callable[[], object] = int

    def run(
        self, pieces: Sequence[Piece], stopped: Callable[[], bool] | None = None
    ) -> list[Any] | None:
        self.meanwhile()
        count = sum(len(piece.tokens) for piece in pieces)
        assert 0 < count <= self._batch_tokens
        self.read_tokens += count
        wanted = []
        for piece in pieces:
            own = self._cells.setdefault(piece.seq, [])
            assert piece.start == len(own), (piece.start, len(own))
            for token in piece.tokens:
                self._made += 1
                own.append((self._made, token))
            if piece.wants_logits:
                logits = np.zeros(WORDS, np.float32)
                logits[next_of([token for _, token in own])] = 9.0
                wanted.append(logits)
        used = len({cell for own in self._cells.values() for cell, _ in own})
        assert used <= self._cache_tokens, used
        self.most_cells = max(self.most_cells, used)
        # What was computed stays where it is, as in the library.
        return None if stopped is not None and stopped() else wanted

    def copy(self, seq: int, other: int, length: int) -> None:
        assert not self._cells.get(other)
        assert length <= len(self._cells[seq])
        self._cells[other] = self._cells[seq][:length]

    def cut(self, seq: int, length: int) -> None:
        self._cells[seq] = self._cells.get(seq, [])[:length]

    def holds(self, seq: int) -> int:
        return len(self._cells.get(seq, []))
