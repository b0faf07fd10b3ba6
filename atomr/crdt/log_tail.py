"""The latest events, in the order in which they were applied here.

That order never has an event before what it depends on, nor before an earlier one
of its origin.  So whoever lacks some of them may be sent any number from the front
of what he lacks: a message that is cut short delays, and loses nothing.

The tail is bounded.  What falls out is remembered as one number for each origin;
who lacks some of that needs a snapshot.

Pure.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import attrs

from atomr.crdt.version_vector import VersionVector
from atomr.crdt.wire import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.crdt.origin import Origin

MAX_EVENTS = 50_000
MAX_BYTES = 16 * 1024 * 1024

_EVENT_BYTES = 60
"""Dot, id and framing of an event; near enough for a bound."""
_KILL_BYTES = 24


@attrs.frozen
class Batch:
    """Bounds of one message.

    Attributes:
        events: at most so many.
        bytes: and not more than about so many, unless one alone has more.
        newest: leave out so many of the latest, which are on their way by another
            road.
    """

    events: int = 1_000
    bytes: int = 256 * 1024
    newest: int = 0


@attrs.frozen
class Front:
    """The first of the events that somebody lacks.

    Attributes:
        events: in the order in which they can be applied.
        more: whether there are others, beside the newest.
        after: how many of the latest events were not looked at.
    """

    events: tuple[Event, ...]
    more: bool = False
    after: int = 0


def size_bytes(event: Event) -> int:
    """Return about how many bytes an event takes."""
    key = event.key
    text = len(key) if isinstance(key, str) else 9
    if isinstance(key, tuple):
        text = sum(len(part) if isinstance(part, str) else 9 for part in key)
    body = len(event.body or b"")
    return _EVENT_BYTES + text + body + _KILL_BYTES * len(event.kills)


class LogTail:
    """A bounded log of events.

    Attributes:
        base: for each origin, the last event that is not in it any more.
        bytes: of all events, about.
        total: how many were ever appended.
        max_events: more than that fall out.
        max_bytes: and what makes it larger than that.
    """

    __slots__ = ("_events", "base", "bytes", "max_bytes", "max_events", "total")

    def __init__(
        self, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._events: deque[Event] = deque()
        self.base: dict[Origin, int] = {}
        self.bytes = 0
        self.total = 0
        self.max_events = max_events
        self.max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._events)

    @property
    def newest(self) -> Event | None:
        """The event that was applied last; None: there is none."""
        return self._events[-1] if self._events else None

    def append(self, event: Event) -> None:
        """Add an event that was applied just now."""
        events = self._events
        events.append(event)
        self.total += 1
        self.bytes += size_bytes(event)
        while len(events) > self.max_events or self.bytes > self.max_bytes:
            old = events.popleft()
            self.bytes -= size_bytes(old)
            self.base[old.dot.origin] = old.dot.seq

    def cut(self, vector: Mapping[Origin, int]) -> None:
        """Forget all events; who lacks anything of ``vector`` needs a snapshot."""
        self._events.clear()
        self.bytes = 0
        self.base = dict(vector)

    def own_since(self, origin: Origin, seq: int, batch: Batch) -> Front:
        """Return the first of an origin's events after ``seq`` that are here."""
        found: list[Event] = []
        for event in reversed(self._events):
            if event.dot.origin == origin:
                if event.dot.seq <= seq:
                    break
                found.append(event)
        found.reverse()
        return _front(found, batch)

    def since(
        self, known: Mapping[Origin, int], vector: Mapping[Origin, int], batch: Batch
    ) -> Front | None:
        """Return what somebody lacks, from the front; None: he needs a snapshot.

        Args:
            known: how many events of each origin he has.
            vector: how many there are.
            batch: how much of it at once.

        Cost: of the events since the oldest that he lacks, or of those before it
            where they are fewer.
        """
        behind = self.behind(known, vector)
        return None if behind is None else self.front(known, batch, latest=behind)

    def behind(
        self, known: Mapping[Origin, int], vector: Mapping[Origin, int]
    ) -> int | None:
        """Return how many of the latest events there are from the first he lacks.

        Args:
            known: how many events of each origin he has.
            vector: how many there are.

        Returns:
            0: he lacks none.  None: he needs a snapshot.
        """
        known = _plain(known)
        get = known.get
        if any(get(origin, 0) < seq for origin, seq in self.base.items()):
            return None
        missing = sum([max(0, seq - get(o, 0)) for o, seq in vector.items()])
        events = self._events
        if missing > len(events) // 2:
            return self._from_oldest(known)
        if missing:
            for behind, event in enumerate(reversed(events), 1):
                origin, seq = event.dot.origin, event.dot.seq
                # One that was retired with a snapshot may have events here still.
                if get(origin, 0) < seq <= vector.get(origin, 0):
                    missing -= 1
                    if not missing:
                        return behind
        return 0

    def _from_oldest(self, known: Mapping[Origin, int]) -> int:
        for index, event in enumerate(self._events):
            if event.dot.seq > known.get(event.dot.origin, 0):
                return len(self._events) - index
        return 0

    def front(self, known: Mapping[Origin, int], batch: Batch, *, latest: int) -> Front:
        """Return what somebody lacks of the latest events, from the front.

        Args:
            known: how many events of each origin he has.
            batch: how much of it at once.
            latest: of so many, less the newest of the batch.
        """
        known = _plain(known)
        number = len(self._events)
        first: list[Event] = []
        size = 0
        start, end = max(0, number - latest), max(0, number - batch.newest)
        for index, event in enumerate(islice(self._events, start, end), start):
            if event.dot.seq > known.get(event.dot.origin, 0):
                size += size_bytes(event)
                if first and (len(first) == batch.events or size > batch.bytes):
                    return Front(tuple(first), more=True, after=number - index)
                first.append(event)
        return Front(tuple(first), after=min(number, batch.newest))


def _plain(known: Mapping[Origin, int]) -> Mapping[Origin, int]:
    """Return a dictionary, which is looked at ten times as fast."""
    return known.to_dict() if isinstance(known, VersionVector) else known


def _front(events: list[Event], batch: Batch) -> Front:
    total = 0
    for number, event in enumerate(events[: batch.events]):
        total += size_bytes(event)
        if number and total > batch.bytes:
            return Front(tuple(events[:number]), more=True)
    first = tuple(events[: batch.events])
    return Front(first, more=len(first) < len(events))
