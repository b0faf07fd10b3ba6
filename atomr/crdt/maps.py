"""Maps from keys to values that are replaced whole.

==================  ==========================================================
:class:`AWLWWMap`   anyone writes any key; the latest of concurrent writes is
                    the value, and a write wins over a concurrent removal
:class:`OwnedMap`   a key has one value for each owner, which only that owner
                    writes; whose owner is away can be left out
==================  ==========================================================

Values are whatever MessagePack can carry, and come back as it decodes them, on the
writer's node too: a tuple as a list, a set as a sorted list.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from atomr.crdt.registers import Stamped, latest, values_of
from atomr.crdt.replicated import Replicated
from atomr.crdt.wire import Delta, Key, check_key, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from atomr.crdt.origin import Origin


class AWLWWMap(Stamped):
    """A map: additions win over removals, the last write over earlier ones.

    >>> from atomr.crdt import Origin
    >>> here, there = AWLWWMap(Origin("here", 1)), AWLWWMap(Origin("there", 1))
    >>> there.join(here.put("colour", "red"))
    True
    >>> there["colour"]
    'red'
    """

    KIND: ClassVar[str] = "aw_lww_map"
    __slots__ = ()

    def put(self, key: Key, value: object, *, now_ms: int = 0) -> Delta:
        """Set a key's value, in place of all that are seen.

        Args:
            key: text, an integer of 64 bits, or a tuple of them.
            value: whatever MessagePack can carry.
            now_ms: the wall's time since 1970; 0: concurrent writes are ordered by
                how many each node has seen.

        Raises:
            BadKeyError: it can be no key.
            TypeError: MessagePack cannot carry the value.
            OverflowError: an integer in it has more than 64 bits.
        """
        return self._assign(key, value, now_ms)

    def remove(self, key: Key) -> Delta:
        """Remove a key, as far as its values are known here."""
        return self._kill(key)

    def clear(self) -> Delta:
        """Remove all keys that are known here; one event for each."""
        return Delta(tuple([e for k in list(self._live) for e in self._kill(k).events]))

    def __getitem__(self, key: Key) -> Any:  # noqa: ANN401 - whatever was put
        return unpack(latest(self._live[key]).body)

    def get(self, key: Key, default: object = None) -> Any:  # noqa: ANN401 - as above
        """Return the value, or ``default`` where the key is absent."""
        cell = self._live.get(key)
        return default if cell is None else unpack(latest(cell).body)

    def conflicts(self, key: Key) -> tuple[Any, ...]:
        """Return all values that were put at once; the next put replaces them."""
        return values_of(self._live.get(key, ()))

    def items(self) -> Iterator[tuple[Key, Any]]:
        """Yield keys and values, in no particular order."""
        for key, cell in self._live.items():
            yield key, unpack(latest(cell).body)

    def __contains__(self, key: object) -> bool:
        return key in self._live

    def __iter__(self) -> Iterator[Key]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)

    @property
    def value(self) -> dict[Key, Any]:
        """The map as a dictionary of its own."""
        return dict(self.items())


class OwnedMap(Replicated):
    """Values that only their owner writes: endpoints, members of groups, presence.

    There are no conflicts, because nobody writes what another one owns.  An owner
    is an origin, so a node that restarts owns nothing of what it wrote before; its
    old entries are hidden by :meth:`items` and dropped by :meth:`bury`.
    """

    KIND: ClassVar[str] = "owned_map"
    __slots__ = ()

    def put(self, key: Key, value: object) -> Delta:
        """Set our own value of a key.

        Raises:
            BadKeyError: it can be no key.
            TypeError: MessagePack cannot carry the value.
            OverflowError: an integer in it has more than 64 bits.
        """
        return self._write_own(key, pack(value))

    def remove(self, key: Key) -> Delta:
        """Remove our own value of a key; others' stay."""
        return self._write_own(key, None)

    def get(self, key: Key, owner: Origin, default: object = None) -> Any:  # noqa: ANN401
        """Return an owner's value of a key, or ``default``."""
        for entry in self._live.get(key, ()):
            if entry.dot.origin == owner:
                return unpack(entry.body)
        return default

    def owners(self, key: Key, *, hidden: Container[Origin] = ()) -> tuple[Origin, ...]:
        """Return who has a value for a key, in their order.

        Args:
            key: the key.
            hidden: owners to leave out, such as suspects.
        """
        cell = self._live.get(key, ())
        owners = dict.fromkeys(entry.dot.origin for entry in cell)
        return tuple([owner for owner in owners if owner not in hidden])

    def items(
        self, *, hidden: Container[Origin] = ()
    ) -> Iterator[tuple[Key, Origin, Any]]:
        """Yield each key, owner and value."""
        for key, cell in self._live.items():
            for entry in cell:
                if entry.dot.origin not in hidden:
                    yield key, entry.dot.origin, unpack(entry.body)

    @property
    def value(self) -> dict[Key, dict[Origin, Any]]:
        """Each key with the values of its owners."""
        value: dict[Key, dict[Origin, Any]] = {}
        for key, owner, owned in self.items():
            value.setdefault(key, {})[owner] = owned
        return value

    def bury(self, origin: Origin) -> Delta:
        """Drop what a dead owner has left."""
        buried = Delta()
        for key, cell in list(self._live.items()):
            kills = tuple([e.dot for e in cell if e.dot.origin == origin])
            if kills:
                buried += self._commit(key, kills=kills)
        return buried

    def _write_own(self, key: Key, body: bytes | None) -> Delta:
        check_key(key)
        me = self._writer()
        cell = self._live.get(key, ())
        kills = tuple([entry.dot for entry in cell if entry.dot.origin == me])
        if body is None and not kills:
            return Delta()
        return self._commit(key, kills=kills, body=body)
