"""Nodes that share budgets, in one event loop and in virtual time.

What nodes say travels as bytes, a moment later; it may be lost, come twice or come
late, and the network may be cut.  A disk keeps what was synced; a node that is killed
loses the rest.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import trio

from atomr.cluster.budgets import BudgetService, LedgerStoreError
from atomr.cluster.budgets.frames import Message
from atomr.cluster.budgets.kept import Kept, Stored, Write
from atomr.cluster.budgets.storage import kept_with
from atomr.cluster.peers import MemberChanged, PeerDown, PeerEvent, PeerUp
from atomr.crdt.origin import Origin
from atomr.http2 import Lane
from atomr.process import Node, open_node
from atomr.process.context import NODE
from atomr.testing.leftovers import leftovers
from tests.atomr.cluster.post import Post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from atomr.http2 import Link

_decode = msgspec.msgpack.Decoder(Message).decode
_EPOCH_S = 1_800_000_000.0


@attrs.frozen
class FromPeer:
    """What a handler sees of a link."""

    peer: Origin


@attrs.define
class Disk:
    """What a node's file holds, over its lives.

    Attributes:
        stored: what was synced.
        is_full: whether a write fails.
        opened: how often it is open: once, at most.
        slow_s: how long a sync takes at most.
    """

    stored: Stored
    is_full: bool = False
    opened: int = 0
    slow_s: float = 0.005


class SimStorage:
    """A life's hold on a disk; a killed one writes no more."""

    def __init__(self, disk: Disk, draw: random.Random) -> None:
        self.disk = disk
        self.draw = draw
        self.is_dead = False

    async def open(self) -> Stored:
        await trio.lowlevel.checkpoint()
        assert self.disk.opened == 0, "two processes have one file"
        self.disk.opened += 1
        return self.disk.stored

    async def write(self, write: Write) -> None:
        before_s = self.draw.uniform(0.0, self.disk.slow_s)
        await trio.sleep(before_s)
        if self.is_dead:
            raise LedgerStoreError(None, "the process is dead")
        if self.disk.is_full:
            raise LedgerStoreError(None, "full; make room on its disk")
        # As the file would give it back.
        budgets = msgspec.msgpack.decode(
            msgspec.msgpack.encode(write.budgets), type=dict[str, Kept]
        )
        self.disk.stored = kept_with(
            self.disk.stored, attrs.evolve(write, budgets=budgets)
        )
        # It is there, and nobody may know of it when the process dies now.
        await trio.sleep(self.draw.uniform(0.0, self.disk.slow_s))

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.is_dead:
            self.disk.opened -= 1


