"""What of the shards is not stored yet: events, and shards that are written anew.

What is stored of a shard is a snapshot and the events after it, in the order in which
they were applied.  So it can be read back as a peer would be heard: nothing else is
needed to begin again.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.crdt import Event

MAX_EVENTS = 20_000
"""More than so many of one shard, unstored, and the shard is written anew instead: a
disk that does not keep up costs no memory without a bound."""


class Journal:
    """Notes of what is to be stored.

    Attributes:
        events: by shard, in their order.
        anew: shards of which a snapshot is to be stored, in place of all else.
        on_note: called whenever something is noted; must not wait.
    """

    __slots__ = ("anew", "events", "on_note")

    def __init__(self) -> None:
        self.events: dict[int, list[Event]] = {}
        self.anew: set[int] = set()
        self.on_note: Callable[[], None] = _ignore

    def __bool__(self) -> bool:
        return bool(self.events or self.anew)

    def add(self, shard: int, events: list[Event]) -> None:
        """Note events that were applied just now."""
        self.on_note()
        if shard in self.anew:
            return
        noted = self.events.setdefault(shard, [])
        noted += events
        if len(noted) > MAX_EVENTS:
            self.rewrite(shard)

    def rewrite(self, shard: int) -> None:
        """Note that what is stored of a shard is out of date as a whole."""
        self.events.pop(shard, None)
        self.anew.add(shard)
        self.on_note()

    def take(self) -> tuple[dict[int, list[Event]], set[int]]:
        """Return what is noted, and forget it."""
        events, anew = self.events, self.anew
        self.events, self.anew = {}, set()
        return events, anew


def _ignore() -> None:
    return
