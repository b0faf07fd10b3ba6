"""One opening of a part that may be opened again, and the tasks that it started.

A part is opened by plain calls, one stage after the other; when one of them raises,
those before it are there already, and nobody has them in hand to close them.  So an
opening is told of each stage, and forgets those that the next one has taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Never, Protocol, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from atomr.flow.stage import OpenStage, Stage

T = TypeVar("T")


class Opening:
    """A run's nursery, as the stages of one opening see it.

    Attributes:
        part: whose opening it is; None: the run's.
        loose: stages that are open, and that no other one has taken yet.
    """

    def __init__(self, nursery: trio.Nursery, part: Reopened | None = None) -> None:
        self._nursery = nursery
        self.part = part
        self._scopes: set[trio.CancelScope] = set()
        self._ended = trio.lowlevel.ParkingLot()
        self.loose: list[Stage[object]] = []

    def open(self, open_stage: OpenStage[T]) -> Stage[T]:
        """Open the part.

        Raises:
            Exception: what a stage raised; the tasks of the others are cancelled, and
                :meth:`close` closes them.
        """
        try:
            # Only a nursery makes nurseries; this is one for all that a stage does.
            stage = open_stage(cast("trio.Nursery", self))
        except BaseException:
            for scope in self._scopes:
                scope.cancel()
            raise
        self.loose.clear()  # who opens it closes it
        return stage

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

    async def close(self) -> None:
        """Close what was opened before a stage that could not be.

        Raises:
            Exception: what closing one has raised; all of them are closed.
        """
        # The tasks close what they have; after that nothing is closed by two at once.
        while self._scopes:
            await self._ended.park()
        failure: Exception | None = None
        while self.loose:
            try:
                await self.loose.pop().close()
            except Exception as error:  # noqa: BLE001 - raised when all are closed
                failure = failure or error
        if failure is not None:
            raise failure

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


def opened(open_stage: OpenStage[T], nursery: trio.Nursery) -> Stage[T]:
    """Open a stage, and tell the opening of it, if the nursery is one."""
    loose: list[Stage[object]] = getattr(nursery, "loose", [])
    before = len(loose)
    stage = open_stage(nursery)
    # Those that were opened meanwhile are this one's: it closes them.
    loose[before:] = [stage]
    return stage


class InBranch:
    """A run's nursery, as the stages of a branch see it.

    Attributes:
        outlets: what the branch is given, and the branches around it are.
    """

    def __init__(self, nursery: trio.Nursery, outlet: Awaited) -> None:
        self._nursery = nursery
        self.outlets: tuple[Awaited, ...] = (outlet, *outlets_of(nursery))

    def __getattr__(self, name: str) -> object:
        """Return anything else of the nursery."""
        return getattr(self._nursery, name)


def outlets_of(nursery: trio.Nursery) -> tuple[Awaited, ...]:
    """Return what the branches are given whose stages a nursery is for."""
    found: tuple[Awaited, ...] = getattr(nursery, "outlets", ())
    return found


class Awaited(Protocol):
    """What a branch is given, and may open later."""

    def await_opening(self, part: object) -> None:
        """Keep it: ``part`` has failed, or could not be opened, and is tried again."""
        ...

    def stop_awaiting(self, part: object) -> None:
        """Keep it no longer for ``part``: that is open, or given up."""
        ...


class Reopened(Protocol):
    """A part that is opened again when it fails."""

    def await_opening(self) -> None:
        """Have its branch's input kept: a part within it has given up, so it fails."""
        ...


def part_around(nursery: trio.Nursery) -> Reopened | None:
    """Return the innermost part that is opened again, of those a nursery is for."""
    found: Reopened | None = getattr(nursery, "part", None)
    return found


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
        """Close the stages that had been opened; those with tasks are cancelled."""
        await self._opening.close()
