"""Tasks beside a runner, that end with it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """Return a block with tasks beside it; its end ends them.

    Raises:
        BaseException: what the block raises, as it is and in no group.
    """
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:  # noqa: BLE001 - raised again, not in a group
            raised = error
        nursery.cancel_scope.cancel()
    if raised is not None:
        try:
            raise raised
        finally:
            raised = None  # it holds this frame
