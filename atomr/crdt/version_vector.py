"""Version vectors: how many events of each origin are known.

Events of an origin are taken strictly in order, so one number says which ones.
A vector is a value: it cannot change, equal ones are equal, and it can be a key.
The log keeps a dictionary inside, and makes a vector of it when someone asks.

Pure.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin


class VersionVector(Mapping["Origin", int]):
    """From each origin to the number of its last known event.

    An origin without events is absent: ``vector[origin]`` is 0 for it.

    >>> from atomr.crdt import Origin
    >>> a, b = Origin("a", 1), Origin("b", 1)
    >>> old, new = VersionVector({a: 2}), VersionVector({a: 2, b: 1})
    >>> old <= new, new <= old, (old | VersionVector({b: 1})) == new
    (True, False, True)
    """

    __slots__ = ("_hash", "_seqs")

    def __init__(self, seqs: Mapping[Origin, int] | None = None) -> None:
        self._seqs = {o: seq for o, seq in (seqs or {}).items() if seq > 0}
        self._hash: int | None = None

    def __getitem__(self, origin: Origin) -> int:
        return self._seqs.get(origin, 0)

    def __iter__(self) -> Iterator[Origin]:
        return iter(self._seqs)

    def __len__(self) -> int:
        return len(self._seqs)

    def __contains__(self, origin: object) -> bool:
        return origin in self._seqs

    # What Mapping offers is made of the above, and ten times as slow.

    def items(self) -> ItemsView[Origin, int]:
        """Return origins and numbers."""
        return self._seqs.items()

    def to_dict(self) -> dict[Origin, int]:
        """Return a dictionary of its own, without the zeros."""
        return dict(self._seqs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VersionVector):
            return NotImplemented
        return self._seqs == other._seqs

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._seqs.items()))
        return self._hash

    def __le__(self, other: VersionVector) -> bool:
        """Return whether all that this one knows, the other knows too."""
        get = other._seqs.get
        return all(seq <= get(origin, 0) for origin, seq in self._seqs.items())

    def __or__(self, other: VersionVector) -> VersionVector:
        """Return the vector that knows what either knows."""
        seqs = dict(self._seqs)
        for origin, seq in other._seqs.items():
            if seq > seqs.get(origin, 0):
                seqs[origin] = seq
        return VersionVector(seqs)

    def __repr__(self) -> str:
        return f"VersionVector({{{', '.join(f'{o}: {n}' for o, n in self.pairs())}}})"

    def covers(self, origin: Origin, seq: int) -> bool:
        """Return whether the event is known."""
        return seq <= self._seqs.get(origin, 0)

    def pairs(self) -> tuple[tuple[Origin, int], ...]:
        """Return origins and numbers in the order of the origins; for the wire."""
        return tuple(sorted(self._seqs.items()))

    def missing_from(self, other: VersionVector) -> int:
        """Return how many events this one knows and the other does not."""
        get = other._seqs.get
        return sum(max(0, seq - get(o, 0)) for o, seq in self._seqs.items())
