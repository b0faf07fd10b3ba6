"""A part of the cluster: a request that comes to any node is answered by any node.

Each node writes its replicas into a replicated table in which it owns what it wrote:
others see it as long as the node is in sight.  It is written when a replica comes, goes
or changes its phase.  What a replica has to do changes all the time: that is told over
the links, a few times a second, and to each peer whole every few seconds.

From both the routing tables read in place which replicas other nodes have.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import trio

from atomr.cluster.replicator import Changed, Missed
from atomr.core.child_spec import ChildSpec
from atomr.http2 import Lane, Service
from atomr.process import PlainProcess, receive
from atomr.waking import Wakeup
from atomr_infer.errors import NotReadyError
from atomr_infer.serving.far.answering import Answering
from atomr_infer.serving.replicas.far_replica import FarReplica
from atomr_infer.serving.replicas.replica import Phase
from atomr_infer.serving.requests.far_attempt import SERVICE
from atomr_infer.wire.nodes.frames import VERSION, Opening
from atomr_infer.wire.nodes.loads import Entry, Load, Loads, changed, entry_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.cluster import Peers
    from atomr.crdt import Key
    from atomr.crdt.origin import Origin
    from atomr.http2 import Link
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

LOADS = "infer loads"
"""The name under which nodes tell each other what their replicas have to do."""

TABLE = "replicas"
"""The replicated table's name."""

TELL_EVERY_S = 0.2

# A peer that has missed one, or has just come, knows all after so many.
_WHOLE_EVERY = 10


class FarInference:
    """Who has which replicas, and how they are asked; a service of the node.

    Args:
        serving: this node's tree.
    """

    shares_life: ClassVar[bool] = False

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._table = serving.node.replicator.open_owned(TABLE)
        self._answering = Answering(serving)
        self._known: dict[tuple[Origin, str, int], FarReplica] = {}
        self._written: Mapping[Key, Entry | None] = {}
        self._told: tuple[Load, ...] = ()
        self._leaves = False
        self._strange: set[Origin] = set()
        self._peers: Peers

    # --- a node that goes -----------------------------------------------------------

    def leave(self) -> None:
        """Tell the other nodes to ask others; what they have asked runs on.

        What nobody else has yet, and another node is about to have, is asked here
        until it is there.
        """
        self._leaves = True
        self._serving.replicas_changed.set()

    def come_back(self) -> None:
        """Be asked by other nodes again."""
        self._leaves = False
        self._serving.replicas_changed.set()

    async def idle(self) -> None:
        """Wait until nothing runs here that other nodes have asked for."""
        await self._answering.idle()

    # --- as a part of a cluster -----------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages."""
        return {
            SERVICE: Service(Opening, stream=self._answering.serve),
            LOADS: Service(Loads, tell=self._take_loads),
        }

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        self._peers = peers
        return ChildSpec(id=SERVICE, start=partial(PlainProcess, self._run))

    async def _run(self) -> None:
        self._table.subscribe()
        # What an earlier run of this process has written.
        node = self._serving.node.replicator.running().core.node
        ours = (key for key, owner, _ in self._table.items() if owner == node)
        self._written = dict.fromkeys(ours)
        self._look_at_all()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_changes)
            nursery.start_soon(self._tell_loads)
            while True:
                message = await receive()
                if isinstance(message, (Changed, Missed)):
                    self._look_at_all()
                    if self._leaves:
                        self._write()

    # --- what this node has ---------------------------------------------------------

    async def _write_changes(self) -> None:
        while True:
            self._write()
            await self._serving.replicas_changed.wait()

    def _write(self) -> None:
        now: dict[Key, Entry] = {
            (name, replica.number): Entry(replica.phase.value, VERSION)
            for name in self._serving.deployments
            if not self._leaves or self._is_awaited(name)
            for replica in self._serving.usable_replicas(name)
        }
        for key in self._written.keys() - now.keys():
            self._table.remove(key)
        for key, entry in now.items():
            if self._written.get(key) != entry:
                self._table.put(key, msgspec.to_builtins(entry))
        self._written = now

    def _is_awaited(self, name: str) -> bool:
        """Whether a deployment moves to a node which does not have it yet."""
        far = self._serving.far_replicas.get(name, ())
        if any(replica.phase is Phase.SERVING for replica in far):
            return False
        try:
            return self._serving.orders.goes(name)
        except NotReadyError:
            return False

    async def _tell_loads(self) -> None:
        turn = 0
        met = Wakeup()
        with self._peers.watch(lambda _: met.set()):
            while True:
                while not self._peers.all():
                    await met.wait()
                await trio.sleep(TELL_EVERY_S)
                turn = (turn + 1) % _WHOLE_EVERY
                now = self._loads()
                told = changed(self._told if turn else (), now)
                self._told = now
                if told:
                    self._tell(Loads(told))

    def _tell(self, loads: Loads) -> None:
        for peer in self._peers.all():
            self._peers.tell(peer, LOADS, loads, lane=Lane.MSG)

    def _loads(self) -> tuple[Load, ...]:
        return tuple(
            Load(
                name,
                replica.number,
                outstanding=replica.outstanding,
                tokens=replica.tokens,
                limit=replica.limit,
                first_s=round(replica.first_s, 3),
            )
            for name in self._serving.deployments
            for replica in self._serving.replicas(name)
        )

    # --- what others have -----------------------------------------------------------

    def _take_loads(self, link: Link, message: Loads) -> None:
        now = trio.current_time()
        for load in message.loads:
            known = self._known.get((link.peer, load.deployment, load.number))
            if known is not None:
                known.tell(load, now)

    def _look_at_all(self) -> None:
        """Make what the routing tables see of others equal to the replicated table."""
        ours = self._serving.node.name
        known: dict[tuple[Origin, str, int], FarReplica] = {}
        strange: set[Origin] = set()
        for key, node, value in self._table.items():
            if node.name == ours:
                continue
            entry = entry_of(value)
            if entry is None or entry.version != VERSION:
                strange.add(node)
                continue
            found = self._far_replica(node, key)
            if found is not None:
                found.phase = _phase_of(entry)
                known[node, found.deployment, found.number] = found
        for node in strange - self._strange:
            log.warning("the node %s is of another version: it is not asked", node)
        self._known, self._strange = known, strange
        by_name: dict[str, list[FarReplica]] = {}
        for replica in known.values():
            by_name.setdefault(replica.deployment, []).append(replica)
        far = self._serving.far_replicas
        for name in far.keys() - by_name.keys():
            del far[name]
        for name, replicas in by_name.items():
            far[name] = tuple(sorted(replicas, key=lambda each: each.label))

    def _far_replica(self, node: Origin, key: object) -> FarReplica | None:
        match key:
            case (str(name), int(number)):
                known = self._known.get((node, name, number))
                return known or FarReplica(node, name, number, self._peers)
            case _:
                return None


def _phase_of(entry: Entry) -> Phase:
    try:
        return Phase(entry.phase)
    except ValueError:
        return Phase.LOADING
