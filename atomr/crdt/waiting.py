"""Events that came too early, until what they depend on is there.

Bounded for each origin, and in origins: what does not fit is dropped, and comes again
when the next digest asks for it.  Without it, an event that overtakes another one on
its way would be sent twice each time.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin
    from atomr.crdt.wire import Event

MAX_EARLY = 256
"""At 2,000 events a second, what comes in during an eighth of one."""

MAX_EARLY_ORIGINS = 1_024
"""Of which some may wait; more are made up by a peer."""


class Waiting:
    """Early events, by origin and number.

    Attributes:
        max_early: how far ahead of the next one an event may be.
    """

    __slots__ = ("_early", "max_early")

    def __init__(self, *, max_early: int = MAX_EARLY) -> None:
        self._early: dict[Origin, dict[int, Event]] = {}
        self.max_early = max_early

    def __bool__(self) -> bool:
        return bool(self._early)

    def __len__(self) -> int:
        return sum(map(len, self._early.values()))

    def hold(self, event: Event, *, applied: int) -> bool | None:
        """Keep an event; return False where it was there, None where it is too early.

        Args:
            event: which.
            applied: the last of its origin that is applied.
        """
        seq = event.dot.seq
        if seq - applied > self.max_early or self._is_full(event.dot.origin):
            return None
        early = self._early.setdefault(event.dot.origin, {})
        if seq in early:
            return False
        early[seq] = event
        return True

    def _is_full(self, origin: Origin) -> bool:
        return len(self._early) >= MAX_EARLY_ORIGINS and origin not in self._early

    def origins(self) -> list[Origin]:
        """Return whose events wait."""
        return list(self._early)

    def at(self, origin: Origin, seq: int) -> Event | None:
        """Return an event that waits."""
        return self._early.get(origin, {}).get(seq)

    def discard(self, origin: Origin, seq: int) -> None:
        """Forget one event, which was applied."""
        early = self._early.get(origin)
        if early is not None:
            early.pop(seq, None)
            if not early:
                del self._early[origin]

    def drop_until(self, origin: Origin, seq: int) -> None:
        """Forget an origin's events up to this one."""
        early = self._early.get(origin, {})
        for old in [number for number in early if number <= seq]:
            del early[old]
        if not early:
            self._early.pop(origin, None)
