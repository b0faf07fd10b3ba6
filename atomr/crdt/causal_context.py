"""Causal contexts: which dots were seen, whether they are still held or not.

A dot that is seen but not held was removed; that is how a removal needs no
tombstone.  The context of a replica that takes events in order is a plain version
vector.  A delta has seen a few dots in the middle, so beside the vector there is a
*cloud* of those above it.  Whatever the cloud fills up moves into the vector, so a
replica's cloud is empty again when it lacks nothing.

Only what has no gap below moves: taking the highest number instead, as other
libraries do, makes entries of a delta that is still under way read as removed.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.crdt import seq_ranges
from atomr.crdt.version_vector import VersionVector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr.crdt.origin import Origin
    from atomr.crdt.seq_ranges import Ranges


class CausalContext:
    """A set of dots; changes in place.

    Attributes:
        vector: all events of an origin up to this one.
        cloud: those above it, with a gap below; empty in a replica that takes
            events in order.
    """

    __slots__ = ("cloud", "vector")

    def __init__(
        self,
        vector: dict[Origin, int] | None = None,
        cloud: dict[Origin, Ranges] | None = None,
    ) -> None:
        self.vector = vector if vector is not None else {}
        self.cloud = cloud if cloud is not None else {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CausalContext):
            return NotImplemented
        return self.vector == other.vector and self.cloud == other.cloud

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    def copy(self) -> CausalContext:
        """Return another one with the same dots."""
        return CausalContext(dict(self.vector), dict(self.cloud))

    def contains(self, origin: Origin, seq: int) -> bool:
        """Return whether the dot was seen."""
        if seq <= self.vector.get(origin, 0):
            return True
        if not self.cloud:
            return False
        return seq_ranges.contains(self.cloud.get(origin, ()), seq)

    def add(self, origin: Origin, seq: int) -> None:
        """See a dot."""
        if seq == self.vector.get(origin, 0) + 1 and origin not in self.cloud:
            self.vector[origin] = seq
        else:
            self.add_ranges(origin, ((seq, seq),))

    def add_ranges(self, origin: Origin, ranges: Ranges) -> None:
        """See many dots of one origin."""
        prefix = self.vector.get(origin, 0)
        known = ((1, prefix), *self.cloud.get(origin, ())) if prefix else ()
        all_ranges = seq_ranges.union(known or self.cloud.get(origin, ()), ranges)
        if all_ranges and all_ranges[0][0] == 1:
            self.vector[origin] = all_ranges[0][1]
            all_ranges = all_ranges[1:]
        if all_ranges:
            self.cloud[origin] = all_ranges
        else:
            self.cloud.pop(origin, None)

    def take(self, origin: Origin) -> int:
        """See the next dot of an origin, whose dots only the caller hands out."""
        seq = self.vector.get(origin, 0) + 1
        if self.cloud and origin in self.cloud:
            seq = self.cloud[origin][-1][1] + 1
            self.add(origin, seq)
        else:
            self.vector[origin] = seq
        return seq

    def join(self, other: CausalContext) -> None:
        """See what another one has seen."""
        vector = self.vector
        for origin, seq in other.vector.items():
            if origin in self.cloud:
                self.add_ranges(origin, ((1, seq),))
            elif seq > vector.get(origin, 0):
                vector[origin] = seq
        for origin, ranges in other.cloud.items():
            self.add_ranges(origin, ranges)

    def ranges(self) -> Iterator[tuple[Origin, Ranges]]:
        """Yield each origin, in order, with all of its dots."""
        for origin in sorted({*self.vector, *self.cloud}):
            prefix = self.vector.get(origin, 0)
            start: Ranges = ((1, prefix),) if prefix else ()
            yield origin, start + self.cloud.get(origin, ())

    def as_vector(self) -> VersionVector:
        """Return what was seen without a gap, as a value."""
        return VersionVector(self.vector)
