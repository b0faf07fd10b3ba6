"""Snapshots: a whole shard in chunks, for whoever lacks more than the log holds.

A snapshot is one instant of a shard: its vector, and each key with its entries.  It
travels in chunks, as it may be large, and is joined when all of them are there.  The
vector is in the first chunk and adopted with the last: a vector without its entries
would make them read as removed.

Pure.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from atomr.crdt.causal_context import CausalContext
from atomr.crdt.errors import MalformedError
from atomr.crdt.origin import Origin
from atomr.crdt.wire import Entry, Key, Seq, is_sound, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atomr.crdt.replicated import Replicated

CHUNK_BYTES = 64 * 1024
"""Small enough that what else goes over the link is not held up."""
MAX_CHUNKS = 4_096
"""A quarter of a gigabyte: no shard is as large, and no peer may fill the memory."""

_ENTRY_BYTES = 48

Pairs: TypeAlias = tuple[tuple[Origin, Seq], ...]
Cells: TypeAlias = dict[str, dict[Key, tuple[Entry, ...]]]


class Cell(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key of one replica.

    Attributes:
        crdt: its id.
        key: in it.
        entries: sorted by their dots.
    """

    crdt: str
    key: Key
    entries: tuple[Entry, ...]


class Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of a snapshot.

    Attributes:
        number: from 0.
        of: how many there are.
        vector: of the instant; the same in all chunks, and so are the retired.
        retired: origins without entries, with their last event.
        cells: keys, whole ones.
    """

    number: int
    of: int
    vector: Pairs
    retired: Pairs
    cells: tuple[Cell, ...]


def take_chunks(
    replicas: Mapping[str, Replicated],
    vector: Mapping[Origin, int],
    retired: Mapping[Origin, int],
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Chunk, ...]:
    """Return a snapshot of this instant; at least one chunk.

    Cost: of all keys; the entries themselves are shared, not copied.
    """
    groups: list[list[Cell]] = [[]]
    size = 0
    for crdt_id, replica in replicas.items():
        for key, entries in replica.cells().items():
            for entry in entries:
                size += _ENTRY_BYTES + len(entry.body)
            if size > chunk_bytes and groups[-1]:
                groups.append([])
                size = 0
            groups[-1].append(Cell(crdt_id, key, entries))
    pairs = tuple(sorted(vector.items())), tuple(sorted(retired.items()))
    return tuple(
        [Chunk(n, len(groups), *pairs, tuple(cells)) for n, cells in enumerate(groups)]
    )


class Assembly:
    """Chunks of one snapshot, until all are there.

    What can be done with a chunk alone, such as hashing its keys, is done when it
    comes: the join of the whole, which nobody may see a half of, is short then.  What
    is the same here is not held twice, so that nothing is left to be compared, and to
    be freed, all at once.

    Attributes:
        of: how many there are.
        vector: of the instant.
        retired: origins without entries, with their last event.
        cells: what is there, by replica and key.
        marks: the hash of each of them that is not the same here.

    Args:
        first: any of its chunks; to be added still.
        ours: the replicas here, bound to a log.

    Raises:
        MalformedError: it has no chunks, or too many.
    """

    __slots__ = (
        *("_numbers", "_ours", "_seen"),
        *("cells", "marks", "of", "retired", "vector"),
    )

    def __init__(
        self,
        first: Chunk,
        *,
        ours: Mapping[str, Replicated] = MappingProxyType({}),
    ) -> None:
        if not 0 < first.of <= MAX_CHUNKS:
            raise MalformedError("a snapshot", f"it has {first.of} chunks")
        self.of = first.of
        self.vector = first.vector
        self.retired = first.retired
        self.cells: Cells = {}
        self.marks: dict[str, dict[Key, int]] = {}
        self._seen = context_of(first.vector)
        self._numbers: set[int] = set()
        self._ours = ours

    @classmethod
    def of_chunks(cls, chunks: Sequence[Chunk]) -> Assembly:
        """Return the assembly of these chunks.

        Raises:
            MalformedError: they are not of one snapshot.
        """
        assembly = cls(chunks[0])
        for chunk in chunks:
            assembly.add(chunk)
        return assembly

    def add(self, chunk: Chunk) -> bool:
        """Add a chunk; return whether all are there.

        Raises:
            MalformedError: it is of another snapshot, or holds what the snapshot
                has not seen.
        """
        if chunk.of != self.of or not 0 <= chunk.number < self.of:
            raise MalformedError("a snapshot", f"chunk {chunk.number} of {chunk.of}")
        if chunk.vector != self.vector:
            raise MalformedError("a snapshot", "its chunks are not of one instant")
        if chunk.number not in self._numbers:
            for cell in chunk.cells:
                _check(cell.entries, self._seen)
            for cell in chunk.cells:
                self._add_cell(cell)
            self._numbers.add(chunk.number)
        return self.is_whole

    @property
    def is_whole(self) -> bool:
        """Whether all chunks are there."""
        return len(self._numbers) == self.of

    @property
    def next_number(self) -> int:
        """The first chunk that is not there."""
        return next(n for n in range(self.of + 1) if n not in self._numbers)

    def _add_cell(self, cell: Cell) -> None:
        crdt, key, entries = cell.crdt, cell.key, cell.entries
        mark = mark_of(crdt, key, entries)
        ours = self._ours.get(crdt)
        if ours is not None and ours.marks().get(key) == mark:
            entries = ours.cells()[key]
        else:
            self.marks.setdefault(crdt, {})[key] = mark
        self.cells.setdefault(crdt, {})[key] = entries


def context_of(*pairs: Iterable[tuple[Origin, int]]) -> CausalContext:
    """Return the context of one or more vectors without gaps."""
    return CausalContext({origin: seq for some in pairs for origin, seq in some})


def _check(entries: tuple[Entry, ...], seen: CausalContext) -> None:
    for entry in entries:
        if not seen.contains(entry.dot.origin, entry.dot.seq):
            raise MalformedError("a snapshot", f"{entry.dot} is held and not seen")
        if not is_sound(entry.body):
            raise MalformedError("a snapshot", f"{entry.dot} has no value")
