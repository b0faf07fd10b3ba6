"""The root of a node's services: it stands for a block, and its end ends the block."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr.core.exits import KILL
from atomr.errors import ClusterDownError, ClusterError, StartError
from atomr.process import exit_process, spawn, stop, wait_exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.core.child_spec import ChildSpec
    from atomr.process import Node
    from atomr.refs import Pid


class Standing:
    """What a block stands on; :meth:`fail` cancels the block with an error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._scope = trio.CancelScope()
        self._failures: list[ClusterError] = []

    def fail(self, error: ClusterError) -> None:
        """End the block with that error."""
        self._failures.append(error)
        self._scope.cancel()

    @asynccontextmanager
    async def on(self, node: Node, spec: ChildSpec) -> AsyncIterator[None]:
        """Have the root's processes for the length of the block.

        Raises:
            StartError: one did not start.
            ClusterError: what :meth:`fail` was told, or the processes crashed too
                often.

        Cancellation: the processes end.
        """
        root = await _start(node, spec)
        watcher = spawn(self._watch, root)
        try:
            with self._scope:
                yield
        finally:
            exit_process(watcher, KILL)
            with trio.CancelScope(shield=True):
                # Its children's shutdown times bound it.
                await stop(root)
        if self._failures and self._scope.cancelled_caught:
            raise self._failures[0]

    async def _watch(self, root: Pid) -> None:
        reason = await wait_exit(root)
        self.fail(ClusterDownError(self._name, reason))


async def _start(node: Node, spec: ChildSpec) -> Pid:
    try:
        return await node.start(spec)
    except StartError as error:
        failed = error
    # Which supervisors are around it is of no interest to the user.
    while isinstance(failed.reason, StartError):
        failed = failed.reason
    raise failed
