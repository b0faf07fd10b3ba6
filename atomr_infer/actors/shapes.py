"""What a class or function must look like to be an actor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from atomr_infer.actors.context import Context

_Q_contra = TypeVar("_Q_contra", contravariant=True)
_R_co = TypeVar("_R_co", covariant=True)

Pieces: TypeAlias = Iterator[str] | AsyncIterator[str]
"""A reply that is text, piece by piece."""


class Handles(Protocol[_Q_contra, _R_co]):
    """An object of an ``inference_actor``."""

    async def handle(self, ctx: Context, request: _Q_contra, /) -> _R_co:
        """Return the reply to a request."""
        ...


class Tells(Protocol[_Q_contra]):
    """The same, where the reply is text that comes piece by piece."""

    def handle(self, ctx: Context, request: _Q_contra, /) -> AsyncIterator[str]:
        """Yield the pieces."""
        ...


class HandlesAlone(Protocol[_Q_contra, _R_co]):
    """An object of a ``gpu_actor``."""

    def handle(self, request: _Q_contra, /) -> _R_co:
        """Return the reply to a request, awaited or not, or its pieces."""
        ...
