"""Who is told of nodes that come and go.

Source: Erlang's ``net_kernel:monitor_nodes`` and ``monitor_node``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr.cluster.peers import PeerUp
from atomr.core.messages import PassesBounds
from atomr.crdt.origin import Origin
from atomr.refs import Ref

if TYPE_CHECKING:
    from atomr.cluster.peers import PeerEvent
    from atomr.process.process import Process


@attrs.frozen
class NodeUp(PassesBounds):
    """A node is up: linked with this one, and taken to run.

    Attributes:
        ref: what ``monitor_node`` returned.
        peer: the node, in this life.
    """

    ref: Ref
    peer: Origin


@attrs.frozen
class NodeDown(PassesBounds):
    """A node is up no longer, or was not when it was asked for by its name.

    Attributes:
        ref: what ``monitor_node`` returned.
        name: of the node.
        peer: the life that was up; None: none was.
        reason: one word, as of ``atomr.cluster.peers.PeerDown``; ``unknown`` where no
            life was up.
    """

    ref: Ref
    name: str
    peer: Origin | None
    reason: str


NodeEvent: TypeAlias = NodeUp | NodeDown


class NodeMonitors:
    """The monitors of nodes on one node."""

    def __init__(self) -> None:
        self._rows: dict[Ref, tuple[Process, str | None]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, process: Process, name: str | None, peers: tuple[Origin, ...]) -> Ref:
        """Tell a process of a node, or of all, from now on.

        Args:
            process: that is told.
            name: of the node; None: all.
            peers: those that are up now, of which it is told at once.
        """
        ref = Ref()
        self._rows[ref] = (process, name)
        if process.on_end is None:
            process.on_end = {}
        process.on_end[ref] = partial(self._rows.pop, ref)
        found = [peer for peer in peers if name in (None, peer.name)]
        for peer in found:
            process.deliver(NodeUp(ref, peer))
        if name is not None and not found:
            process.deliver(NodeDown(ref, name, None, "unknown"))
        return ref

    def drop(self, ref: Ref) -> bool:
        """End a monitor; return whether it was there."""
        row = self._rows.pop(ref, None)
        if row is None:
            return False
        process, _ = row
        if process.on_end is not None:
            process.on_end.pop(ref, None)
        return True

    def tell(self, event: PeerEvent) -> None:
        """Tell those whom it concerns."""
        for ref, (process, name) in tuple(self._rows.items()):
            if name not in (None, event.peer.name):
                continue
            if isinstance(event, PeerUp):
                process.deliver(NodeUp(ref, event.peer))
            else:
                peer = event.peer
                process.deliver(NodeDown(ref, peer.name, peer, event.reason))
