"""Registers: one value, and what becomes of it when two nodes assign at once.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from atomr.crdt.hybrid_clock import HybridClock
from atomr.crdt.replicated import Replicated
from atomr.crdt.wire import Delta, Entry, Key, check_key, pack, unpack

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin
    from atomr.crdt.seams import Log

_KEY = ""
"""A register is one cell."""


def latest(cell: tuple[Entry, ...]) -> Entry:
    """Return the entry that wins: the latest stamp, then the greater origin."""
    if len(cell) == 1:
        return cell[0]
    return max(cell, key=lambda entry: (entry.stamp, entry.dot))


def values_of(cell: tuple[Entry, ...]) -> tuple[Any, ...]:
    """Return the values that were written at once, each once."""
    return tuple([unpack(body) for body in sorted({entry.body for entry in cell})])


class Stamped(Replicated):
    """A type whose concurrent writes are put in order by a clock.

    Attributes:
        clock: gives the stamps; in a cluster the node's.
    """

    __slots__ = ("clock",)

    def __init__(self, origin: Origin | None = None, *, name: str = "") -> None:
        super().__init__(origin, name=name)
        self.clock = HybridClock()

    def bind(self, log: Log, origin: Origin) -> None:
        """Take part in a cluster."""
        super().bind(log, origin)
        self.clock = log.clock

    def _assign(self, key: Key, value: object, now_ms: int) -> Delta:
        check_key(key)
        body, clock = pack(value), self.clock
        cell = self._live.get(key, ())
        for entry in cell:
            clock.witness(entry.stamp, now_ms)
        kills = tuple([entry.dot for entry in cell])
        return self._commit(key, kills=kills, stamp=clock.tick(now_ms), body=body)


class LWWRegister(Stamped):
    """A register in which the last write wins.

    Of writes that did not know of each other, the one with the later hybrid stamp
    is the value, then that of the greater origin.  The others are lost.
    A write always replaces those that it has seen, whatever the clocks say.
    """

    KIND: ClassVar[str] = "lww_register"
    __slots__ = ()

    def assign(self, value: object, *, now_ms: int = 0) -> Delta:
        """Set the value.

        Args:
            value: whatever MessagePack can carry.
            now_ms: the wall's time since 1970; 0: concurrent writes are ordered by
                how many each node has seen.

        Raises:
            TypeError: MessagePack cannot carry the value.
            OverflowError: an integer in it has more than 64 bits.
        """
        return self._assign(_KEY, value, now_ms)

    @property
    def value(self) -> Any:  # noqa: ANN401 - whatever was assigned
        """The value; None while nothing is assigned."""
        cell = self._live.get(_KEY)
        return None if cell is None else unpack(latest(cell).body)


class MVRegister(Replicated):
    """A register that keeps all values that were assigned at once.

    >>> from atomr.crdt import Origin
    >>> a, b = MVRegister(Origin("a", 1)), MVRegister(Origin("b", 1))
    >>> one, two = a.assign(1), b.assign(2)
    >>> a.join(two), a.values, bool(a.assign(3)), a.values
    (True, (1, 2), True, (3,))
    """

    KIND: ClassVar[str] = "mv_register"
    __slots__ = ()

    def assign(self, value: object) -> Delta:
        """Set the value, in place of all that are seen.

        Raises:
            TypeError: MessagePack cannot carry the value.
            OverflowError: an integer in it has more than 64 bits.
        """
        return self._write(_KEY, body=pack(value))

    @property
    def values(self) -> tuple[Any, ...]:
        """The values, in the order of their encodings; empty: none is assigned."""
        return values_of(self._live.get(_KEY, ()))

    @property
    def value(self) -> tuple[Any, ...]:
        """The same as :attr:`values`."""
        return self.values
