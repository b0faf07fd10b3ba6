"""Names that are unique in the whole cluster.

::

    registry = ClusterRegistry(replicator, remote)
    ...
    await start_child(top, child(Room, name=registry.via("lobby")))
    await call(registry.via("lobby"), Join("ann"))      # on any node

A name is an entry of its own node in an owned map, so a node's end hides its names at
once, and nobody can remove another one's.  It is given here and now, if nobody who is
in sight has it; nobody is asked.  So two sides of a cut may give the same name.  When
they see each other again, the claim that was made first counts, on all nodes, and the
other process gets an exit signal with the reason :class:`NameConflictError`.

A process that ends loses its names before anybody hears of its end; on other nodes
some milliseconds later.

Source: OTP ``global``; Elixir ``Registry`` for the interface.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs

from atomr.cluster.registry.claims import Claim, winner
from atomr.cluster.registry.errors import NameConflictError
from atomr.cluster.replicator.server import wall_ms
from atomr.cluster.rows import RowsServer
from atomr.core.checks import check_text
from atomr.crdt import HybridClock, Key
from atomr.crdt.wire import check_key
from atomr.errors import NameTakenError, NotAProcessError
from atomr.otp import child
from atomr.process.context import current_process, find_process, living_process
from atomr.refs import Pid, Via

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr.cluster.peers import Peers
    from atomr.cluster.replicator import Replicator
    from atomr.core.child_spec import ChildSpec
    from atomr.crdt import Origin
    from atomr.http2 import Service
    from atomr.process.process import Process


class RemotePids(Protocol):
    """Who makes the pids of other nodes' processes."""

    def pid_of(self, origin: Origin, number: int, label: str, /) -> Pid:
        """Return the pid of a process of any node, this one too."""
        ...


@attrs.frozen
class Held:
    """A name that a process of this node has.

    Attributes:
        pid: of the process.
        claim: as it was put.
    """

    pid: Pid
    claim: Claim


