"""The end of a swap whose leader is gone: back, or on where only its copy is left."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from atomr_infer.config.deployment_table import deployment_table, table_deployment
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.names import next_name
from atomr_infer.serving.placing.records import digest_of
from atomr_infer.serving.swapping.again import until_done
from atomr_infer.serving.swapping.served import served

if TYPE_CHECKING:
    from atomr.errors import AtomrError
    from atomr_infer.serving.shared import Serving
    from atomr_infer.serving.swapping.board import SwapBoard
    from atomr_infer.serving.swapping.records import SwapRecord

log = logging.getLogger(__name__)


class _TakenError(Exception):
    """The deployment has a newer swap, whose affair all of it is."""


class LeftSwap:
    """One of them.

    Args:
        serving: the tree of the node that brings it to its end.
        board: where it is told.
        name: the deployment's.
        record: how it stands; this node leads it by that.

    Attributes:
        id: the swap's.
    """

    def __init__(
        self, serving: Serving, board: SwapBoard, name: str, record: SwapRecord
    ) -> None:
        self._serving = serving
        self._board = board
        self._name = name
        self._record = record
        self.id = record.id
        self._ended: SwapRecord | None = None
        self._phase = Phase.ROLLED_BACK

    async def finish(self) -> None:
        """Bring it to its end; what fails is tried again, for about a minute each.

        Cancellation: leaves it to another node; this one ends.
        """
        reason = self._record.reason
        try:
            if not self._serving.node.is_alone:
                left = await self._end()
                reason = f"{reason}; then: {left}" if left else reason
        except _TakenError:
            log.info("%s is swapped anew; what was left is that one's", self._name)
            return
        except Exception as error:  # it must end, or none can follow
            log.exception("%s is not as it was", self._name)
            reason = f"{reason}; then: {error!r}"
        ended = msgspec.structs.replace(
            self._record,
            phase=self._phase,
            share=1.0 if self._phase is Phase.SWAPPED else 0.0,
            reason=reason,
        )
        log.warning("swap of %s: %s", self._name, ended.status(self._name))
        self._ended = ended
        self.tell_end()

    def tell_end(self) -> None:
        """Have all nodes know how it has ended, if it has, where they do not.

        The replicator may have been away when it did.
        """
        if self._ended is not None:
            self._put(self._ended)

    async def _end(self) -> str:
        """Return what is told where something is left."""
        copy = next_name(self._name)
        error = await until_done(self._restore, self._say)
        if error is not None:
            # Nobody else may have its requests: the old one's share may be none.
            return f"{error}; {copy} is left"

        async def undeploy() -> None:
            self._refuse_newer()
            await self._serving.orders.undeploy(copy)

        error = await until_done(undeploy, self._say)
        return "" if error is None else f"{copy} is left: {error}"

    async def _restore(self) -> None:
        self._refuse_newer()
        now, record = served(self._serving, self._name), self._record
        digest = "" if now is None else digest_of(deployment_table(now))
        if digest == record.after:
            self._phase = Phase.SWAPPED
        elif digest in record.asked:  # or somebody else has changed it
            await self._serving.orders.replace(table_deployment(record.before))

    def _say(self, error: AtomrError) -> None:
        """Have all nodes know why it lasts."""
        told = f"{self._record.reason}; then: {error}"
        self._put(msgspec.structs.replace(self._record, reason=told))

    def _refuse_newer(self) -> None:
        """Refuse to go on where another node has ended it, and a new one has begun.

        Raises:
            _TakenError: it has.
        """
        found = self._board.records().get(self._name)
        if found is not None and found.id != self._record.id:
            raise _TakenError

    def _put(self, record: SwapRecord) -> None:
        found = self._board.records().get(self._name)
        if found is not None and found.id == self._record.id:
            self._board.put(self._name, record)
