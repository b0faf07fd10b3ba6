"""Where a node's budgets are kept: in a file, or in memory.

A file is read and written in a thread of its own: a resolver that hangs takes all
threads that others share.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs
import trio

from atomr.cluster.budgets.kept import Stored
from atomr.cluster.budgets.store import LedgerStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atomr.cluster.budgets.kept import Write

T = TypeVar("T")

log = logging.getLogger("atomr.cluster.budgets")


class Storage(Protocol):
    """Keeps budgets over the lives of a node."""

    async def open(self) -> Stored:
        """Return what is kept.

        Raises:
            LedgerStoreError: it cannot be read.
        """
        ...

    async def write(self, write: Write) -> None:
        """Keep what has changed; returns when it is on the disk.

        Raises:
            LedgerStoreError: it could not be written; nothing was.
        """
        ...

    async def close(self) -> None:
        """Let another process have it."""
        ...


class FileStorage:
    """A file; see :mod:`atomr.cluster.budgets.store`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: LedgerStore | None = None
        self._thread = trio.CapacityLimiter(1)

    async def open(self) -> Stored:
        """Open and read it.

        Raises:
            LedgerStoreError: it cannot be opened, or is nothing of ours.

        Cancellation: closes it.
        """
        is_new = not await self._in_thread(self._path.exists)
        if is_new:
            log.info(
                "budgets' file %s is new: what an earlier file held is not known here",
                self._path,
            )
        self._store = store = await self._in_thread(lambda: LedgerStore(self._path))
        try:
            return await self._in_thread(store.read)
        except BaseException:
            # Or it stays locked for the next start.
            with trio.CancelScope(shield=True):
                await self.close()
            raise

    async def write(self, write: Write) -> None:
        """Write and sync what has changed.

        Raises:
            LedgerStoreError: it could not be written; nothing was.
        """
        store = self._store
        assert store is not None, "it is open"
        await self._in_thread(lambda: store.write(write))

    async def close(self) -> None:
        """Close it."""
        store, self._store = self._store, None
        if store is not None:
            await self._in_thread(store.close)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._thread)


class MemoryStorage:
    """Keeps budgets for as long as the program runs."""

    def __init__(self) -> None:
        self.stored = Stored(file=secrets.token_hex(8), made_at_s=time.time())

    async def open(self) -> Stored:
        """Return what is kept."""
        await trio.lowlevel.checkpoint()
        return self.stored

    async def write(self, write: Write) -> None:
        """Keep what has changed."""
        await trio.lowlevel.checkpoint()
        self.stored = kept_with(self.stored, write)

    async def close(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()


def kept_with(stored: Stored, write: Write) -> Stored:
    """Return what is kept after a write."""
    budgets = {**stored.budgets, **write.budgets}
    for name in write.closed:
        budgets.pop(name, None)
    return attrs.evolve(
        stored,
        is_vouched=write.is_vouched,
        closed_at_s=write.closed_at_s,
        heard=write.heard,
        budgets=budgets,
    )
