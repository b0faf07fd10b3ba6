"""What keeps a node's budgets in their file: one write after another.

Whatever came while a write was under way is in the next one, so that many calls share
a sync.  A write that fails is tried again each second, for as long as the process
runs: nothing that it should have kept counts until then, so that a full disk makes a
budget wait, and never too large.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr.cluster.budgets.errors import LedgerStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster.budgets.core import Core
    from atomr.cluster.budgets.kept import Write
    from atomr.cluster.budgets.storage import Storage

log = logging.getLogger("atomr.cluster.budgets")

RETRY_S = 1.0
_END_S = 5.0


class Writer:
    """The writing of one life of a node's budgets.

    Args:
        storage: where to; it is open, and closed at the end.
        core: what is written.
        name: of the service.
        act: does what follows from a write.
    """

    def __init__(
        self, storage: Storage, core: Core, *, name: str, act: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._core = core
        self._name = name
        self._act = act
        self._wanted = trio.Event()

    def want(self) -> None:
        """Look soon whether there is something to write."""
        self._wanted.set()

    async def run(self) -> None:
        """Write whatever there is, again and again; close the file at the end.

        Cancellation: what is left is written first, and what nobody holds is given
        back, within some seconds.
        """
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                if not await self._write_all():
                    await trio.sleep(RETRY_S)
                    self._wanted.set()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_S):
                await self._write_all()
                # What was on its way to the disk is there now, and given back.
                self._core.close(trio.current_time())
                await self._write_all()
                await self._storage.close()

    async def _write_all(self) -> bool:
        """Write until nothing is left; False: a write failed."""
        while (write := self._core.take_write()) is not None:
            if not await self._write(write):
                return False
        return True

    async def _write(self, write: Write) -> bool:
        before = self._core.problem
        try:
            # Whoever is cancelled here would not know whether it is there.
            with trio.CancelScope(shield=True):
                await self._storage.write(write)
        except LedgerStoreError as error:
            self._core.not_written(write, error.problem)
            if error.problem != before:
                self._report(error)
            return False
        if before is not None:
            log.warning("%s: the file is written again", self._name)
        self._core.written(write, trio.current_time())
        self._act()
        return True

    def _report(self, error: LedgerStoreError) -> None:
        log.error(
            "%s: nothing more is reserved than what is here: %s", self._name, error
        )
        telemetry.emit(
            ("atomr", "budgets", "store_failed"),
            metadata={"name": self._name, "error": error},
        )
