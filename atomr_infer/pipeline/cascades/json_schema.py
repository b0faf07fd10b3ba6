"""Whether a value has the form that a JSON Schema says, as far as models are asked.

The members that structured output allows are checked: types, ``enum`` and ``const``,
objects, arrays, lengths and ranges, ``anyOf``, ``oneOf``, ``allOf``, and references
within the schema.  What is not known is taken to hold.

The schema is the client's: no pattern of it is tried, as one can take for ever, and
after so many steps the rest is taken to hold, as a schema can refer to itself twice.

Pure.

Source: JSON Schema 2020-12, "Validation".
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, TypeGuard

import attrs

Schema: TypeAlias = Mapping[str, object]

_MAX_STEPS = 20_000
_MAX_DEPTH = 100


@attrs.define
class _Work:
    """One check.

    Attributes:
        root: the whole schema, for references.
        steps: how many are left.
    """

    root: object
    steps: int = _MAX_STEPS


def problems(value: object, schema: object) -> Iterator[str]:
    """Yield what is wrong with a value, where it stands first.

    >>> list(problems({"n": "x"}, {"properties": {"n": {"type": "integer"}}}))
    ['$.n is no integer']
    >>> list(problems([1, 2], {"type": "array", "maxItems": 2}))
    []
    """
    yield from _problems(value, schema, _Work(schema), "$", 0)


def _problems(
    value: object, schema: object, work: _Work, at: str, depth: int
) -> Iterator[str]:
    if schema is False:
        yield f"{at} is not allowed"
    work.steps -= 1
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH or work.steps < 0:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from _problems(value, _found(work.root, reference), work, at, depth + 1)
    kinds = schema.get("type")
    if kinds is not None and not _is_of(value, kinds):
        yield f"{at} is no {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
        return
    allowed = _items(schema, "enum")
    if "enum" in schema and not any(_same(value, each) for each in allowed):
        yield f"{at} is none of the values that it may be"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{at} is not the value that it must be"
    yield from _bounds(value, schema, at)
    yield from _combined(value, schema, work, at, depth)
    if isinstance(value, dict):
        yield from _object(value, schema, work, at, depth)
    elif isinstance(value, list):
        yield from _array(value, schema, work, at, depth)


def _object(
    value: dict[str, object], schema: Schema, work: _Work, at: str, depth: int
) -> Iterator[str]:
    for name in _items(schema, "required"):
        if isinstance(name, str) and name not in value:
            yield f"{at} lacks {name!r}"
    known = schema.get("properties")
    known = known if isinstance(known, Mapping) else {}
    others = schema.get("additionalProperties", True)
    for name, member in value.items():
        inner = known.get(name, others)
        yield from _problems(member, inner, work, f"{at}.{name}", depth + 1)


def _array(
    value: list[object], schema: Schema, work: _Work, at: str, depth: int
) -> Iterator[str]:
    first = _items(schema, "prefixItems")
    for number, item in enumerate(value):
        inner = first[number] if number < len(first) else schema.get("items", True)
        yield from _problems(item, inner, work, f"{at}[{number}]", depth + 1)


def _combined(
    value: object, schema: Schema, work: _Work, at: str, depth: int
) -> Iterator[str]:
    def holds(inner: object) -> bool:
        return next(_problems(value, inner, work, at, depth + 1), None) is None

    for inner in _items(schema, "allOf"):
        yield from _problems(value, inner, work, at, depth + 1)
    if "anyOf" in schema and not any(map(holds, _items(schema, "anyOf"))):
        yield f"{at} is none of the forms that it may be"
    if "oneOf" in schema and sum(map(holds, _items(schema, "oneOf"))) != 1:
        yield f"{at} is not one of the forms that it may be"


_BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
    "minLength": operator.ge,
    "maxLength": operator.le,
    "minItems": operator.ge,
    "maxItems": operator.le,
}


def _bounds(value: object, schema: Schema, at: str) -> Iterator[str]:
    for name, holds in _BOUNDS.items():
        bound, size = schema.get(name), _size(value, name)
        if not isinstance(bound, (int, float)) or size is None:
            continue
        if not holds(size, bound):
            yield f"{at} breaks {name}: {bound}"


def _size(value: object, name: str) -> float | None:
    """Return what a bound is of; None: it is of another kind of value."""
    if name.endswith("Length"):
        return len(value) if isinstance(value, str) else None
    if name.endswith("Items"):
        return len(value) if isinstance(value, list) else None
    return value if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    # A whole number may be too large for a float.
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": _is_integer,
}


def _is_of(value: object, kinds: object) -> bool:
    names = (kinds,) if isinstance(kinds, str) else kinds
    if not isinstance(names, (list, tuple)):
        return True
    known = [_TYPES[n] for n in names if isinstance(n, str) and n in _TYPES]
    return len(known) < len(names) or any(holds(value) for holds in known)


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _items(schema: Schema, name: str) -> list[object]:
    found = schema.get(name)
    return found if isinstance(found, list) else []


def _found(root: object, reference: str) -> object:
    """Return what a reference within the schema is to; True where it leads nowhere."""
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return True
        found = found[name]
    return found if reference.startswith("#") else True
