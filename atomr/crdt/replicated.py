"""What all types are made of: keys, entries with dots, and a causal context.

A replica holds, for each key, the entries that were added and not yet killed.  A
write adds an entry with a new dot and kills those that it saw.  Joining keeps an
entry that both sides hold, or that one holds and the other has not seen; one that
is seen but not held was killed.  That is a lattice whatever the values mean, so a
type is only a way to write keys and a way to read entries: a counter sums them, a
register takes the newest, a set asks whether there are any.

=============  =============================================================
replica        has an origin, and can be written to
fragment       a part of a state without an origin: from ``diff`` or
               ``decompose``; it can only be joined
delta          the events of one write, as they are logged and sent
=============  =============================================================

In a replica that takes part in a cluster the context belongs to its log, which sees
to it that events come in order; nothing else is different.

Pure.

Laws: ``join`` is commutative, associative and idempotent, on replicas, fragments
and deltas in any mix; joining what ``decompose`` yields gives the state again.

Source: Almeida, Shoker, Baquero, "Delta State Replicated Data Types", 2018;
Enes et al., "Efficient Synchronization of State-based CRDTs", 2019.
"""

from __future__ import annotations

from functools import reduce
from operator import xor
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

from atomr.crdt import seq_ranges
from atomr.crdt.causal_context import CausalContext
from atomr.crdt.errors import (
    BoundError,
    DifferentCrdtError,
    NoOriginError,
    ValueSizeError,
)
from atomr.crdt.joining import joined_cell
from atomr.crdt.origin import Dot, Origin
from atomr.crdt.state_codec import decode_state, encode_state, state_of
from atomr.crdt.wire import (
    MAX_VALUE_BYTES,
    Delta,
    Entry,
    Event,
    Key,
    check_key,
    mark_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr.crdt.seams import Commit, Log
    from atomr.crdt.version_vector import VersionVector

_NONE: tuple[Entry, ...] = ()


class Replicated:
    """A replica, or a fragment, of some type.

    Attributes:
        origin: who writes here; None: nobody, it is a fragment.
        crdt_id: its type and its name.  The type is a part of it, so a name that is
            used for another type later is another value.
        seen: the causal context.
    """

    KIND: ClassVar[str] = "any"
    """The type's name on the wire; never changed, never used for another."""

    __slots__ = (
        "_digest",
        "_live",
        "_log",
        "_marks",
        "_within",
        "crdt_id",
        "origin",
        "seen",
    )

    def __init__(self, origin: Origin | None = None, *, name: str = "") -> None:
        self.origin = origin
        self.crdt_id = f"{self.KIND}/{name}"
        self.seen = CausalContext()
        self._live: dict[Key, tuple[Entry, ...]] = {}
        self._marks: dict[Key, int] | None = None
        self._digest = 0
        self._log: Log | None = None
        self._within: Commit | None = None

    @classmethod
    def of(
        cls,
        name: str,
        *,
        live: dict[Key, tuple[Entry, ...]],
        seen: CausalContext,
    ) -> Self:
        """Return the fragment with these entries and this context."""
        fragment = cls(name=name)
        fragment._live, fragment.seen = live, seen
        return fragment

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same state, whoever writes to them."""
        if not isinstance(other, Replicated):
            return NotImplemented
        return (
            self.crdt_id == other.crdt_id
            and self.seen == other.seen
            and self._live == other._live
        )

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    def __repr__(self) -> str:
        return f"<{self.crdt_id} with {len(self._live)} keys at {self.origin}>"

    # --- the lattice ----------------------------------------------------------------

    def join(self, other: Self | Delta) -> bool:
        """Take in another state, or a delta; return whether it changed anything.

        A join is synchronous and whole: nobody sees a half of it.

        Args:
            other: of the same type and name; not modified.

        Raises:
            DifferentCrdtError: it is of another one; nothing was changed.
            BoundError: the replica takes part in a cluster; its log joins for it.

        Cost: of a delta, its events; of a state, the keys of both.
        """
        if self._log is not None or self._within is not None:
            raise BoundError(self.crdt_id)
        if isinstance(other, Delta):
            return self._join_delta(other)
        if other.crdt_id != self.crdt_id:
            raise DifferentCrdtError(self.crdt_id, other.crdt_id)
        return self._join_state(other)

    def __or__(self, other: Self | Delta) -> Self:
        """Return the join of both as a fragment; neither is modified."""
        joined = self.copy()
        joined.join(other)
        return joined

    def __le__(self, other: Self) -> bool:
        """Return whether the other one knows all that is known here."""
        return (other | self) == other

    def copy(self) -> Self:
        """Return a fragment with the same state."""
        return self._fragment(dict(self._live), self.seen.copy())

    def decompose(self) -> Iterator[Self]:
        """Yield the join-irreducible fragments: one for each dot that was seen.

        Cost: of all events that ever were, not only of those that are held.
        """
        held = {e.dot: (key, e) for key, cell in self._live.items() for e in cell}
        for origin, ranges in self.seen.ranges():
            for low, high in ranges:
                for seq in range(low, high + 1):
                    seen = CausalContext()
                    seen.add(origin, seq)
                    key, entry = held.get(Dot(origin, seq), ("", None))
                    yield self._fragment({key: (entry,)} if entry else {}, seen)

    def diff(self, vector: VersionVector) -> Self:
        """Return a fragment that brings one who knows ``vector`` to this state.

        It holds what the other lacks.  Of what the other knows it says only which
        dots are no more: those that live are left out of its context, because seen
        and not held would read as removed.
        """
        live: dict[Key, tuple[Entry, ...]] = {}
        known: dict[Origin, list[int]] = {}
        for key, cell in self._live.items():
            lacks = []
            for entry in cell:
                if vector.covers(entry.dot.origin, entry.dot.seq):
                    known.setdefault(entry.dot.origin, []).append(entry.dot.seq)
                else:
                    lacks.append(entry)
            if lacks:
                live[key] = tuple(lacks)
        seen = CausalContext()
        for origin, ranges in self.seen.ranges():
            gone = seq_ranges.without(ranges, sorted(known.get(origin, ())))
            seen.add_ranges(origin, gone)
        return self._fragment(live, seen)

    # --- the wire -------------------------------------------------------------------

    def encode(self) -> bytes:
        """Return the state as MessagePack; equal states give equal bytes."""
        return encode_state(self.crdt_id, self.seen, self._live)

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Return the fragment in MessagePack.

        Raises:
            MalformedError: it is no state, or speaks of origins that it lacks.
            DifferentCrdtError: it is of another type.
        """
        frame = decode_state(encoded)
        kind, _, name = frame.crdt.partition("/")
        if kind != cls.KIND:
            raise DifferentCrdtError(f"{cls.KIND}/", f"{kind}/")
        seen, live = state_of(frame)
        return cls.of(name, live=live, seen=seen)

    @property
    def state_hash(self) -> int:
        """64 bits of all keys and entries; equal states have equal ones.

        Cost: of all keys; constant in a replica that is bound to a log.
        """
        if self._marks is not None:
            return self._digest
        return reduce(xor, self.marks().values(), 0)

    def marks(self) -> dict[Key, int]:
        """Return the hash of each key with its entries: which keys differ?"""
        if self._marks is not None:
            return self._marks
        return {
            key: mark_of(self.crdt_id, key, cell) for key, cell in self._live.items()
        }

    def bury(self, origin: Origin) -> Delta:
        """Let go of what a dead origin alone could change; most types keep all."""
        return Delta()

    # --- for types ------------------------------------------------------------------

    def _write(self, key: Key, *, stamp: int = 0, body: bytes = b"") -> Delta:
        """Add an entry, and kill all that are seen at the key."""
        check_key(key)
        kills = tuple([entry.dot for entry in self._live.get(key, _NONE)])
        return self._commit(key, kills=kills, stamp=stamp, body=body)

    def _kill(self, key: Key) -> Delta:
        """Kill all entries that are seen at the key."""
        kills = tuple([entry.dot for entry in self._live.get(key, _NONE)])
        return self._commit(key, kills=kills) if kills else Delta()

    def _commit(
        self,
        key: Key,
        *,
        kills: tuple[Dot, ...],
        stamp: int = 0,
        body: bytes | None = None,
    ) -> Delta:
        if self._within is not None:
            return self._within(key, kills=kills, stamp=stamp, body=body)
        if body is not None and len(body) > MAX_VALUE_BYTES:
            raise ValueSizeError(len(body), MAX_VALUE_BYTES)
        origin = self._writer()
        dot = Dot(origin, self.seen.take(origin))
        event = Event(self.crdt_id, key, dot, kills, stamp, body)
        self.apply(event)
        if self._log is not None:
            self._log.append(event)
        return Delta((event,))

    def _writer(self) -> Origin:
        if self.origin is None:
            raise NoOriginError(self.crdt_id)
        return self.origin

    # --- for the log ----------------------------------------------------------------

    def bind(self, log: Log, origin: Origin) -> None:
        """Take part in a cluster: the context and the clock are the log's."""
        self.origin = origin
        self.seen = log.seen
        self._log = log
        self._marks = self.marks()
        self._digest = reduce(xor, self._marks.values(), 0)

    def show(self, cells: dict[Key, tuple[Entry, ...]], within: Commit) -> None:
        """Be a field of a map: its cells are shown, and changes are the map's."""
        self._live, self._within = cells, within

    def apply(self, event: Event) -> None:
        """Apply an event whose dot is new and whose killed dots were seen."""
        live, key = self._live, event.key
        cell = live.get(key, _NONE)
        kills = event.kills
        if cell and kills:
            cell = tuple([entry for entry in cell if entry.dot not in kills])
        if event.body is not None:
            entry = Entry(event.dot, event.stamp, event.body)
            cell = tuple(sorted((*cell, entry))) if cell else (entry,)
        self._put(key, cell)

    def _put(self, key: Key, cell: tuple[Entry, ...], mark: int | None = None) -> None:
        if cell:
            self._live[key] = cell
        else:
            self._live.pop(key, None)
        if self._marks is not None:
            self._digest ^= self._marks.pop(key, 0)
            if cell:
                if mark is None:
                    mark = mark_of(self.crdt_id, key, cell)
                self._marks[key] = mark
                self._digest ^= mark

    def cells(self) -> dict[Key, tuple[Entry, ...]]:
        """Return each key's entries, sorted by their dots; not to be modified."""
        return self._live

    # --- joining --------------------------------------------------------------------

    def _join_delta(self, delta: Delta) -> bool:
        for event in delta.events:
            if event.crdt != self.crdt_id:
                raise DifferentCrdtError(self.crdt_id, event.crdt)
        changed = False
        for event in delta.events:
            changed = self._join_event(event) or changed
        return changed

    def _join_event(self, event: Event) -> bool:
        seen, dot = self.seen, event.dot
        cell = self._live.get(event.key, _NONE)
        if seen.contains(dot.origin, dot.seq):
            # Whatever it added is known; that it kills may not be.
            event = Event(event.crdt, event.key, dot, event.kills)
        self.apply(event)
        changed = self._live.get(event.key, _NONE) != cell
        seen.add(dot.origin, dot.seq)
        for kill in event.kills:
            if not seen.contains(kill.origin, kill.seq):
                seen.add(kill.origin, kill.seq)
        return changed

    def _join_state(self, other: Replicated) -> bool:
        changed = self.join_cells(other.cells(), seen=self.seen, their_seen=other.seen)
        self.seen.join(other.seen)
        return changed

    def join_cells(
        self,
        theirs: Mapping[Key, tuple[Entry, ...]],
        *,
        seen: CausalContext,
        their_seen: CausalContext,
        marks: Mapping[Key, int] = MappingProxyType({}),
    ) -> bool:
        """Join others' entries, and leave the context to the caller.

        Args:
            theirs: by key.
            seen: our context.
            their_seen: theirs.
            marks: hashes of theirs, as far as they are known.
        """
        mine = self._live
        changed: dict[Key, tuple[Entry, ...]] = {}
        same = 0
        for key, cell in mine.items():
            their_cell = theirs.get(key, _NONE)
            if their_cell is cell:
                same += 1
            elif their_cell != cell:
                joined = joined_cell(cell, their_cell, seen, their_seen)
                if joined != cell:
                    changed[key] = joined
        for key, their_cell in theirs.items() if same < len(theirs) else ():
            if key not in mine:
                joined = joined_cell(_NONE, their_cell, seen, their_seen)
                if joined:
                    changed[key] = joined
        for key, joined in changed.items():
            mark = marks.get(key) if joined == theirs.get(key) else None
            self._put(key, joined, mark)
        return bool(changed)

    def _fragment(
        self, live: dict[Key, tuple[Entry, ...]], seen: CausalContext
    ) -> Self:
        name = self.crdt_id.partition("/")[2]
        return self.of(name, live=live, seen=seen)
