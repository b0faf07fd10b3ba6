"""How the requests of those who take over end, on this node and on all.

Each node counts what it was asked itself, and tells the others; a node that is lost
has counted what it had told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from atomr import telemetry
from atomr.crdt import Origin
from atomr.errors import NoNodeError
from atomr.process import current_node
from atomr_infer.policy.lifecycle.hot_swap import Tally
from atomr_infer.serving.names import next_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.serving.requests.served import Tried
    from atomr_infer.serving.swapping.board import SwapBoard

_EVENT = ("atomr_infer", "request", "stop")


@attrs.define
class _Counted:
    """What is known of one swap.

    Attributes:
        copy: the deployment that comes, as it is called beside the other one.
        own: what ended on this node.
        told: what the others know of that.
        others: what each of them has told.
    """

    copy: str
    own: Tally = attrs.field(factory=Tally)
    told: Tally = attrs.field(factory=Tally)
    others: dict[Origin, Tally] = attrs.field(factory=dict)


class SwapCounts:
    """Counts, from :meth:`begin` to :meth:`stop` of each swap.

    Attributes:
        news: set when something was counted here; then it is another.
    """

    def __init__(self, board: SwapBoard, node: str) -> None:
        self.news = trio.Event()
        self._board = board
        self._node = node
        self._swaps: dict[str, _Counted] = {}

    def begin(self, swap_id: str, deployment: str) -> None:
        """Count the requests of the one that takes over from a deployment."""
        if swap_id in self._swaps:
            return
        if not self._swaps:
            telemetry.attach(self._handler, _EVENT, self._count)
        self._swaps[swap_id] = _Counted(next_name(deployment))

    def stop(self, swap_id: str) -> None:
        """Count them no more."""
        if self._swaps.pop(swap_id, None) is None:
            return
        self._board.forget(swap_id)
        if not self._swaps:
            telemetry.detach(self._handler)

    def counted(self) -> tuple[str, ...]:
        """Return the swaps whose requests are counted."""
        return tuple(self._swaps)

    def tell(self) -> None:
        """Tell the other nodes what is new."""
        for swap_id, swap in self._swaps.items():
            if swap.own != swap.told:
                swap.told = swap.own
                self._board.count(swap_id, swap.own)

    def total(self, swap_id: str) -> Tally:
        """Return what all nodes have counted of a swap since it began."""
        swap = self._swaps[swap_id]
        for owner, tally in self._board.tallies(swap_id).items():
            if owner.name != self._node:
                swap.others[owner] = tally
        return sum(swap.others.values(), start=swap.own)

    @property
    def _handler(self) -> str:
        return f"hot swaps of {self._node} {id(self)}"

    def _is_ours(self) -> bool:
        """Whether the running task is this node's: a process may hold several."""
        try:
            return current_node().name == self._node
        except NoNodeError:
            return True

    def _count(
        self, _: object, __: Mapping[str, float], about: Mapping[str, object]
    ) -> None:
        if not self._is_ours():
            return
        tried: tuple[Tried, ...] = about["tried"]  # type: ignore[assignment] # the event's own
        for swap in self._swaps.values():
            ended = [each.error for each in tried if each.deployment == swap.copy]
            if ended:
                swap.own = swap.own.plus(ended)
                self.news.set()
                self.news = trio.Event()
