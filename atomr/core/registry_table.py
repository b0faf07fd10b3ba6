"""The table of a registry: who holds which key, with what value.

Two dictionaries that say the same from both sides: by key, so that a lookup is
one step; by owner, so that an owner's end costs no more than its own keys.

Pure.

Source: Elixir ``Registry``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
O = TypeVar("O", bound=Hashable)  # noqa: E741 - the owner, beside K and V


class RegistryTable(Generic[K, V, O]):
    """Entries of ``(key, owner, value)``; an owner may hold a key several times.

    >>> table = RegistryTable[str, int, str]()
    >>> table.add("k", "me", 1)
    >>> table.add("k", "you", 2)
    >>> table.lookup("k")
    (('me', 1), ('you', 2))
    >>> table.drop_owner("me")
    ['k']
    >>> table.lookup("k"), len(table)
    ((('you', 2),), 1)
    """

    __slots__ = ("_by_key", "_by_owner", "_size")

    def __init__(self) -> None:
        self._by_key: dict[K, dict[O, list[V]]] = {}
        self._by_owner: dict[O, dict[K, None]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, key: K, owner: O, value: V) -> None:
        """Add an entry."""
        self._by_key.setdefault(key, {}).setdefault(owner, []).append(value)
        self._by_owner.setdefault(owner, {})[key] = None
        self._size += 1

    def holds(self, key: K, owner: O) -> bool:
        """Return whether the owner holds the key."""
        return key in self._by_owner.get(owner, ())

    def owns_any(self, owner: O) -> bool:
        """Return whether the owner holds any key."""
        return owner in self._by_owner

    def holder(self, key: K) -> O | None:
        """Return who has held the key longest; None: nobody does."""
        return next(iter(self._by_key.get(key, ())), None)

    def lookup(self, key: K) -> tuple[tuple[O, V], ...]:
        """Return all entries of a key, by owner in the order of their first."""
        owners = self._by_key.get(key)
        if owners is None:
            return ()
        return tuple((owner, v) for owner, values in owners.items() for v in values)

    def keys(self, owner: O) -> tuple[K, ...]:
        """Return the keys of an owner in the order of their first entry."""
        return tuple(self._by_owner.get(owner, ()))

    def entries(self) -> tuple[tuple[K, O, V], ...]:
        """Return everything."""
        return tuple(
            (key, owner, value)
            for key, owners in self._by_key.items()
            for owner, values in owners.items()
            for value in values
        )

    def set_values(self, key: K, owner: O, values: list[V]) -> None:
        """Put other values in the place of those that the owner has there."""
        self._size += len(values) - len(self._by_key[key][owner])
        self._by_key[key][owner] = values

    def drop(self, key: K, owner: O) -> int:
        """Remove the owner's entries of a key; return how many they were."""
        held = self._by_owner.get(owner)
        if held is None or key not in held:
            return 0
        del held[key]
        if not held:
            del self._by_owner[owner]
        return self._forget(key, owner)

    def drop_owner(self, owner: O) -> list[K]:
        """Remove all entries of an owner; return their keys."""
        keys = list(self._by_owner.pop(owner, ()))
        for key in keys:
            self._forget(key, owner)
        return keys

    def _forget(self, key: K, owner: O) -> int:
        owners = self._by_key[key]
        count = len(owners.pop(owner))
        if not owners:
            del self._by_key[key]
        self._size -= count
        return count