class ClusterRegistry:
    """A registry of the cluster, as code of one node sees it; see the module.

    It is a part of the cluster that comes after its replicator and ``pids``.

    Args:
        replicator: what holds the names.
        pids: makes pids of other nodes' processes: the node's ``RemoteProcesses``.
        name: nodes share names with the registries of the same name.

    Attributes:
        name: the same.
        held: the names of this node's processes.
    """

    shares_life: ClassVar[bool] = False

    def __init__(
        self, replicator: Replicator, pids: RemotePids, *, name: str = "names"
    ) -> None:
        check_text("name", name)
        self.name = name
        self.held: dict[Key, Held] = {}
        self.names = replicator.open_owned(f"registry {name}")
        self._replicator = replicator
        self._pids = pids
        self._clock = HybridClock()

    # --- as a part of a cluster -----------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return nothing: all that it tells is replicated."""
        return {}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        return child(lambda: RowsServer(self, self.names), id=f"registry {self.name}")

    # --- of the running process -----------------------------------------------------

    def register(self, key: Key) -> None:
        """Let the running process have a name.

        Raises:
            NameTakenError: a process that is in sight has it.
            NotAProcessError: the running task belongs to no process.
            ValueError: the process is of another node.
            NotReplicatingError: the replicator does not run.
            BadKeyError: it can be no name.
        """
        self._hold(key, living_process(f"register({key!r})"))

    def unregister(self, key: Key) -> bool:
        """Let go of a name; return whether the running process had it."""
        return self._let_go(key, current_process(f"unregister({key!r})").pid)

    # --- of all ---------------------------------------------------------------------

    def whereis(self, key: Key) -> Pid | None:
        """Return who has a name, as far as is known here.

        While the replicator does not run, only this node's names are known.
        """
        held = self.held.get(key)
        if self._replicator.server is None:
            return None if held is None else held.pid
        node = self._replicator.server.core.node
        values = self.names.get(key)
        # A replicator that has just begun anew does not know what is held here.
        values.pop(node, None)
        if held is not None:
            values[node] = list(held.claim.encoded())
        found = winner(values)
        if found is None:
            return None
        owner, claim = found
        if held is not None and owner == node:
            return held.pid
        return self._pids.pid_of(owner, claim.number, claim.label)

    def keys(self, pid: Pid) -> tuple[Key, ...]:
        """Return the names of a process of this node."""
        return tuple(key for key, held in self.held.items() if held.pid is pid)

    def items(self) -> Iterator[tuple[Key, Pid]]:
        """Yield all names that are known, with who has them."""
        for key in dict.fromkeys(key for key, _, _ in self.names.items()):
            pid = self.whereis(key)
            if pid is not None:
                yield key, pid

    def via(self, key: Key) -> Via:
        """Return an address: whoever has the name, looked up at each use.

        In a child specification's ``name``, the process is registered before its
        ``init`` runs.

        Raises:
            BadKeyError: it can be no name.
        """
        check_key(key)
        return _ClusterVia(self, key)

    # --- for its own process --------------------------------------------------------

    def look(self, key: Key) -> None:
        """Look whether a process of this node must give up its name."""
        held = self.held.get(key)
        found = winner(self.names.get(key))
        if held is None or found is None:
            return
        owner, claim = found
        if owner == self._replicator.running().core.node:
            return
        process = find_process(held.pid)
        self._let_go(key, held.pid)
        if process is not None:
            keeper = self._pids.pid_of(owner, claim.number, claim.label)
            reason = NameConflictError(self.name, key, keeper)
            process.exit_signal(reason, None)

    def look_at_all(self) -> None:
        """Look at all names of this node."""
        for key in list(self.held):
            self.look(key)

    def format_status(self) -> object:
        """Return how many names this node's processes have."""
        return {"held": len(self.held)}

    def check_pids(self) -> None:
        """Find out at the start, and not at the first name, whether pids can be made.

        Raises:
            NoNodeError: what makes them does not run.
        """
        self._pids.pid_of(self._replicator.running().core.node, 0, "")

    def put_again(self) -> None:
        """Put the names of this node, and remove those that nobody has any more."""
        node = self._replicator.running().core.node
        for key, owner, _ in list(self.names.items()):
            if owner == node and key not in self.held:
                self.names.remove(key)
        for key, held in self.held.items():
            if self.names.get(key).get(node) != list(held.claim.encoded()):
                self.names.put(key, held.claim.encoded())

    def _hold(self, key: Key, process: Process) -> None:
        check_key(key)
        operation = f"{self.name}[{key!r}]"
        self._replicator.running().check_local(process, operation)
        holder = self.whereis(key)
        if holder is not None:
            raise NameTakenError(operation, holder)
        pid = process.pid
        claim = Claim(self._clock.tick(wall_ms()), pid.number, pid.label)
        self.names.put(key, claim.encoded())
        self.held[key] = Held(pid, claim)
        if process.on_end is None:
            process.on_end = {}
        process.on_end[self, key] = partial(self._let_go, key, pid)

    def _let_go(self, key: Key, pid: Pid) -> bool:
        held = self.held.get(key)
        if held is None or held.pid is not pid:
            return False
        del self.held[key]
        process = find_process(pid)
        if process is not None and process.on_end is not None:
            process.on_end.pop((self, key), None)
        if self._replicator.server is not None:
            self.names.remove(key)
        return True


@attrs.frozen
class _ClusterVia(Via):
    registry: ClusterRegistry
    key: Key

    def __repr__(self) -> str:
        return f"{self.registry.name}[{self.key!r}]"

    def whereis(self) -> Pid | None:
        return self.registry.whereis(self.key)

    def register(self, pid: Pid) -> None:
        process = find_process(pid)
        if process is None:
            raise NotAProcessError(f"register({self!r}): {pid!r} has ended")
        self.registry._hold(self.key, process)  # noqa: SLF001 - one module

    def unregister(self, pid: Pid) -> None:
        self.registry._let_go(self.key, pid)  # noqa: SLF001 - one module
