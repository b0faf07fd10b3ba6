"""Wire forms of attrs values, derived from the values' own classes.

msgspec encodes attrs classes by itself, but not unions of them, and it would
repeat every field name in every chunk.  So each class gets a frozen struct that
is encoded as an array and begins with a tag; a field that is added to a value
crosses with no further word, and what has another number of fields is refused.

Pure.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec

Convert = Callable[[Any], Any]


class Codec:
    """The wire forms of a family of attrs classes.

    A field may be a plain value, an enum, another attrs class, a union of
    these, a tuple of any length, or a mapping of plain values.
    """

    def __init__(self) -> None:
        self._structs: dict[type, type[msgspec.Struct]] = {}
        self._in: dict[
            type[msgspec.Struct], tuple[type, tuple[str, ...], tuple[int, ...]]
        ] = {}
        self._out: dict[type, tuple[tuple[str, Convert | None], ...]] = {}

    def struct(self, cls: type) -> type[msgspec.Struct]:
        """Return the wire form of an attrs class, made on the first call."""
        known = self._structs.get(cls)
        if known is not None:
            return known
        hints = _hints(cls)
        names = [field.name for field in attrs.fields(cls)]
        made = msgspec.defstruct(
            cls.__name__ + "Wire",
            [(name, self._wire_type(hints[name])) for name in names],
            frozen=True,
            array_like=True,
            forbid_unknown_fields=True,
            tag=cls.__name__,
        )
        self._structs[cls] = made
        converts = [self._outward(hints[name]) for name in names]
        self._out[cls] = tuple(zip(names, converts, strict=True))
        # Mappings are dictionaries already when they come in.
        nested = [at for at, c in enumerate(converts) if c not in (None, dict)]
        self._in[made] = (cls, tuple(names), tuple(nested))
        return made

    def shape(self) -> str:
        """Return the classes and their fields, so that two versions can be compared."""
        return "\n".join(
            f"{cls.__name__}({', '.join(_annotated(cls))})"
            for cls in sorted(self._structs, key=lambda cls: cls.__name__)
        )

    def to_wire(self, value: Any) -> Any:  # noqa: ANN401 - any attrs value, its struct
        """Return the wire form of a value of a class that has one."""
        cls = type(value)
        return self._structs[cls](
            *[
                getattr(value, name)
                if convert is None
                else convert(getattr(value, name))
                for name, convert in self._out[cls]
            ]
        )

    def from_wire(self, wire: Any) -> Any:  # noqa: ANN401 - the inverse of to_wire
        """Return the value of a wire form; it is validated again on the way."""
        cls, names, positions = self._in[type(wire)]
        values: list[Any] = list(msgspec.structs.astuple(wire))
        for position in positions:
            if values[position]:
                values[position] = self._inward(values[position])
        return cls(**dict(zip(names, values, strict=True)))

    def _wire_type(self, hint: Any) -> Any:  # noqa: ANN401 - a type or a generic
        if attrs.has(hint):
            return self.struct(hint)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return Union[tuple(self._wire_type(each) for each in arguments)]  # noqa: UP007
        if origin is tuple:
            return tuple[self._wire_type(arguments[0]), ...]  # type: ignore[misc] # a type made at run time
        if origin is Mapping or (isinstance(origin, type) and origin is not None):
            return dict[arguments]  # type: ignore[valid-type,misc] # made at run time
        return hint

    def _outward(self, hint: Any) -> Convert | None:  # noqa: ANN401
        """Return how a field is written; None: as it is."""
        if attrs.has(hint):
            return self.to_wire
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            converts = [self._outward(each) for each in arguments]
            return self._any if any(converts) else None
        if origin is tuple:
            inner = self._outward(arguments[0])
            return None if inner is None else self._each
        return None if origin is None else dict

    def _any(self, value: Any) -> Any:  # noqa: ANN401
        return self.to_wire(value) if type(value) in self._structs else value

    def _each(self, values: Any) -> Any:  # noqa: ANN401
        return tuple(map(self._any, values))

    def _inward(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, msgspec.Struct):
            return self.from_wire(value)
        if isinstance(value, tuple):
            return tuple(map(self._inward, value))
        return value


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    """Return the types of a class's fields; to read them takes long."""
    return get_type_hints(cls)


def _annotated(cls: type) -> list[str]:
    hints = _hints(cls)
    return [f"{field.name}: {hints[field.name]}" for field in attrs.fields(cls)]
