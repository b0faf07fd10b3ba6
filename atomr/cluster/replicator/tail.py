"""What a shard remembers of its events: the newest ones, and what the node owns.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr.crdt import Event, EventLog, Key, LogTail, Origin, OwnedMap
from atomr.crdt.wire import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable

_OWNED = f"{OwnedMap.KIND}/"


class Tail(LogTail):
    """A log's tail that also remembers what was appended just now.

    Attributes:
        news: events, own ones and others', until somebody has looked at them.
    """

    __slots__ = ("news",)

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        super().__init__(max_events=max_events, max_bytes=max_bytes)
        self.news: list[Event] = []

    def append(self, event: Event) -> None:
        """Add an event that was applied just now."""
        super().append(event)
        self.news.append(event)

    def take_news(self) -> list[Event]:
        """Return what is new, and forget that it is."""
        news, self.news = self.news, []
        return news


class Owned:
    """What a node owns in a shard, in case that others remove it.

    Others bury what a node owns when it was away for long.  If it comes back and was
    not retired yet, its log goes on, and it puts again what they have buried.
    """

    __slots__ = ("_bodies",)

    def __init__(self) -> None:
        self._bodies: dict[tuple[str, Key], bytes] = {}

    def lost(
        self, events: Iterable[Event], owner: Origin
    ) -> list[tuple[str, Key, Any]]:
        """Take events; return replica, key and value of what others have removed."""
        bodies = self._bodies
        lost: dict[tuple[str, Key], bytes] = {}
        for event in events:
            if not event.crdt.startswith(_OWNED):
                continue
            at = event.crdt, event.key
            if event.dot.origin == owner:
                lost.pop(at, None)
                if event.body is None:
                    bodies.pop(at, None)
                else:
                    bodies[at] = event.body
            elif at in bodies and any(dot.origin == owner for dot in event.kills):
                lost[at] = bodies[at]
        return [(crdt, key, unpack(body)) for (crdt, key), body in lost.items()]

    def absent(self, log: EventLog) -> list[tuple[str, Key, Any]]:
        """Return the same after a snapshot, which may have removed anything."""
        replicas = log.replicas()
        return [
            (crdt, key, unpack(body))
            for (crdt, key), body in self._bodies.items()
            if all(
                entry.dot.origin != log.origin
                for entry in replicas[crdt].cells().get(key, ())
            )
        ]
