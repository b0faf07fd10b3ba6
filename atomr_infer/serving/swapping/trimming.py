"""What is known of swaps that have ended is forgotten in time.

All nodes share the records, so their number is bounded by what is deployed, and their
age.  There is no clock that nodes share: each counts from when it saw a swap ended, and
the first of them by name takes it out of the maps.  Where that node is another one
after a while, or was started again, a record stays for longer, and not for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import NotReadyError
from atomr_infer.serving.placing.alone import LocalOrders

if TYPE_CHECKING:
    from collections.abc import Collection

    from atomr_infer.serving.shared import Serving
    from atomr_infer.serving.swapping.board import SwapBoard
    from atomr_infer.serving.swapping.records import SwapStatus

KEPT_S = 7 * 86_400.0
"""So long a swap is the answer to a file that is read again, or to who asks."""

UNDEPLOYED_S = 3_600.0
"""The same, where nothing of its name is deployed any more."""

_EVERY_S = 60.0


class Trimmer:
    """When each swap was seen ended, and which are old."""

    def __init__(self, serving: Serving, board: SwapBoard) -> None:
        self._serving = serving
        self._board = board
        self._ended_at: dict[str, float] = {}
        self._next_at = 0.0

    def trim(self, statuses: Collection[SwapStatus]) -> tuple[str, ...]:
        """Have old ones forgotten by all, where that is this node's affair.

        Args:
            statuses: the last swap of each deployment.

        Returns:
            The ids of those that this node itself shall forget, wherever they are.
        """
        now = trio.current_time()
        if now < self._next_at or not self._serving.has_met:
            return ()
        self._next_at = now + _EVERY_S
        try:
            deployed, is_keeper = self._known()
        except NotReadyError:
            return ()
        ended = {each.id: each for each in statuses if each.has_ended}
        self._ended_at = {each: self._ended_at.get(each, now) for each in ended}
        old = [
            each
            for swap_id, each in ended.items()
            if now - self._ended_at[swap_id]
            >= (KEPT_S if each.deployment in deployed else UNDEPLOYED_S)
        ]
        if is_keeper:
            for each in old:
                self._board.remove(each.deployment, each.id)
            running = {each.id for each in statuses if not each.has_ended}
            self._board.trim_ends(running)
        return tuple(each.id for each in old)

    def _known(self) -> tuple[Collection[str], bool]:
        """Return what is deployed, and whether this node keeps the maps.

        Raises:
            NotReadyError: nobody knows for a moment.
        """
        orders = self._serving.orders
        if isinstance(orders, LocalOrders):
            return self._serving.deployments, True
        picture = orders.picture()
        there = picture.facts.keys() - picture.away
        return picture.catalogue, min(there, default="") == picture.me
