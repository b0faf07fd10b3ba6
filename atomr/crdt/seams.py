"""What a replica needs of what it is a part of: a log, or a map.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from atomr.crdt.causal_context import CausalContext
    from atomr.crdt.hybrid_clock import HybridClock
    from atomr.crdt.origin import Dot
    from atomr.crdt.wire import Delta, Event, Key


class Log(Protocol):
    """What a replica in a cluster is bound to."""

    seen: CausalContext
    clock: HybridClock

    def append(self, event: Event) -> None:
        """Log an event of our own, which was just applied."""


class Commit(Protocol):
    """How a change of a key is made; of a field, as a change of its map."""

    def __call__(
        self,
        key: Key,
        /,
        *,
        kills: tuple[Dot, ...],
        stamp: int = 0,
        body: bytes | None = None,
    ) -> Delta:
        """Make the change, and return it."""
