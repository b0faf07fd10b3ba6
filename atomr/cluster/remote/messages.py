"""Which messages cross between nodes: what a user registers, and nothing else.

What a peer sends is made into one of these types, or refused: no name that comes
over a wire is ever imported, called or unpickled.

A type crosses under its class' name; both nodes must know it by the same one.  The
fields of a type say what they hold, as only that is made of what comes: a field that
says ``object`` would turn a message inside into a plain dict, silently, so it is
refused at the registration.

Pure.
"""

from __future__ import annotations

import enum
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from msgspec import inspect

from atomr.cluster.remote.frames import MAX_NAME_CHARACTERS
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FIELDS_OF = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.NamedTupleType,
)


class Messages:
    """The types of messages that cross between nodes.

    attrs classes, dataclasses, ``msgspec.Struct`` and enums.  None, booleans, numbers,
    texts, bytes, lists, tuples, dicts and pids cross always, and so do registered
    messages inside of them.

    Attributes:
        by_name: the types, by the names that they cross under.
        names: those names, by type.
    """

    def __init__(self, *types: type[Any], **named: type[Any]) -> None:
        """Register types.

        Args:
            types: cross under the names of their classes.
            named: cross under these names; for two classes of the same name.

        Raises:
            TypeError: something is no such type, or a field of it does not say what
                it holds.
            ValueError: two types have the same name.
        """
        self.by_name: dict[str, type[Any]] = {}
        self.names: dict[type[Any], str] = {}
        for name, cls in (*((_name(cls), cls) for cls in types), *named.items()):
            self._add(name, cls)

    def _add(self, name: str, cls: type[Any]) -> None:
        _check(cls)
        other = self.by_name.get(name)
        if other is cls:
            return
        if other is not None or not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise ValueError(
                f"Messages: {cls!r} cannot cross as {name!r}: expected a name that is"
                f" free, of at most {MAX_NAME_CHARACTERS} characters; give it another"
                " one: Messages(..., other_name=Type)"
            )
        self.by_name[name] = cls
        self.names[cls] = name

    def __repr__(self) -> str:
        return f"Messages({', '.join(self.by_name)})"

    def __or__(self, other: Messages) -> Messages:
        """Return both together.

        Raises:
            ValueError: two types have the same name.
        """
        both = Messages()
        for messages in (self, other):
            for name, cls in messages.by_name.items():
                both._add(name, cls)
        return both


def _name(cls: object) -> str:
    return cls.__name__ if isinstance(cls, type) else repr(cls)


def is_message_type(cls: type[Any]) -> bool:
    """Return whether a class is of a kind that can be registered."""
    is_struct = issubclass(cls, msgspec.Struct | enum.Enum)
    return is_struct or attrs.has(cls) or is_dataclass(cls)


def _check(cls: object) -> None:
    kinds = "expected an attrs class, a dataclass, a msgspec.Struct or an Enum"
    if not isinstance(cls, type) or not is_message_type(cls):
        raise TypeError(f"Messages: {cls!r}: {kinds}")
    if hasattr(cls, "_attrs_cached_hash"):
        problem = "keeps its hash, which is not made anew; leave out cache_hash=True"
        raise TypeError(f"Messages: {cls!r} {problem}")
    try:
        for owner, field, kind in _parts(inspect.type_info(cls), {}):
            _check_part(owner, field, kind)
    except NameError as error:
        raise TypeError(f"Messages: {cls!r}: {error}") from error


def _check_part(owner: str, field: str, kind: inspect.Type) -> None:
    vague = isinstance(kind, inspect.AnyType)
    if isinstance(kind, inspect.CustomType):
        if kind.cls is Pid:
            return
        vague = kind.cls is object
    elif not vague:
        return
    if vague:
        problem = "does not say what it holds, and so it cannot be made anew"
        remedy = "say which types, as in `str | int`"
    else:
        assert isinstance(kind, inspect.CustomType), "asked above"
        problem = f"holds a {kind.cls.__name__}, which does not cross between nodes"
        remedy = "make it an attrs class, a dataclass or a msgspec.Struct"
    raise TypeError(f"Messages: {owner}.{field} {problem}; {remedy}")


def _parts(
    kind: inspect.Type, seen: dict[int, inspect.Type]
) -> Iterator[tuple[str, str, inspect.Type]]:
    """Give all types that the fields of a class can hold, however deep."""
    if id(kind) in seen or not isinstance(kind, _FIELDS_OF):
        return
    seen[id(kind)] = kind
    for field in kind.fields:
        if field.name.startswith("_") and isinstance(kind, inspect.DataclassType):
            raise TypeError(
                f"Messages: {kind.cls.__name__}.{field.name} is private, and would not"
                " be sent; give it a name without an underscore"
            )
        for part in _insides(field.type, seen):
            yield kind.cls.__name__, field.name, part
            yield from _parts(part, seen)


def _insides(
    kind: inspect.Type, seen: Mapping[int, inspect.Type]
) -> Iterator[inspect.Type]:
    """Give a type, and what it is a collection or a union of."""
    yield kind
    if id(kind) in seen or isinstance(kind, _FIELDS_OF):
        return
    for name in ("item_type", "key_type", "value_type", "item_types", "types"):
        found: object = getattr(kind, name, ())
        for inner in found if isinstance(found, tuple) else (found,):
            if isinstance(inner, inspect.Type):
                yield from _insides(inner, seen)
