"""Patterns: what a test says of the message that it expects.

=====================  ======================================================
pattern                accepts
=====================  ======================================================
a class, a union       its instances
a function             what it returns true for
:func:`like`           an instance with such attributes
:func:`equal_to`       that value, also where it is a class or a function
:data:`ANYTHING`       everything
tuple, list, dict      the same shape, each place a pattern again; so a tuple
                       with names
any other value        what is equal to it
=====================  ======================================================

Pure.
"""

from __future__ import annotations

import dataclasses
import inspect
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeGuard, TypeVar, get_origin

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Pattern(Generic[T]):
    """What :func:`like` and :func:`equal_to` return."""

    __slots__ = ("_accepts", "_text")

    def __init__(self, text: str, accepts: Callable[[object], bool]) -> None:
        self._text = text
        self._accepts = accepts

    def __repr__(self) -> str:
        return self._text

    def accepts(self, value: object) -> TypeGuard[T]:
        """Return whether the pattern accepts the value."""
        return self._accepts(value)


ANYTHING: Final[Pattern[Any]] = Pattern("ANYTHING", lambda _value: True)
"""Accepts everything."""


def equal_to(value: T) -> Pattern[T]:
    """Return a pattern for exactly that value, whatever it is.

    >>> accepts(equal_to(int), int), accepts(int, int)
    (True, False)
    """
    return Pattern(f"equal_to({value!r})", lambda other: bool(other == value))


def like(kind: type[T], /, **attributes: object) -> Pattern[T]:
    """Return a pattern for instances of a class, attributes by pattern.

    Args:
        kind: the class.
        attributes: a pattern for each attribute that matters.

    Raises:
        TypeError: a class of attrs or a dataclass has no such field: nothing
            would fit, and an expectation of nothing would always hold.

    >>> accepts(like(complex, real=1.0), 1 + 2j)
    True
    """
    for name in attributes:
        if not _may_have(kind, name):
            raise TypeError(f"like({kind.__name__}, {name}=...): it has no such field")

    def fits(value: object) -> bool:
        return isinstance(value, kind) and all(
            hasattr(value, name) and accepts(pattern, getattr(value, name))
            for name, pattern in attributes.items()
        )

    fields = "".join(f", {name}={describe(p)}" for name, p in attributes.items())
    return Pattern(f"like({kind.__name__}{fields})", fits)


def _may_have(kind: type[object], name: str) -> bool:
    if attrs.has(kind):
        fields = {field.name for field in attrs.fields(kind)}
    elif dataclasses.is_dataclass(kind):
        fields = {field.name for field in dataclasses.fields(kind)}
    else:
        # Its instances say, each for itself.
        return True
    return name in fields or hasattr(kind, name)


def accepts(pattern: object, value: object) -> bool:
    """Return whether the pattern accepts the value.

    Raises:
        TypeError: the pattern is an async function, or a class with parameters,
            and would accept too much.

    >>> accepts(("ok", int), ("ok", 3)), accepts(("ok", int), ("ok", "3"))
    (True, False)
    """
    if isinstance(pattern, Pattern):
        return pattern.accepts(value)
    if isinstance(pattern, (type, UnionType)):
        return isinstance(value, pattern)
    # A tuple with names as well: its places are patterns like others.
    if isinstance(pattern, tuple) or type(pattern) is list:
        return _same_places(pattern, value)
    if type(pattern) is dict:
        return _same_keys(pattern, value)
    if get_origin(pattern) is not None:
        raise TypeError(f"pattern {pattern!r}: give the class, without parameters")
    if callable(pattern):
        return _found_true(pattern, value)
    return bool(pattern == value)


def _found_true(pattern: Callable[[object], object], value: object) -> bool:
    found = pattern(value)
    if inspect.iscoroutine(found):
        found.close()
        raise TypeError(f"pattern {pattern!r}: an async function; give a plain one")
    return bool(found)


def _same_places(pattern: Any, value: object) -> bool:  # noqa: ANN401 - a sequence
    return (
        isinstance(value, type(pattern))
        and len(value) == len(pattern)
        and all(map(accepts, pattern, value))
    )


def _same_keys(pattern: dict[object, object], value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == pattern.keys()
        and all(accepts(pattern[key], value[key]) for key in pattern)
    )


def describe(pattern: object) -> str:
    """Return the pattern as a reader of a failed test knows it.

    >>> describe(int), describe(("ok", int)), describe("pong")
    ('int', "('ok', int)", "'pong'")
    """
    if isinstance(pattern, type):
        return pattern.__name__
    if type(pattern) is tuple:
        inner = ", ".join(map(describe, pattern))
        return f"({inner},)" if len(pattern) == 1 else f"({inner})"
    if type(pattern) is list:
        return f"[{', '.join(map(describe, pattern))}]"
    if type(pattern) is dict:
        return f"{{{', '.join(f'{k!r}: {describe(p)}' for k, p in pattern.items())}}}"
    if callable(pattern) and hasattr(pattern, "__name__"):
        return f"{pattern.__name__}(...)"
    return repr(pattern)
