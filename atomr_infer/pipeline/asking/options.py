"""Options of pipelines, from the tables of a deployment.

Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.validation import InvalidValueError

T = TypeVar("T")


def from_table(kind: type[T], given: object, *, where: str) -> T:
    """Return a value from a table of its fields.

    Args:
        kind: an attrs class; its fields' converters and validators judge.
        given: the table.
        where: what messages call it.

    Raises:
        ConfigError: it is no table, or a member is unknown, missing or wrong.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; it must be a table")
    fields = {field.name: field for field in attrs.fields(kind) if field.init}  # type: ignore[arg-type]
    for name in given:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            known = (
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}"
            )
            raise ConfigError(f"{where}: nothing reads {name!r}; {known}")
    for name, field in fields.items():
        if field.default is attrs.NOTHING and name not in given:
            raise ConfigError(f"{where} lacks {name!r}")
    try:
        return kind(**given)
    except InvalidValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def tables(kind: type[T], given: object, *, where: str) -> tuple[T, ...]:
    """Return values from a list of tables; a text is a table with its ``model``.

    Raises:
        ConfigError: it is no list, or a table of it is wrong.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise ConfigError(f"{where} is no list of tables")
    return tuple(
        from_table(
            kind,
            {"model": each} if isinstance(each, str) else each,
            where=f"{where}[{number}]",
        )
        for number, each in enumerate(given)
    )


def names(given: object) -> tuple[str, ...]:
    """Take a list of texts."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidValueError("list", given, "is no list of texts")
    found = tuple(given)
    for each in found:
        if not isinstance(each, str) or not each:
            raise InvalidValueError("list", each, "is no text")
    return found


def one_of(*allowed: str) -> Callable[[object, attrs.Attribute[str], str], None]:
    """Return a validator that takes one of some words."""

    def check(_: object, field: attrs.Attribute[str], value: str) -> None:
        if value not in allowed:
            raise InvalidValueError(
                field.name, value, f"is none of {', '.join(map(repr, allowed))}"
            )

    return check


def is_pattern(_: object, field: attrs.Attribute[str], value: object) -> None:
    """Require a regular expression."""
    try:
        re.compile(str(value))
    except re.error as error:
        raise InvalidValueError(field.name, value, f"is no pattern: {error}") from error


def is_target(_: object, field: attrs.Attribute[str], value: object) -> None:
    """Require the name of a function of the operator's."""
    form = re.compile(r"python:[\w.]+:\w[\w.]*")
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise InvalidValueError(
            field.name, value, "is not of the form python:<module>:<name>"
        )