class SimPeers:
    """``atomr.cluster.peers.Peers`` by a network that is drawn."""

    def __init__(self, origin: Origin, network: Network) -> None:
        self.origin = origin
        self._network = network
        self._watchers: list[Callable[[PeerEvent], None]] = []

    def all(self) -> tuple[Origin, ...]:
        return tuple(sorted(self._network.reachable(self.origin.name)))

    def get(self, name: str) -> Origin | None:
        return self._network.way(self.origin.name, name)

    def link(self, peer: Origin) -> Link | None:
        raise NotImplementedError("this network has no links")

    def tell(
        self, peer: Origin, service: str, message: object, *, lane: Lane = Lane.MSG
    ) -> bool:
        if peer != self.get(peer.name):
            return False
        self._network.carry(self.origin, peer, msgspec.msgpack.encode(message))
        return True

    async def call(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("this network carries no calls")

    @contextmanager
    def watch(self, callback: Callable[[PeerEvent], None]) -> Iterator[None]:
        for peer in self.all():
            callback(PeerUp(peer))
        self._watchers.append(callback)
        try:
            yield
        finally:
            self._watchers.remove(callback)

    @contextmanager
    def watch_members(self, _: Callable[[MemberChanged], None]) -> Iterator[None]:
        yield

    def told(self, event: PeerEvent) -> None:
        for watcher in tuple(self._watchers):
            watcher(event)


class Network:
    """What connects the nodes.

    Attributes:
        loss: the share of messages that never arrive.
        delay_s: how long one takes at most; later ones may come earlier.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.post = Post()
        self.loss = 0.0
        self.delay_s = 0.002
        self.up: dict[str, SimNode] = {}
        self._sides: dict[str, int] = {}

    def reachable(self, name: str) -> list[Origin]:
        if name not in self.up:
            return []
        sides = self._sides
        side = sides.get(name, 0)
        return [
            node.peers.origin
            for other, node in self.up.items()
            if other != name and sides.get(other, 0) == side
        ]

    def way(self, sender: str, to: str) -> Origin | None:
        """Return who has a name, if what a sender says can come there."""
        node = self.up.get(to)
        if node is None or sender not in self.up or sender == to:
            return None
        if self._sides.get(sender, 0) != self._sides.get(to, 0):
            return None
        return node.peers.origin

    def carry(self, sender: Origin, to: Origin, content: bytes) -> None:
        for _ in range(2 if self.draw.random() < self.loss else 1):
            if self.draw.random() >= self.loss:
                delay_s = self.draw.uniform(0.0, self.delay_s)
                self.post.send(delay_s, partial(self._deliver, sender, to, content))

    def _deliver(self, sender: Origin, to: Origin, content: bytes) -> None:
        node = self.up.get(to.name)
        if node is not None and sender == self.way(to.name, sender.name):
            token = NODE.set(node.node)
            node.tell(FromPeer(sender), _decode(content))
            NODE.reset(token)

    def split(self, *names: str) -> None:
        """Cut these off from the others."""
        self._change(dict.fromkeys(names, 1))

    def heal(self) -> None:
        self._change({})

    def _change(self, sides: dict[str, int]) -> None:
        before = {name: self.reachable(name) for name in self.up}
        self._sides = sides
        for name, node in self.up.items():
            now = self.reachable(name)
            with node.here():
                for peer in before[name]:
                    if peer not in now:
                        node.peers.told(PeerDown(peer, "no_pong"))
                for peer in now:
                    if peer not in before[name]:
                        node.peers.told(PeerUp(peer))

    def join(self, node: SimNode) -> None:
        self.up[node.name] = node
        for peer in self.reachable(node.name):
            self._say(node, PeerUp(peer))
            self._say(self.up[peer.name], PeerUp(node.peers.origin))

    def leave(self, node: SimNode) -> None:
        peers = self.reachable(node.name)
        del self.up[node.name]
        for peer in peers:
            self._say(self.up[peer.name], PeerDown(node.peers.origin, "peer_closed"))

    @staticmethod
    def _say(node: SimNode, event: PeerEvent) -> None:
        with node.here():
            node.peers.told(event)


class SimNode:
    """One life of a node."""

    def __init__(self, name: str, service: BudgetService, peers: SimPeers) -> None:
        self.name = name
        self.service = service
        self.peers = peers
        tell = service.services()["budgets"].tell
        assert tell is not None
        self.tell: Any = tell
        self.node: Node | None = None
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    @contextmanager
    def here(self) -> Iterator[None]:
        token = NODE.set(self.node)
        try:
            yield
        finally:
            NODE.reset(token)


class Lab:
    """Several nodes, their disks, and their network."""

    def __init__(self, seed: int, nursery: trio.Nursery) -> None:
        self.draw = random.Random(seed)
        self.network = Network(self.draw)
        self.disks: dict[str, Disk] = {}
        self.voters: tuple[str, ...] = ()
        self.wall_offset_s: dict[str, float] = {}
        self.prepare: Callable[[SimNode], None] = _nothing
        self._nursery = nursery
        self._boot = 0

    def wall_s(self, name: str = "") -> float:
        return _EPOCH_S + trio.current_time() + self.wall_offset_s.get(name, 0.0)

    def new_disk(self, name: str) -> None:
        self.disks[name] = Disk(
            Stored(file=f"f{self.draw.getrandbits(32):x}", made_at_s=self.wall_s(name))
        )

    async def start(self, *names: str) -> None:
        for name in names:
            await self._nursery.start(self._run, name)

    async def _run(self, name: str, *, task_status: trio.TaskStatus[None]) -> None:
        if name not in self.disks:
            self.new_disk(name)
        self._boot += 1
        storage = SimStorage(self.disks[name], self.draw)
        service = BudgetService(
            voters=self.voters, storage=storage, wall_s=lambda: self.wall_s(name)
        )
        peers = SimPeers(Origin(name, self._boot), self.network)
        node = SimNode(name, service, peers)
        self.prepare(node)
        try:
            with node.scope:
                async with open_node(name) as opened:
                    node.node = opened
                    await opened.start(service.child(peers))
                    self.network.join(node)
                    task_status.started()
                    await trio.sleep_forever()
            assert leftovers(opened) == ()
        finally:
            if self.network.up.get(name) is node:
                self.network.leave(node)
            node.ended.set()

    async def kill(self, name: str, *, lose_disk: bool = False) -> None:
        """End a node; nothing that it has not synced is there afterwards."""
        node = self.network.up[name]
        self.network.leave(node)
        storage = node.service.storage
        assert isinstance(storage, SimStorage)
        storage.is_dead = True
        self.disks[name].opened = 0
        if lose_disk:
            self.new_disk(name)
        node.scope.cancel()
        await node.ended.wait()

    async def stop(self, name: str) -> None:
        """End a node as planned."""
        node = self.network.up[name]
        node.scope.cancel()
        await node.ended.wait()

    def __getitem__(self, name: str) -> BudgetService:
        return self.network.up[name].service

    def here(self, name: str) -> Any:
        return self.network.up[name].here()


def _nothing(_: SimNode) -> None:
    return


@asynccontextmanager
async def open_lab(*names: str, seed: int = 0) -> AsyncIterator[Lab]:
    """Open a lab whose nodes run, and know each other."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        lab = Lab(seed, nursery)
        nursery.start_soon(lab.network.post.run)
        lab.voters = names
        yield lab
        for name in tuple(lab.network.up):
            await lab.stop(name)
        nursery.cancel_scope.cancel()
        assert all(disk.opened == 0 for disk in lab.disks.values())
