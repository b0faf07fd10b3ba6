"""Arguments that are refused at once: the value, what is expected, the remedy.

An option that nothing understands is not ignored: a child with
``restart="temporary"`` would be found out on the night that it crashes.

The words are made only for what is refused; what is right costs a comparison
or two.

Pure.
"""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from enum import Enum
from functools import partial
from inspect import (
    CO_ASYNC_GENERATOR,
    CO_COROUTINE,
    CO_ITERABLE_COROUTINE,
    isawaitable,
    iscoroutine,
    unwrap,
)
from numbers import Integral, Real
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, Final

from atomr.errors import short

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEAR: Final = 0.85
"""As alike as ``handel_call`` and ``handle_call``; ``handle_case`` is a friend."""


# --- options ------------------------------------------------------------------------


def check_member(name: str, value: object, kind: type[Enum]) -> None:
    """Check an option that is a member of an enum.

    Raises:
        TypeError: it is none; says which one was meant, if that can be told.
    """
    if type(value) is not kind:
        problem = f"expected a member of {kind.__name__}"
        meant = _meant(value, kind)
        if meant is None:
            names = ", ".join(member.name for member in kind)
            raise TypeError(f"{name}={short(value)}: {problem}: {names}")
        raise TypeError(f"{name}={short(value)}: {problem}; did you mean {meant}?")


def _meant(value: object, kind: type[Enum]) -> str | None:
    text = value.name if isinstance(value, Enum) else value
    if not isinstance(text, str):
        return None
    names = [member.name for member in kind]
    near = get_close_matches(text.strip().upper().replace("-", "_"), names, 1)
    return f"{kind.__name__}.{near[0]}" if near else None


def check_count(name: str, value: object, *, least: int = 0) -> None:
    """Check a number of things.

    Raises:
        TypeError: it is no integer.
        ValueError: it is too small.
    """
    if not isinstance(value, (int, Integral)) or isinstance(value, bool):
        raise TypeError(f"{name}={short(value)}: expected an integer, at least {least}")
    if value < least:
        raise ValueError(f"{name}={value!r}: expected at least {least}")


def check_names(name: str, value: object) -> None:
    """Check an option that takes several names: a text is one, and not its letters.

    Raises:
        TypeError: it is one.
    """
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name}={short(value)}: expected several names, as [...]")


def check_seconds(name: str, value: object, *, zero: bool = True) -> None:
    """Check a time in seconds; infinity is one.

    Args:
        name: of the option.
        value: what was given.
        zero: whether it may be 0.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, or not a number (nan).
    """
    expected = "expected seconds, at least 0" if zero else "expected seconds, above 0"
    if not isinstance(value, (float, int, Real)) or isinstance(value, bool):
        raise TypeError(f"{name}={short(value)}: {expected}")
    number: Any = value
    if not (number >= 0 if zero else number > 0):
        raise ValueError(f"{name}={value!r}: {expected}")


def check_bool(name: str, value: object) -> None:
    """Check an option that is on or off.

    Raises:
        TypeError: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={short(value)}: expected True or False")


def check_text(name: str, value: object) -> None:
    """Check an option that is a text.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}={short(value)}: expected a text")


def check_tuple(name: str, value: object) -> None:
    """Check an option that is a tuple.

    Raises:
        TypeError: it is none: a text would be taken for its letters.
    """
    if not isinstance(value, tuple):
        given = short(value)
        raise TypeError(f"{name}={given}: expected a tuple, as ({given},)")


# --- functions ----------------------------------------------------------------------


