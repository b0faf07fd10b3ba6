"""One opening of a part that may be opened again, and the tasks that it started.

A part is opened by plain calls, one stage after the other; when one of them raises,
those before it run already, and nobody has them in hand to close them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Never, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from atomr.flow.stage import OpenStage, Stage

T = TypeVar("T")


class Opening:
    """A run's nursery, as the stages of one opening see it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._ended = trio.lowlevel.ParkingLot()

    def open(self, open_stage: OpenStage[T]) -> Stage[T]:
        """Open the part.

        Raises:
            Exception: what a stage raised; the tasks of the others are cancelled.
        """
        try:
            # Only a nursery makes nurseries; this is one for all that a stage does.
            return open_stage(cast("trio.Nursery", self))
        except BaseException:
            for scope in self._scopes:
                scope.cancel()
            raise

    def start_soon(
        self,
        async_fn: Callable[..., Awaitable[object]],
        *args: object,
        name: object = None,
    ) -> None:
        """Start a task as the nursery does, in a scope of this opening."""
        scope = trio.CancelScope()
        self._nursery.start_soon(
            self._within, scope, async_fn, args, name=name or async_fn
        )
        self._scopes.add(scope)

    def __getattr__(self, name: str) -> object:
        """Return anything else of the nursery."""
        return getattr(self._nursery, name)

    async def ended(self) -> None:
        """Wait until its tasks have ended."""
        while self._scopes:
            await self._ended.park()

    async def _within(
        self,
        scope: trio.CancelScope,
        async_fn: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
    ) -> None:
        try:
            with scope:
                await async_fn(*args)
        finally:
            self._scopes.discard(scope)
            self._ended.unpark_all()


class Unopened:
    """What could not be opened."""

    def __init__(self, failure: Exception, opening: Opening) -> None:
        self._failure = failure
        self._opening = opening

    async def pull(self, demand: int) -> Sequence[Never]:
        """Say why."""
        await trio.lowlevel.checkpoint()
        raise self._failure

    async def close(self) -> None:
        """Wait for the end of the stages that had been opened; they are cancelled."""
        await self._opening.ended()
