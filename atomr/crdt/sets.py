"""Sets, and what becomes of an element that is added and removed at once.

An element is a key: text, an integer of 64 bits, or a tuple of them.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from atomr.crdt.replicated import Replicated
from atomr.crdt.wire import Delta, Key, check_key

if TYPE_CHECKING:
    from collections.abc import Iterator

REMOVED, ADDED = 0, 1


class _Set(Replicated):
    __slots__ = ()

    def __contains__(self, element: object) -> bool:
        return element in self._live

    def __iter__(self) -> Iterator[Key]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)

    @property
    def value(self) -> frozenset[Key]:
        """The elements, as far as is known here."""
        return frozenset(self)


class GSet(_Set):
    """A set that only grows."""

    KIND: ClassVar[str] = "g_set"
    __slots__ = ()

    def add(self, element: Key) -> Delta:
        """Add an element; nothing happens where it is in it.

        Raises:
            BadKeyError: it can be no key.
        """
        check_key(element)
        return Delta() if element in self._live else self._write(element)


class AWSet(_Set):
    """A set in which an addition wins over a removal that has not seen it.

    >>> from atomr.crdt import Origin
    >>> a, b = AWSet(Origin("a", 1)), AWSet(Origin("b", 1))
    >>> b.join(a.add("x")), b.join(a.remove("x") + a.add("x")), "x" in b
    (True, True, True)
    """

    KIND: ClassVar[str] = "aw_set"
    __slots__ = ()

    def add(self, element: Key) -> Delta:
        """Add an element, again where it is in it: that outlives a removal elsewhere.

        Raises:
            BadKeyError: it can be no key.
        """
        return self._write(element)

    def remove(self, element: Key) -> Delta:
        """Remove an element, as far as its additions are known here."""
        return self._kill(element)

    def clear(self) -> Delta:
        """Remove all that is known here; one event for each element."""
        return Delta(tuple([e for k in list(self._live) for e in self._kill(k).events]))


class RWSet(_Set):
    """A set in which a removal wins over an addition that has not seen it.

    A removal stays as an entry until the element is added again, because it has to
    win over additions that are still under way.  So memory grows with what was ever
    removed: use it for few elements, such as a list of who is banned.
    """

    KIND: ClassVar[str] = "rw_set"
    __slots__ = ()

    def add(self, element: Key) -> Delta:
        """Add an element, over all removals that are known here.

        Raises:
            BadKeyError: it can be no key.
        """
        return self._write(element, stamp=ADDED)

    def remove(self, element: Key) -> Delta:
        """Remove an element; where it was never in it too.

        Raises:
            BadKeyError: it can be no key.
        """
        return self._write(element, stamp=REMOVED)

    def __contains__(self, element: object) -> bool:
        cell = self._live.get(element)  # type: ignore[call-overload]
        return cell is not None and all(entry.stamp == ADDED for entry in cell)

    def __iter__(self) -> Iterator[Key]:
        return (element for element in self._live if element in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
