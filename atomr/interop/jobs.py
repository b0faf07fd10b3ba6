"""A function that a process of this package runs for a caller."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Generic, TypeVar

from atomr.errors import short
from atomr.process.calls import Request

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")


class Job(Request[R], Generic[R]):
    """A request that is a function; errors show its name and arguments.

    Attributes:
        function: what to run.
        context: a copy of the caller's, to run it in.
    """

    __slots__ = ("_arguments", "_uses_resource", "context", "function")

    def __init__(
        self,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        *,
        uses_resource: bool,
    ) -> None:
        self.function = function
        self.context: Context = copy_context()
        self._arguments = arguments
        self._uses_resource = uses_resource

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return f"{name}({', '.join(map(short, self._arguments))})"

    def arguments_with(self, resource: object) -> tuple[object, ...]:
        """Return the arguments, after the process' resource if it is wanted."""
        if self._uses_resource:
            return (resource, *self._arguments)
        return self._arguments
