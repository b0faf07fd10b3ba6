"""Which answers are kept, for how long, and how much they are.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.model.batch import TokenChunk
    from atomr_infer.model.embeddings import Vector

V = TypeVar("V")

# What an object is beside its text, about; and a number of a vector.
_CHUNK_BYTES = 500
_NUMBER_BYTES = 32


@attrs.define
class _Entry(Generic[V]):
    value: V
    size_bytes: int
    until: float


class AnswerCache(Generic[V]):
    """Values by key, the least recently used of which go first.

    Attributes:
        max_bytes: how much they may be together.
        size_bytes: how much they are.
    """

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._ttl_s = ttl_s
        self._entries: OrderedDict[bytes, _Entry[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> V | None:
        """Return a value that is not too old, and count it as used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: bytes, value: V, size_bytes: int, now: float) -> None:
        """Keep a value, unless it alone is too large; others may have to go."""
        self._drop(key)
        if size_bytes > self.max_bytes:
            return
        self._entries[key] = _Entry(value, size_bytes, now + self._ttl_s)
        self.size_bytes += size_bytes
        while self.size_bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes


def size_of_chunks(chunks: Sequence[TokenChunk]) -> int:
    """Return about how many bytes an answer takes in memory."""
    return sum(map(size_of_chunk, chunks))


def size_of_chunk(chunk: TokenChunk) -> int:
    """Return about how many bytes a chunk takes in memory."""
    size = _CHUNK_BYTES + len(chunk.text) + len(chunk.refusal)
    size += len(chunk.logprobs or b"")
    size += sum(len(call.arguments) for call in chunk.tool_calls)
    size += sum(map(len, chunk.extra.values()))
    if chunk.reasoning is not None:
        size += len(chunk.reasoning.text)
    return size


def size_of_vector(vector: Vector) -> int:
    """Return about how many bytes a vector takes in memory."""
    return _CHUNK_BYTES + len(vector) * _NUMBER_BYTES
