"""The causal log: one node's replicas, and the events that keep them equal.

1. An origin's events are applied strictly in order, and an event only when every
   dot that it kills is known.  So what a node has seen is a plain version vector.
2. Events are kept in the order in which they were applied.  Any number from the
   front of what a peer lacks can be sent to it; a context never goes with them.
3. What comes too early waits, up to a bound.  What is dropped is asked for again.
4. Who lacks more than the log holds gets a snapshot: all of it, or nothing.
5. A hash of all entries is kept.  Equal vectors with unequal hashes are a bug, and
   are reported as one.
6. An origin that is gone for good is retired: its entry leaves the vector when
   nothing that it added lives.

One log is one shard: replicas whose events are numbered together.  Ten thousand keys
in a shard keep a join of a snapshot below ten milliseconds.

Pure: the wall's time, for stamps, is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from atomr.crdt.causal_context import CausalContext
from atomr.crdt.errors import MalformedError
from atomr.crdt.hybrid_clock import HybridClock
from atomr.crdt.kinds import replica_of
from atomr.crdt.log_tail import Batch, Front, LogTail
from atomr.crdt.registers import Stamped
from atomr.crdt.replicated import Replicated
from atomr.crdt.snapshots import (
    CHUNK_BYTES,
    Assembly,
    Chunk,
    context_of,
    take_chunks,
)
from atomr.crdt.waiting import Waiting
from atomr.crdt.wire import Event, check_key, is_sound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr.crdt.origin import Dot, Origin
    from atomr.crdt.version_vector import VersionVector

ReplicatedT = TypeVar("ReplicatedT", bound=Replicated)

MAX_ORIGINS = 4_096
"""In a vector: some lives of 64 nodes.  More are made up by a peer, and all of them
would be in each digest, which then fits into no message."""

_WHOLE = Batch()


@attrs.frozen
class Took:
    """What became of events from a peer.

    Attributes:
        applied: in the order in which they were; among them earlier ones that had
            waited.
        known: how many there were already.
        held: how many wait for others.
        dropped: how many were too early to wait.
        refused: how many cannot be: they claim to be our own, are no events, or are
            of more origins than there are nodes.
    """

    applied: tuple[Event, ...] = ()
    known: int = 0
    held: int = 0
    dropped: int = 0
    refused: int = 0


class EventLog:
    """The log of one shard on one node.

    Attributes:
        origin: who writes here.
        clock: stamps our writes.
        seen: as a context, for replicas; without gaps here.
        tail: the latest events.
        retired: origins that are gone for good, with their last event.
    """

    __slots__ = (
        "_replicas",
        "_waiting",
        "clock",
        "origin",
        "retired",
        "seen",
        "tail",
    )

    def __init__(
        self,
        origin: Origin,
        *,
        tail: LogTail | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self.origin = origin
        self.clock = HybridClock()
        self.seen = CausalContext()
        self.tail = tail if tail is not None else LogTail()
        self.retired: dict[Origin, int] = {}
        self._waiting = waiting if waiting is not None else Waiting()
        self._replicas: dict[str, Replicated] = {}

    # --- replicas -------------------------------------------------------------------

    def open(self, kind: type[ReplicatedT], name: str) -> ReplicatedT:
        """Return the replica of that type and name; what is known of it is in it.

        Writes to it are events of this log.  One name with two types is two.

        Raises:
            BadKeyError: it can be no name: not everybody would read it alike.
        """
        check_key(name)
        new = kind(name=name)
        found = self._replicas.get(new.crdt_id)
        if isinstance(found, kind):
            return found
        if found is not None:
            # Of a type that was not known here when its events came.
            new = kind.of(name, live=found.cells(), seen=self.seen)
        new.bind(self, self.origin)
        self._replicas[new.crdt_id] = new
        return new

    def replicas(self) -> Mapping[str, Replicated]:
        """Return all replicas by their ids, also those that nobody opened here."""
        return self._replicas

    def append(self, event: Event) -> None:
        """Log an event of our own, which was just applied."""
        self.tail.append(event)

    # --- what is known --------------------------------------------------------------

    @property
    def vector(self) -> VersionVector:
        """How many events of each origin are applied."""
        return self.seen.as_vector()

    @property
    def written(self) -> int:
        """How many events of our own there are."""
        return self.seen.vector.get(self.origin, 0)

    @property
    def waiting(self) -> int:
        """How many events wait for others."""
        return len(self._waiting)

    @property
    def state_hash(self) -> int:
        """64 bits of all entries; equal vectors must have equal ones."""
        digest = 0
        for replica in self._replicas.values():
            digest ^= replica.state_hash
        return digest

    def diverges(self, vector: VersionVector, state_hash: int) -> bool:
        """Return whether a peer knows the same and holds something else: a bug."""
        return state_hash != self.state_hash and vector == self.vector

    # --- events ---------------------------------------------------------------------

    def diff(self, known: Mapping[Origin, int], batch: Batch = _WHOLE) -> Front | None:
        """Return events that somebody lacks, from the front; None: send a snapshot.

        Args:
            known: how many of each origin he has; of a retired one, its last.
            batch: how much of it at once.
        """
        return self.tail.since(known, self.seen.vector, batch)

    def receive(self, events: Iterable[Event], *, now_ms: int = 0) -> Took:
        """Apply what can be, keep what is early, and say what became of each.

        Args:
            events: from a peer, in any order.
            now_ms: the wall's time, to see stamps from too far ahead; 0: unknown.
        """
        applied: list[Event] = []
        counts = dict.fromkeys(("known", "held", "dropped", "refused"), 0)
        for event in events:
            outcome = self._take(event)
            if outcome is None:
                self._apply(event, applied, now_ms)
            else:
                counts[outcome] += 1
        return Took(tuple(applied), **counts)

    def _take(self, event: Event) -> str | None:
        """Return what becomes of an event; None: it is to be applied."""
        dot = event.dot
        last = self.seen.vector.get(dot.origin, 0)
        if dot.seq <= last or dot.seq <= self.retired.get(dot.origin, 0):
            return "known"
        if dot.origin == self.origin or dot.origin in self.retired:
            return "refused"
        if not is_sound(event.body or b"") or not (last or self._has_room()):
            return "refused"
        if dot.seq == last + 1 and self._are_known(event.kills):
            return None
        held = self._waiting.hold(event, applied=last)
        return {True: "held", False: "known", None: "dropped"}[held]

    def _has_room(self) -> bool:
        """Whether one more origin may be known; our own always may."""
        return len(self.seen.vector) < MAX_ORIGINS

    def _are_known(self, dots: tuple[Dot, ...]) -> bool:
        vector, retired = self.seen.vector, self.retired
        return all(
            dot.seq <= vector.get(dot.origin, 0)
            or dot.seq <= retired.get(dot.origin, 0)
            for dot in dots
        )

    def _apply(self, event: Event, applied: list[Event], now_ms: int) -> None:
        self._apply_one(event, now_ms)
        applied.append(event)
        self._apply_ready(applied, now_ms)

    def _apply_ready(self, applied: list[Event], now_ms: int) -> None:
        while self._waiting:
            ready = self._next_ready()
            if ready is None:
                break
            self._apply_one(ready, now_ms)
            applied.append(ready)

    def _apply_one(self, event: Event, now_ms: int) -> None:
        replica = self._replica(event.crdt)
        if event.body is not None and isinstance(replica, Stamped):
            self.clock.witness(event.stamp, now_ms)
        replica.apply(event)
        dot = event.dot
        self.seen.vector[dot.origin] = dot.seq
        self.tail.append(event)
        if self._waiting:
            self._waiting.discard(dot.origin, dot.seq)

    def _next_ready(self) -> Event | None:
        for origin in self._waiting.origins():
            event = self._waiting.at(origin, self.seen.vector.get(origin, 0) + 1)
            if event is not None and self._are_known(event.kills):
                return event
        return None

    # --- snapshots ------------------------------------------------------------------

    def snapshot(self, *, chunk_bytes: int = CHUNK_BYTES) -> tuple[Chunk, ...]:
        """Return all of this instant, in chunks."""
        return take_chunks(
            self._replicas, self.seen.vector, self.retired, chunk_bytes=chunk_bytes
        )

    def adopt(self, snapshot: Assembly) -> Took:
        """Join a whole snapshot, then what had waited for it.

        It is joined as states are: what it has seen and does not hold is removed
        here, and what it has not seen stays.

        Raises:
            MalformedError: it is not whole, or knows events of ours that we did not
                make, or more of an origin than was known when it was retired here;
                nothing was changed.
        """
        if not snapshot.is_whole:
            raise MalformedError("a snapshot", "a part of it is not there")
        vector = dict(snapshot.vector)
        if vector.get(self.origin, 0) > self.written:
            raise MalformedError("a snapshot", "it knows events that we did not make")
        if any(vector.get(origin, 0) > seq for origin, seq in self.retired.items()):
            # What it holds of that would be here without being seen.
            raise MalformedError("a snapshot", "it knows more of a retired origin")
        if len(vector.keys() | self.seen.vector.keys()) > MAX_ORIGINS + 1:
            raise MalformedError("a snapshot", f"more than {MAX_ORIGINS} origins in it")
        seen = context_of(self.seen.vector.items(), self.retired.items())
        their_seen = context_of(vector.items(), snapshot.retired)
        for crdt_id in {**self._replicas, **snapshot.cells}:
            self._replica(crdt_id).join_cells(
                snapshot.cells.get(crdt_id, {}),
                seen=seen,
                their_seen=their_seen,
                marks=snapshot.marks.get(crdt_id, {}),
            )
        self._retire_too(snapshot.retired)
        for origin, seq in vector.items():
            if origin not in self.retired and seq > self.seen.vector.get(origin, 0):
                self.seen.vector[origin] = self.tail.base[origin] = seq
                self._waiting.drop_until(origin, seq)
        applied: list[Event] = []
        self._apply_ready(applied, 0)
        return Took(tuple(applied))

    def _retire_too(self, retired: Iterable[tuple[Origin, int]]) -> None:
        """Retire whom a snapshot has retired: what it had is gone by the join."""
        for origin, seq in retired:
            if origin != self.origin and self.seen.vector.get(origin, 0) <= seq:
                self.seen.vector.pop(origin, None)
                self.tail.base.pop(origin, None)
                self.retired[origin] = seq
                self._waiting.drop_until(origin, seq)

    # --- origins that are gone ------------------------------------------------------

    def pins(self, origin: Origin) -> bool:
        """Return whether something that the origin added lives.

        Cost: of all keys.
        """
        return any(
            entry.dot.origin == origin
            for replica in self._replicas.values()
            for cell in replica.cells().values()
            for entry in cell
        )

    def bury(self, origin: Origin) -> None:
        """Let go of what a dead origin alone could change, by events of our own.

        What it owned is dropped, what it counted goes on under our dots.  What it
        put into maps and sets stays as it is, and pins it.
        """
        for replica in list(self._replicas.values()):
            replica.bury(origin)

    def retire(self, origin: Origin) -> bool:
        """Drop an origin from the vector; return False while something pins it.

        To be called when all live members know its last event.  The tail is cut:
        an event in it might need to know what the origin had done.
        """
        if origin == self.origin or self.pins(origin):
            return False
        self.retired[origin] = self.seen.vector.pop(origin, 0)
        self._waiting.drop_until(origin, self.retired[origin] + self._waiting.max_early)
        self.tail.cut(self.seen.vector)
        return True

    def forget(self, origin: Origin) -> None:
        """Drop the memory of a retired origin; whoever knew it live must reset."""
        self.retired.pop(origin, None)

    def _replica(self, crdt_id: str) -> Replicated:
        replica = self._replicas.get(crdt_id)
        if replica is None:
            replica = replica_of(crdt_id)
            replica.bind(self, self.origin)
            self._replicas[crdt_id] = replica
        return replica
