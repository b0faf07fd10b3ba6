"""Validators for values that people write: the message names value and remedy.

They raise :class:`ValueError` as ``field: 'value' what is wrong; what to do``.
:class:`InvalidValueError` keeps the field, so that a configuration loader can
point at the line.

Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import attrs

_MAX_SHOWN = 200

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")

_Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


class InvalidValueError(ValueError):
    """A field's value is not allowed.

    Attributes:
        field: the field's name.
        value: what was given.
    """

    def __init__(self, field: str, value: object, problem: str) -> None:
        self.field = field
        self.value = value
        super().__init__(f"{field}: {_shown(value)} {problem}")


def _shown(value: object) -> str:
    """Return ``repr(value)`` cut to a sentence's size; a number may be huge."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."


def non_empty(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require a string with something in it."""
    if not isinstance(value, str):
        raise InvalidValueError(field.name, value, "is not a string")
    if not value.strip():
        raise InvalidValueError(field.name, value, "is empty; give it a value")


def identifier(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require a name that is safe in URLs, logs and file names."""
    non_empty(_, field, value)
    if not isinstance(value, str) or _IDENTIFIER.fullmatch(value) is None:
        raise InvalidValueError(
            field.name, value, "is not a name; use letters, digits and . _ - / :"
        )


def positive(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require a finite number above 0."""
    number = _number(field, value)
    if not math.isfinite(number) or number <= 0:
        raise InvalidValueError(field.name, value, "must be a number above 0")


def not_negative(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require a finite number of 0 or more."""
    number = _number(field, value)
    if not math.isfinite(number) or number < 0:
        raise InvalidValueError(field.name, value, "must be a number of 0 or more")


def share(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require a number of at most 1: a part of a whole."""
    if not _number(field, value) <= 1:
        raise InvalidValueError(field.name, value, "is a share; it must be at most 1")


def at_least(bound: int) -> _Validator:
    """Require an integer of at least ``bound``."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if _integer(field, value) < bound:
            raise InvalidValueError(field.name, value, f"must be at least {bound}")

    return check


def at_most(bound: int) -> _Validator:
    """Require an integer of at most ``bound``."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if _integer(field, value) > bound:
            raise InvalidValueError(field.name, value, f"must be at most {bound}")

    return check


def _number(field: attrs.Attribute[Any], value: object) -> float:
    # bool is an int to Python, and never a number to a person.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidValueError(field.name, value, "is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidValueError(field.name, value, "is too large") from error


def _integer(field: attrs.Attribute[Any], value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValueError(field.name, value, "is not a whole number")
    return value