def check_function(name: str, value: object) -> None:
    """Check an option that is a class, or a function that makes something.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(value):
        expected = "expected a class, or a function that makes a fresh one"
        raise TypeError(f"{name}={short(value)}: {expected}")


def check_async(operation: str, fn: object) -> None:
    """Check that ``fn`` may be an async function.

    What cannot be told before it is called is let through: a lambda, a
    callable object, a function that wraps another or says in its annotation
    that it returns an awaitable.

    Args:
        operation: for the message.
        fn: what was given.

    Raises:
        TypeError: it is a coroutine, no function, or a plain one.
    """
    code = getattr(fn, "__code__", None)
    if code is not None and code.co_flags & CO_COROUTINE:
        return
    if iscoroutine(fn):
        fn.close()
        name = fn.__name__
        problem = "it was called already: pass the function, and its arguments after it"
        raise TypeError(f"{operation}: {name}(...): {problem}")
    if not callable(fn):
        raise TypeError(f"{operation}: {short(fn)}: expected an async function")
    if _is_plain(_target(fn)):
        problem = "expected an async function: write `async def`"
        raise TypeError(f"{operation}: {name_of(fn)}: {problem}")


def check_plain(operation: str, fn: object, remedy: str) -> None:
    """Check that ``fn`` is no async function.

    Args:
        operation: for the message.
        fn: what was given.
        remedy: what to do instead.

    Raises:
        TypeError: it is one, a coroutine, or no function at all.
    """
    code = getattr(fn, "__code__", None)
    if code is not None and not code.co_flags & CO_COROUTINE:
        return
    if iscoroutine(fn):
        fn.close()
    elif callable(fn):
        if not is_async(fn):
            return
    else:
        raise TypeError(f"{operation}: {short(fn)}: expected a function")
    problem = f"expected a plain function, not an async one: {remedy}"
    raise TypeError(f"{operation}: {name_of(fn)}: {problem}")


def check_returned(name: str, returned: object) -> None:
    """Check what a function returned that was let through by :func:`check_async`.

    Raises:
        TypeError: it is nothing to await.
    """
    if type(returned) is not CoroutineType and not isawaitable(returned):
        problem = "expected an async function"
        raise TypeError(f"{name} returned {short(returned)}: {problem}")


def is_async(fn: object) -> bool:
    """Return whether ``fn`` is known to be an ``async def``."""
    return bool(_flags(_target(fn)) & CO_COROUTINE)


def name_of(fn: object) -> str:
    """Return what a function is called."""
    target = _target(fn)
    return str(getattr(target, "__qualname__", None) or short(target)).replace(
        "<locals>.", ""
    )


def _target(fn: object) -> object:
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "__func__", fn)


def _flags(fn: object) -> int:
    return fn.__code__.co_flags if isinstance(fn, FunctionType) else 0


def _is_plain(fn: object) -> bool:
    """Whether ``fn`` is a ``def`` that says nothing of an awaitable."""
    if not isinstance(fn, FunctionType) or unwrap(fn) is not fn:
        return False
    if fn.__name__ == "<lambda>" or fn.__code__.co_freevars:
        # A decorator's inner function holds the one that it decorates.
        return False
    if _flags(fn) & (CO_COROUTINE | CO_ITERABLE_COROUTINE):
        return False
    if _flags(fn) & CO_ASYNC_GENERATOR:
        return True
    returns = str(fn.__annotations__.get("return", ""))
    return not any(word in returns for word in ("Awaitable", "Coroutine", "Future"))


# --- names --------------------------------------------------------------------------


def warn_of_misspelt(
    cls: type[object], base: type[object], callbacks: Sequence[str]
) -> None:
    """Warn of each own method of ``cls`` whose name is nearly a callback's.

    Only of one that takes as many arguments as the callback: a state
    ``terminated(event)`` is no ``terminate(reason, state)``.

    Args:
        cls: a class that is being made, from its ``__init_subclass__``.
        base: where the callbacks are defined.
        callbacks: their names.
    """
    for name, own in vars(cls).items():
        if not isinstance(own, FunctionType) or name[0] == "_" or hasattr(base, name):
            continue
        meant = near_miss(name, callbacks)
        if meant is not None and _arguments(own) == _arguments(getattr(base, meant)):
            text = f"class {cls.__name__}: {name}() is no callback; is it {meant}()?"
            # The class statement: from here, by __init_subclass__ and ABCMeta.
            warnings.warn(text, stacklevel=4)


def _arguments(fn: FunctionType) -> int:
    return fn.__code__.co_argcount


def near_miss(name: str, known: Sequence[str]) -> str | None:
    """Return which of the known names is misspelt as ``name``; None: none is.

    >>> near_miss("handel_call", ["handle_call", "handle_cast"])
    'handle_call'
    >>> near_miss("handle_order", ["handle_call", "handle_cast"])
    """
    return next(iter(get_close_matches(name, known, 1, _NEAR)), None)
