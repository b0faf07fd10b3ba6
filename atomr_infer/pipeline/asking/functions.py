"""Functions of the operator's, by the names that a deployment gives them."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def find_function(name: str, *, what: str) -> Callable[..., object]:
    """Return the function of ``python:<module>:<name>``.

    Args:
        name: the whole of it.
        what: the option that names it, for messages.

    Raises:
        ConfigError: it cannot be imported, or is none.
    """
    _, module, path = name.split(":")
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            f"{what} {name!r}: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise ConfigError(f"{what} {name!r} is {found!r}, and no function")
    return cast("Callable[..., object]", found)


THREADS = 40
"""Calls of plain functions of one deployment at once."""


async def call_function(
    function: Callable[..., object], *arguments: object, limiter: trio.CapacityLimiter
) -> object:
    """Return what such a function says; a plain one thinks in a thread.

    Args:
        function: a function, plain or async, or an object whose ``__call__`` is one.
        *arguments: with which.
        limiter: how many plain ones may think at once.  It is the deployment's own: one
            that hangs keeps its thread, and would at last keep all threads of trio's,
            which everything else needs.

    Raises:
        Exception: whatever it raises.

    Cancellation: a plain function runs on in its thread, and what it says is not
    heard.
    """
    if _is_async(function):
        said = function(*arguments)
    else:
        # It may think for long, and holds nobody up in a thread.  What it says comes
        # in a tuple: trio lets no coroutine out of one, as a wrapper of an async
        # function makes.
        (said,) = await trio.to_thread.run_sync(
            lambda: (function(*arguments),), abandon_on_cancel=True, limiter=limiter
        )
    return await said if isinstance(said, Awaitable) else said


def raised(error: Exception) -> str:
    """Say what an operator's function raised, and where, without what it said.

    An error's own words may repeat what users wrote.

    >>> try:  # doctest: +ELLIPSIS
    ...     {}["what a user wrote"]
    ... except KeyError as error:
    ...     raised(error).split()
    ['KeyError', 'at', '<doctest', ...]
    """
    frames = traceback.extract_tb(error.__traceback__)
    name = type(error).__name__
    if not frames:
        return name
    return f"{name} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"


def _is_async(function: Callable[..., object]) -> bool:
    called = function if inspect.isroutine(function) else type(function).__call__
    return any(inspect.iscoroutinefunction(one) for one in (function, called))
