"""An application's configuration: its defaults, overridden by whoever runs it.

The defaults are one of

- an instance of an attrs class: each field is a key, with its type;
- an attrs class: the same, and fields without a default must be given;
- a mapping: its keys are all there are; values have no type.

What overrides them is a mapping of some keys, or an instance of the class.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, Union, get_args, get_origin

import attrs

from atomr.errors import ApplicationConfigError, short

if TYPE_CHECKING:
    from collections.abc import Iterable

Defaults: TypeAlias = object
"""An attrs instance, an attrs class, or a mapping from strings."""


def resolve_config(application: str, defaults: Defaults, given: object) -> object:
    """Return the configuration in force: frozen if it is a mapping.

    Args:
        application: its name, for errors.
        defaults: what the application declares.
        given: what overrides it; an empty mapping: nothing does.

    Raises:
        ApplicationConfigError: a key is unknown, missing, or its value is
            refused, by its type or by the class.

    >>> resolve_config("web", {"port": 80, "host": "::1"}, {"port": 8080})
    mappingproxy({'port': 8080, 'host': '::1'})
    """
    if isinstance(defaults, Mapping):
        changes = _mapping(application, given)
        refuse_unknown(application, defaults, changes)
        return MappingProxyType({**defaults, **changes})
    cls = defaults if isinstance(defaults, type) else type(defaults)
    if not attrs.has(cls):
        problem = f"expected an attrs class or a mapping, not {short(defaults)}"
        raise ApplicationConfigError(application, None, problem)
    if isinstance(given, cls):
        return given
    return _build(application, cls, defaults, _mapping(application, given))


def refuse_unknown(
    application: str, known: Iterable[str], given: Iterable[str]
) -> None:
    """Raise for the first key that is not known, and name the nearest.

    Raises:
        ApplicationConfigError: there is one.
    """
    names = list(known)
    for key in given:
        if key not in names:
            raise ApplicationConfigError(application, key, unknown(key, names))


def unknown(name: str, known: Iterable[str], *, what: str = "key") -> str:
    """Return what to say of a name that is not known.

    >>> unknown("prot", ["port", "host"])
    "no such key; did you mean 'port'?"
    """
    names = list(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"no such {what}; did you mean {near[0]!r}?"
    return f"no such {what}; there are {', '.join(map(repr, names)) or 'none'}"


def _mapping(application: str, given: object) -> Mapping[str, object]:
    if not isinstance(given, Mapping):
        problem = f"expected a mapping of keys, not {short(given)}"
        raise ApplicationConfigError(application, None, problem)
    return given


def _build(
    application: str,
    cls: type[Any],
    defaults: Defaults,
    changes: Mapping[str, object],
) -> object:
    fields = {field.alias: field for field in attrs.fields(attrs.resolve_types(cls))}
    settable = [alias for alias, field in fields.items() if field.init and alias]
    refuse_unknown(application, settable, changes)
    for key, value in changes.items():
        field = fields[key]
        # A converter says what it takes; it, not we, refuses the rest.
        if field.converter is None and not fits(value, field.type):
            problem = f"expected {_name(field.type)}, not {short(value)}"
            raise ApplicationConfigError(application, key, problem)
    try:
        if isinstance(defaults, type):
            _refuse_missing(application, fields, changes)
            return cls(**changes)
        return attrs.evolve(defaults, **changes)  # type: ignore[misc]
    except (ValueError, TypeError) as error:
        raise ApplicationConfigError(application, None, str(error)) from error


def _refuse_missing(
    application: str,
    fields: Mapping[str | None, attrs.Attribute[Any]],
    changes: Mapping[str, object],
) -> None:
    for alias, field in fields.items():
        if field.init and field.default is attrs.NOTHING and alias not in changes:
            problem = f"it must be given: {_name(field.type)}, without a default"
            raise ApplicationConfigError(application, alias, problem)


def fits(value: object, annotation: object) -> bool:
    """Return whether a value is of the annotated type, as far as is easy to see.

    >>> fits(1, float), fits(True, int), fits(None, str | None), fits("x", int)
    (True, False, True, False)
    """
    if get_origin(annotation) in {Union, UnionType}:
        return any(fits(value, member) for member in get_args(annotation))
    kind = get_origin(annotation) or annotation
    if kind is None:
        return value is None
    if not isinstance(kind, type):
        # Any, a Literal, a NewType: only a type checker can say.
        return True
    if isinstance(value, bool) and kind in {int, float}:
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _name(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
