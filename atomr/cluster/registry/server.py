"""The registry's process: it watches the names, and settles conflicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.replicator import Changed, Missed
from atomr.otp import GenServer, NoReply

if TYPE_CHECKING:
    from atomr.cluster.registry.registry import ClusterRegistry

ROOM = 100_000
"""More changes than names; whoever misses one looks at all of its own."""


class RegistryServer(GenServer):
    """The process of a registry; its memory is in the registry."""

    def __init__(self, registry: ClusterRegistry) -> None:
        self._registry = registry

    def init(self) -> None:
        """Put this node's names, and hear of all.

        Raises:
            NotReplicatingError: the replicator does not run: it comes first.
            NoNodeError: nor does what makes pids.
        """
        registry = self._registry
        registry.check_pids()
        registry.names.subscribe(room=ROOM)
        registry.put_again()
        self._settle_all()

    def handle_info(self, message: object) -> NoReply:
        """Settle what has changed."""
        match message:
            case Changed(key=key):
                self._registry.settle(key)
            case Missed():
                self._settle_all()
            case _:
                super().handle_info(message)
        return NoReply()

    def format_status(self) -> object:
        """Return how many names this node's processes have."""
        return {"held": len(self._registry.held)}

    def _settle_all(self) -> None:
        for key in list(self._registry.held):
            self._registry.settle(key)
