"""A map that nodes share, in which each says something of its own and reads all.

What a node says is kept by the part itself, so it can be said again after a replicator
that was away.  The map is told of a change at once where it can be, and looked at every
few seconds and whenever it changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import trio

from atomr.cluster.replicator import NotReplicatingError
from atomr.core.child_spec import ChildSpec
from atomr.process import PlainProcess, receive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.cluster import Peers
    from atomr.http2 import Service
    from atomr_infer.serving.node import ServingNode

_LOOK_S = 5.0


class OwnEntries(ABC):
    """A part of a node: has entries in a map, and follows other nodes' ones."""

    shares_life: ClassVar[bool] = False

    def __init__(self, node: ServingNode, name: str) -> None:
        """Open the map; nothing is said before the node has peers.

        Args:
            node: whose part it is.
            name: of the map, and of the process.
        """
        self._node = node
        self._name = name
        self._map = node.replicator.open_owned(name)
        self._is_told = True
        self._peers: Peers | None = None

    @abstractmethod
    def _entries(self) -> Mapping[str, msgspec.Struct]:
        """Return what this node says, by names of any length."""

    @abstractmethod
    def _follow(self) -> None:
        """Take what all nodes say."""

    def _tell(self) -> None:
        """Say what has changed, now or as soon as it can be."""
        self._is_told = False
        try:
            self._announce()
        except NotReplicatingError:
            return  # the process does it when the replicator is back

    # --- as a part of a cluster -------------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages: the replicator's is enough."""
        return {}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        self._peers = peers
        return ChildSpec(id=self._name, start=lambda: PlainProcess(self.run))

    async def run(self) -> None:
        """Follow what other nodes say; never returns."""
        self._is_told = False
        self._map.subscribe()
        while True:
            self._announce()
            self._follow()
            with trio.move_on_after(_LOOK_S):
                await receive()

    def _announce(self) -> None:
        """Say what this node has to say, where it is not said."""
        if self._is_told or self._peers is None:
            return
        me, origin = self._node.name, self._peers.origin
        said = {key for key, owner, _ in self._map.items() if owner.name == me}
        mine = {_key(name): entry for name, entry in self._entries().items()}
        for key in said - mine.keys():
            self._map.remove(key)
        for key, entry in mine.items():
            value = msgspec.to_builtins(entry)
            if self._map.get(key).get(origin) != value:
                self._map.put(key, value)
        self._is_told = True


def _key(name: str) -> str:
    """Return a key of bounded length."""
    return blake2b(name.encode(), digest_size=16).hexdigest()
