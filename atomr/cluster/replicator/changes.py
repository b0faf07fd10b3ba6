"""What watchers of a replicated value are told, and how it is found out.

A :class:`View` holds what the watchers of one replica were told last.  Whatever may
have changed is compared with that, so a change is told once, with what was there
before, whether it came as an event, in a snapshot, or because an owner went out of
sight; and what was changed and changed back in between is not told at all.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from atomr.crdt import (
    AWLWWMap,
    AWSet,
    GSet,
    Key,
    LWWRegister,
    Origin,
    OwnedMap,
    Replicated,
)
from atomr.crdt.registers import latest
from atomr.crdt.wire import unpack

if TYPE_CHECKING:
    from atomr.crdt import Entry


class Absent(Enum):
    """The type of ``ABSENT``."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.name


ABSENT: Final = Absent.ABSENT
"""Stands for the value of a key that is not there; None is a value."""


@attrs.frozen
class Changed:
    """A key of a watched value has another value than was told last.

    Attributes:
        kind: of the value: the ``KIND`` of its type.
        name: of the value.
        key: in it; ``""`` where it has none, as a register.
        old: what was told last; ``ABSENT``: it was not there.
        new: what is there now; ``ABSENT``: it is not.
        owner: the node whose value of the key it is, in an owned map; else None.
    """

    kind: str
    name: str
    key: Key
    old: Any
    new: Any
    owner: Origin | None = None


@attrs.frozen
class Missed:
    """Changes were not told, because too many waited already; look at it all again.

    Attributes:
        kind: of the value.
        name: of the value.
        count: how many.
    """

    kind: str
    name: str
    count: int


Told: TypeAlias = Changed | Missed
Slots: TypeAlias = Mapping[Origin | None, bytes]
"""Of one key: the encoded values, by owner."""

_NOTHING: Final[Slots] = {}


class View:
    """What the watchers of one replica know.

    Told cells are shared with the replica, not copied: to begin costs a microsecond
    for a hundred keys, and what is unchanged is the same object.

    Attributes:
        name: of the value.
        replica: the replica here.
    """

    __slots__ = ("_cells", "_is_whole", "_sight", "_whole", "name", "replica")

    def __init__(
        self, name: str, replica: Replicated, sight: Mapping[Origin, Origin]
    ) -> None:
        self.name = name
        self.replica = replica
        self._sight = dict(sight)
        self._is_whole = not isinstance(replica, _BY_KEY)
        self._whole: Any = self._read_whole()
        self._cells = dict(replica.cells())

    def touched(self, key: Key) -> list[Changed]:
        """Return what is to be told after an event at a key."""
        if self._is_whole:
            return self._compare_whole()
        old, new = self._cells.get(key), self.replica.cells().get(key)
        if old is new:
            return []
        if new is None:
            del self._cells[key]
        else:
            self._cells[key] = new
        return self._changes(key, self._slots(old), self._slots(new))

    def joined(self) -> list[Changed]:
        """Return what is to be told after a snapshot.

        Cost: of all keys, a tenth of a microsecond for each that is unchanged.
        """
        if self._is_whole:
            return self._compare_whole()
        told, cells = self._cells, self.replica.cells()
        keys = [key for key, cell in cells.items() if told.get(key) is not cell]
        keys += [key for key in told if key not in cells]
        return [changed for key in keys for changed in self.touched(key)]

    def replaced(self, replica: Replicated) -> None:
        """Go on with another replica of the value, of the log's next life.

        What is in it is compared when the log has what its peers have.
        """
        self.replica = replica

    def seen(self, owner: Origin, node: Origin | None) -> list[Changed]:
        """Return what is to be told as an owner comes into sight, or leaves it.

        Args:
            owner: the life of a log.
            node: the node that it is a part of; None: it is out of sight.

        Cost: of all keys of an owned map.
        """
        if not isinstance(self.replica, OwnedMap):
            return []
        before = self._sight.pop(owner, None)
        if node is not None:
            self._sight[owner] = node
        if before == node:
            return []
        return [
            changed
            for key, cell in self._cells.items()
            for entry in cell
            if entry.dot.origin == owner
            for changed in self._changes(key, _slot(before, entry), _slot(node, entry))
        ]

    def _compare_whole(self) -> list[Changed]:
        old, self._whole = self._whole, self._read_whole()
        return [] if old == self._whole else [self._changed("", old, self._whole)]

    def _read_whole(self) -> Any:  # noqa: ANN401 - whatever it is
        return getattr(self.replica, "value", None) if self._is_whole else None

    def _slots(self, cell: tuple[Entry, ...] | None) -> Slots:
        if cell is None:
            return _NOTHING
        match self.replica:
            case OwnedMap():
                sight = self._sight
                return {
                    sight[entry.dot.origin]: entry.body
                    for entry in cell
                    if entry.dot.origin in sight
                }
            case _:
                return {None: latest(cell).body}

    def _changes(self, key: Key, old: Slots, new: Slots) -> list[Changed]:
        return [
            self._changed(key, _value(old, owner), _value(new, owner), owner)
            for owner in {**old, **new}
            if old.get(owner) != new.get(owner)
        ]

    def _changed(
        self,
        key: Key,
        old: Any,  # noqa: ANN401 - whatever was put
        new: Any,  # noqa: ANN401 - the same
        owner: Origin | None = None,
    ) -> Changed:
        return Changed(self.replica.KIND, self.name, key, old, new, owner)


_BY_KEY = AWLWWMap | OwnedMap | LWWRegister | AWSet | GSet
"""Of the others, what is told is the value as a whole."""


def _slot(node: Origin | None, entry: Entry) -> Slots:
    return _NOTHING if node is None else {node: entry.body}


def _value(slots: Slots, owner: Origin | None) -> Any:  # noqa: ANN401 - whatever was put
    body = slots.get(owner)
    if body is None:
        return ABSENT
    return unpack(body) if body else True
