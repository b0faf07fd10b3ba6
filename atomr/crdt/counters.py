"""Counters: each origin counts in a cell of its own, and a reader adds them up.

A cell is cumulative, and only its origin writes it, so where two entries of one
cell meet the greater is the later.  The cell is a key and not a dot: the count of a
node that is gone can be put under another dot without counting twice.

Counters may not sit inside a map whose keys can be removed: a removal cannot take
back increments that it has not seen, and what it has seen would come back.

Pure.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, ClassVar

from atomr.crdt.replicated import Replicated
from atomr.crdt.wire import Delta, Entry

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin
    from atomr.crdt.wire import Key


def highest(cell: tuple[Entry, ...]) -> int:
    """Return the count in a cell."""
    return cell[0].stamp if len(cell) == 1 else max(entry.stamp for entry in cell)


def check_amount(amount: int) -> None:
    """Check what is to be added.

    Raises:
        TypeError: it is no int.
        ValueError: it is negative.
    """
    if type(amount) is not int:
        raise TypeError(f"amount={amount!r}: expected an int")
    if amount < 0:
        raise ValueError(f"amount={amount}: expected at least 0")


class _Counter(Replicated):
    __slots__ = ()

    def _add(self, key: Key, amount: int) -> Delta:
        cell = self._live.get(key)
        return self._write(key, stamp=amount + (highest(cell) if cell else 0))

    def _me(self) -> tuple[str, int]:
        origin = self._writer()
        return origin.name, origin.boot

    def bury(self, origin: Origin) -> Delta:
        """Put what is under a dead origin's dots under a new one of our own.

        Its counts stay, and nothing needs its dots any more.  Two nodes may do it
        at once: equal counts of one cell are one count.
        """
        moved = Delta()
        for key, cell in list(self._live.items()):
            if any(entry.dot.origin == origin for entry in cell):
                moved += self._write(key, stamp=highest(cell))
        return moved


class GCounter(_Counter):
    """A counter that only grows.

    >>> from atomr.crdt import Origin
    >>> a, b = GCounter(Origin("a", 1)), GCounter(Origin("b", 1))
    >>> a.join(b.increment(2)), a.increment().events[0].stamp, a.value
    (True, 1, 3)
    """

    KIND: ClassVar[str] = "g_counter"
    __slots__ = ()

    def increment(self, amount: int = 1) -> Delta:
        """Count.

        Raises:
            TypeError: ``amount`` is no int.
            ValueError: ``amount`` is negative.
        """
        check_amount(amount)
        return self._add(self._me(), amount) if amount else Delta()

    @property
    def value(self) -> int:
        """The sum of what all have counted, as far as is known here."""
        return sum(highest(cell) for cell in self._live.values())


class PNCounter(_Counter):
    """A counter that goes up and down; it may go below 0."""

    KIND: ClassVar[str] = "pn_counter"
    __slots__ = ()

    def increment(self, amount: int = 1) -> Delta:
        """Count up.

        Raises:
            TypeError: ``amount`` is no int.
            ValueError: ``amount`` is negative.
        """
        check_amount(amount)
        return self._add((*self._me(), 1), amount) if amount else Delta()

    def decrement(self, amount: int = 1) -> Delta:
        """Count down.

        Raises:
            TypeError: ``amount`` is no int.
            ValueError: ``amount`` is negative.
        """
        check_amount(amount)
        return self._add((*self._me(), -1), amount) if amount else Delta()

    @property
    def value(self) -> int:
        """What was counted up less what was counted down, as far as is known."""
        return sum(_sign(key) * highest(cell) for key, cell in self._live.items())


class WindowedGCounter(_Counter):
    """Counts by the second, for rates and dashboards; old seconds are dropped.

    A second belongs to the wall's clock of whoever counts in it.  For hard limits it
    is too late by as long as an update takes: use permits, or a bounded counter.
    """

    KIND: ClassVar[str] = "windowed_g_counter"
    __slots__ = ()

    def add(self, amount: int, *, now_s: float, keep_s: int = 120) -> Delta:
        """Count in the current second, and drop our own seconds that are too old.

        Args:
            amount: at least 0.
            now_s: seconds since 1970, by the wall.
            keep_s: how long a second is kept; at least twice the longest window
                that is asked for, so that nodes with slow clocks can ask too.

        Raises:
            TypeError: ``amount`` is no int.
            ValueError: ``amount`` is negative.
        """
        check_amount(amount)
        if not amount:
            return Delta()
        me, second = self._me(), int(now_s)
        key = (*me, second)
        # Once a second is often enough to look through all cells.
        old = () if key in self._live else self._older(me, second - keep_s)
        delta = self._add(key, amount)
        for old_key in old:
            delta += self._kill(old_key)
        return delta

    def value(self, *, now_s: float, window_s: int) -> int:
        """Return what all counted in the last ``window_s`` seconds, this one too."""
        last = int(now_s)
        return sum(
            highest(cell)
            for key, cell in self._live.items()
            if last - window_s < _second(key) <= last
        )

    def bury(self, origin: Origin) -> Delta:
        """Drop the seconds of a dead origin."""
        buried = Delta()
        for key, cell in list(self._live.items()):
            if any(entry.dot.origin == origin for entry in cell):
                buried += self._kill(key)
        return buried

    def _older(self, me: tuple[str, int], second: int) -> list[Key]:
        return [
            key
            for key in self._live
            if _second(key) <= second and key[:2] == me  # type: ignore[index]
        ]


# A peer may be wrong: a key of another shape counts nothing, and breaks nothing.


def _sign(key: Key) -> int:
    match key:
        case (_, _, 1):
            return 1
        case (_, _, -1):
            return -1
    return 0


def _second(key: Key) -> float:
    match key:
        case (_, _, int(second)):
            return second
    return inf
