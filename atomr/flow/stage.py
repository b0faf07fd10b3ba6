"""What a running stage is: it is asked for events, and never sends unasked.

A consumer asks with :meth:`Stage.pull`, and says how many events it takes at most.
That is its demand, as in Elixir's GenStage; a stage that has less gives less, and
waits only while it has nothing.  A stage that needs events asks the one before it in
the same way, in the same task, so demand goes up and events come down by function
calls.  Only a stage that works ahead, or for several consumers, has a task.

An error of :meth:`Stage.pull` ends the stage, and so does its cancellation: what was
on its way through is lost, and it is to be closed.

Source: Elixir's ``GenStage``; here the demand is an argument and not a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

import trio

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Stage(Protocol[T_co]):
    """One stage of a flow that runs."""

    async def pull(self, demand: int) -> Sequence[T_co]:
        """Return events: at least 1, at most ``demand``; none when it is over.

        Raises:
            Exception: the stage, or one before it, has failed.

        Cancellation: may lose events that were on their way; close the stage.
        """
        ...

    async def close(self) -> None:
        """Stop, and close the stages before it; may be done again.

        Raises:
            Exception: what stopping has raised; it is closed all the same.
        """
        ...


OpenStage: TypeAlias = Callable[[trio.Nursery], Stage[T_co]]
"""Starts a stage, and those before it, for one run; its tasks go in the nursery."""


class Inline(Generic[T]):
    """A stage without a task, behind another one."""

    def __init__(self, upstream: Stage[T]) -> None:
        self._upstream = upstream

    async def close(self) -> None:
        """Close the stage before it."""
        await self._upstream.close()
