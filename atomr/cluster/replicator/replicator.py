"""Replicated values of a node: the object that code of the node holds.

::

    replicator = Replicator()
    async with open_cluster(options, services=[replicator]):
        catalogue = replicator.open_map("catalogue")
        catalogue.put("tiny", {"port": 1})

A write is made here at once, and is on its way to all other nodes within
milliseconds.  A read says what is known here.  Neither waits.

The object outlives its process: a handle goes on with what the process' next life
hears from the other nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from atomr.cluster.replicator.errors import NotReplicatingError
from atomr.cluster.replicator.frames import Message
from atomr.cluster.replicator.handles import MapHandle, OwnedHandle, ValueHandle
from atomr.cluster.replicator.options import ReplicatorOptions
from atomr.cluster.replicator.server import ReplicatorServer
from atomr.core.checks import check_text
from atomr.crdt import Replicated
from atomr.errors import short
from atomr.http2 import Service
from atomr.http2.services import check_service
from atomr.otp import child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.cluster.peers import Peers
    from atomr.cluster.replicator.durable import StoreOptions
    from atomr.core.child_spec import ChildSpec
    from atomr.http2 import Link
    from atomr.refs import Pid

ReplicatedT = TypeVar("ReplicatedT", bound=Replicated)

_DEFAULTS = ReplicatorOptions()


class Replicator:
    """A part of a cluster that holds replicated values; see the module.

    Args:
        options: how keys are divided, and when the dead are given up.
        name: nodes replicate with those of the same name; for more than one on a
            node.
        store: where values outlive the node; None: nowhere.

    Attributes:
        name: the same.
        options: the same.
        store: the same.
        file_pid: the process that writes the file, of the latest life.
        server: its process' state; None: it does not run.

    Raises:
        TypeError: the name is no text.
        ValueError: it is too long.
    """

    shares_life: ClassVar[bool] = False
    """Its logs have lives of their own."""

    def __init__(
        self,
        options: ReplicatorOptions = _DEFAULTS,
        *,
        name: str = "replicator",
        store: StoreOptions | None = None,
    ) -> None:
        check_text("name", name)
        self.name = name
        self.service_name = f"replicate {name}"
        check_service(self.service_name)
        self.options = options
        self.store = store
        self.file_pid: Pid | None = None
        self.server: ReplicatorServer | None = None

    # --- as a part of a cluster -----------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages."""
        return {self.service_name: Service(Message, tell=self._told)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        return child(lambda: ReplicatorServer(self, peers), id=self.service_name)

    def _told(self, link: Link, message: Message) -> None:
        if self.server is not None:
            self.server.arrive(link.peer, message)

    def running(self) -> ReplicatorServer:
        """Return its process' state.

        Raises:
            NotReplicatingError: it does not run.
        """
        if self.server is None:
            raise NotReplicatingError(self.name)
        return self.server

    def told(self) -> dict[str, bool]:
        """Return which nodes are up, and whether this one knows all that they knew.

        Returns:
            By the names of those that have said hello: whether all has come that a
            node knew when they met.  What it hears since is not waited for.  Where the
            process does not run nobody is met.
        """
        if self.server is None:
            return {}
        core = self.server.core
        return {
            name: all(
                shard.has_all_of(log)
                for shard, log in zip(core.shards, neighbour.logs, strict=True)
            )
            for name, neighbour in core.neighbours.items()
            if neighbour.logs is not None
        }

    async def sync(self) -> None:
        """Wait until what was written here up to now is on the disk.

        Raises:
            NotStoredError: it has no file, or none any more.
            ShardStoreError: the file cannot be written.
            NotReplicatingError: it does not run.

        Cancellation: what is being written is written.
        """
        await self.running().sync()

    # --- values ---------------------------------------------------------------------

    def open_map(self, name: str) -> MapHandle:
        """Return a map that all nodes write: of concurrent writes the last counts.

        Raises:
            TypeError: the name is no text.
            BadKeyError: it is too long.
        """
        return MapHandle(self, name)

    def open_owned(self, name: str) -> OwnedHandle:
        """Return a map in which each node has its own values.

        Raises:
            TypeError: the name is no text.
            BadKeyError: it is too long.
        """
        return OwnedHandle(self, name)

    def open(self, kind: type[ReplicatedT], name: str) -> ValueHandle[ReplicatedT]:
        """Return a value of any other type: a counter, a set, a register, a flag.

        It is not divided: all of it is in one shard.

        Raises:
            TypeError: the kind is no type of ``atomr.crdt``, or the name is no text.
            BadKeyError: it is too long.
        """
        _check_kind(kind, name)
        return ValueHandle(self, kind, name)


def _check_kind(kind: object, name: object) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Replicated)):
        raise TypeError(
            f"open({short(kind)}, {short(name)}): expected a type of atomr.crdt, as in"
            ' open(PNCounter, "sold"); maps have open_map and open_owned'
        )
