"""Arguments that a supervisor gives to its children's starts.

A mismatch is found when it happens, not before: to look at a signature costs
more than the start of a process.

Pure.

Source: Elixir ``DynamicSupervisor``, ``:extra_arguments``;
``PartitionSupervisor``, ``:with_arguments``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from atomr.errors import short

if TYPE_CHECKING:
    from collections.abc import Callable


class StartWith:
    """Calls a child's start with arguments that its specification lacks.

    Args:
        start: of the specification.
        arguments: what to call it with.
        option: the supervisor's option that they come from, for the message.
    """

    __slots__ = ("arguments", "option", "start")

    def __init__(
        self, start: Callable[..., object], arguments: tuple[object, ...], option: str
    ) -> None:
        self.start = start
        self.arguments = arguments
        self.option = option

    def __call__(self) -> object:
        """Return what the start returns.

        Raises:
            TypeError: the start does not take the arguments; names both.
        """
        try:
            return self.start(*self.arguments)
        except TypeError as error:
            problem = mismatch(self.start, self.arguments)
            if problem is None:
                raise
            name = getattr(self.start, "__qualname__", repr(self.start))
            raise TypeError(
                f"{name} does not take {self.option}={short(self.arguments)}: {problem}"
            ) from error


def mismatch(
    start: Callable[..., object], arguments: tuple[object, ...]
) -> TypeError | None:
    """Return what is wrong with calling ``start`` so; None: nothing to be seen.

    >>> mismatch(lambda db: None, ("db",)) is None
    True
    >>> mismatch(lambda db: None, ())
    TypeError("missing a required argument: 'db'")
    """
    try:
        inspect.signature(start).bind(*arguments)
    except TypeError as error:
        return error
    except ValueError:
        # Written in C, without a signature.
        return None
    return None
