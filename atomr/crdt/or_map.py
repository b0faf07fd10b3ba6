"""A map whose values are replicated themselves: sets, flags, registers, maps.

A field is written in place, so two nodes that add to one set both have added.  A
removal of a key removes what it has seen of all its fields; what another node wrote
into one at the same time stays, and nothing older comes back with it.

The fields' cells are cells of the map: their keys are ``(key, kind, inner key)``.
So there is one context for all, and a removal is exact.

There are no counters in it: see :mod:`atomr.crdt.counters`.

Pure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from atomr.crdt.errors import BadKeyError
from atomr.crdt.flags import DWFlag, EWFlag
from atomr.crdt.maps import AWLWWMap
from atomr.crdt.registers import LWWRegister, MVRegister, Stamped
from atomr.crdt.sets import AWSet, GSet, RWSet
from atomr.crdt.wire import Delta, Entry, Key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr.crdt.origin import Dot, Origin

Field: TypeAlias = (
    AWLWWMap | AWSet | DWFlag | EWFlag | GSet | LWWRegister | MVRegister | RWSet
)
FieldT = TypeVar("FieldT", bound=Field)

FIELDS: dict[str, type[Field]] = {
    kind.KIND: kind
    for kind in (
        AWLWWMap,
        AWSet,
        DWFlag,
        EWFlag,
        GSet,
        LWWRegister,
        MVRegister,
        RWSet,
    )
}
"""What a field can be, by its name on the wire."""

Cells: TypeAlias = dict[Key, tuple[Entry, ...]]


class ORMap(Stamped):
    """A map from keys to fields that are replicated themselves.

    >>> from atomr.crdt import AWSet, Origin
    >>> a, b = ORMap(Origin("a", 1)), ORMap(Origin("b", 1))
    >>> b.join(a.field("team", AWSet).add("ann"))
    True
    >>> late = a.field("team", AWSet).add("bob")
    >>> b.join(b.remove("team")), b.join(late), b.value
    (False, True, {'team': {'aw_set': frozenset({'bob'})}})
    """

    KIND: ClassVar[str] = "or_map"
    __slots__ = ("_fields",)

    def __init__(self, origin: Origin | None = None, *, name: str = "") -> None:
        super().__init__(origin, name=name)
        self._fields: dict[str | int, dict[str, Cells]] | None = None

    def field(self, key: str | int, kind: type[FieldT]) -> FieldT:
        """Return a field of a key, to be read and written; it need not be there yet.

        It shows the map as it is, also after later joins.

        Args:
            key: text, or an integer of 64 bits.
            kind: the field's type.  Fields of other types of the same key are
                other fields.

        Raises:
            BadKeyError: it can be no key of such a map.
            TypeError: there are no fields of that type, such as counters.
        """
        if type(key) not in {str, int}:
            raise BadKeyError(key)
        if FIELDS.get(kind.KIND) is not kind:
            known = ", ".join(kind.__name__ for kind in FIELDS.values())
            raise TypeError(f"field of {kind.__name__}: expected one of {known}")
        return self._view(key, kind)

    def remove(self, key: str | int) -> Delta:
        """Remove all fields of a key, as far as they are known here.

        It is one event for each cell; others may see it happen step by step.
        """
        cells = [
            _flat(key, kind, inner)
            for kind, field in self._index().get(key, {}).items()
            for inner in field
        ]
        return Delta(tuple([e for cell in cells for e in self._kill(cell).events]))

    def kinds(self, key: str | int) -> tuple[type[Field], ...]:
        """Return which fields a key has, in the order of their names."""
        fields = self._index().get(key, {})
        return tuple([FIELDS[kind] for kind in sorted(fields) if fields[kind]])

    def __contains__(self, key: object) -> bool:
        return any(self._index().get(key, {}).values())  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[str | int]:
        return (key for key, fields in self._index().items() if any(fields.values()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def value(self) -> dict[str | int, dict[str, Any]]:
        """Each key with the values of its fields, by the names of their types."""
        return {
            key: {kind.KIND: self._view(key, kind).value for kind in self.kinds(key)}
            for key in self
        }

    def _view(self, key: str | int, kind: type[FieldT]) -> FieldT:
        view = kind(self.origin)
        if isinstance(view, Stamped):
            view.clock = self.clock
        cells = self._index().setdefault(key, {}).setdefault(kind.KIND, {})
        view.show(cells, partial(self._commit_field, key, kind.KIND))
        return view

    def _commit_field(
        self,
        key: str | int,
        kind: str,
        inner: Key,
        *,
        kills: tuple[Dot, ...],
        stamp: int = 0,
        body: bytes | None = None,
    ) -> Delta:
        flat = _flat(key, kind, inner)
        return self._commit(flat, kills=kills, stamp=stamp, body=body)

    def _index(self) -> dict[str | int, dict[str, Cells]]:
        if self._fields is None:
            self._fields = {}
            for key, cell in self._live.items():
                self._index_cell(key, cell)
        return self._fields

    def _put(self, key: Key, cell: tuple[Entry, ...], mark: int | None = None) -> None:
        super()._put(key, cell, mark)
        if self._fields is not None:
            self._index_cell(key, cell)

    def _index_cell(self, flat: Key, cell: tuple[Entry, ...]) -> None:
        place = _place(flat)
        if place is None or self._fields is None:
            return
        key, kind, inner = place
        cells = self._fields.setdefault(key, {}).setdefault(kind, {})
        if cell:
            cells[inner] = cell
        else:
            cells.pop(inner, None)


def _flat(key: str | int, kind: str, inner: Key) -> Key:
    """Return the cell's key in the map."""
    if isinstance(inner, tuple):
        return (key, kind, len(inner), "", *inner)
    return (key, kind, inner)


def _place(flat: Key) -> tuple[str | int, str, Key] | None:
    """Return the map's key, the field's kind and its inner key; None: a peer errs."""
    match flat:
        case (key, str(kind), inner) if kind in FIELDS:
            return key, kind, inner
        case (key, str(kind), int(_), "", *inner) if kind in FIELDS:
            return key, kind, tuple(inner)
    return None
