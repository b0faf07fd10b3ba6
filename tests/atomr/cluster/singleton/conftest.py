"""Nodes of a cluster in one event loop, in virtual time, and a network to break.

What nodes say travels as bytes, in the same instant.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import trio.testing

from atomr.cluster.peers import MemberChanged, PeerDown, PeerEvent, PeerUp
from atomr.cluster.singleton import ClusterSingleton
from atomr.crdt.origin import Origin
from atomr.http2 import Lane
from atomr.otp import (
    DynamicSupervisor,
    GenServer,
    Reply,
    child,
    start_child,
    terminate_child,
)
from atomr.process import Node, open_node
from atomr.process.context import NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from atomr.http2 import Link, Service
    from atomr.process.calls import From
    from atomr.refs import Pid

NAMES = ("a", "b", "c")


@attrs.frozen
class FromPeer:
    """What a handler sees of a link."""

    peer: Origin


class Wire:
    """What connects the nodes.

    Attributes:
        nodes: by name; those that are up.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Member] = {}
        self._cut: set[frozenset[str]] = set()

    def reaches(self, one: str, other: str) -> bool:
        both_up = one in self.nodes and other in self.nodes
        return both_up and one != other and frozenset((one, other)) not in self._cut

    def join(self, member: Member) -> None:
        self.nodes[member.name] = member
        self._tell(member.name, list(self.nodes), is_up=True)

    def leave(self, name: str) -> None:
        others = [other for other in self.nodes if self.reaches(name, other)]
        self._tell(name, others, is_up=False)
        del self.nodes[name]

    def cut(self, name: str) -> None:
        """Let a node reach nobody."""
        others = [other for other in self.nodes if self.reaches(name, other)]
        self._cut |= {frozenset((name, other)) for other in others}
        self._tell(name, others, is_up=False)

    def heal(self, name: str) -> None:
        self._cut = {pair for pair in self._cut if name not in pair}
        self._tell(name, list(self.nodes), is_up=True)

    def _tell(self, name: str, others: list[str], *, is_up: bool) -> None:
        for other in others:
            if other != name and (not is_up or self.reaches(name, other)):
                self.nodes[name].peers.told(other, is_up=is_up)
                self.nodes[other].peers.told(name, is_up=is_up)


class WirePeers:
    """``atomr.cluster.peers.Peers`` by a wire."""

    def __init__(self, name: str, wire: Wire) -> None:
        self.origin = Origin(name, 1)
        self._wire = wire
        self._watchers: list[Callable[[PeerEvent], None]] = []

    def all(self) -> tuple[Origin, ...]:
        name = self.origin.name
        others = sorted(o for o in self._wire.nodes if self._wire.reaches(name, o))
        return tuple(Origin(other, 1) for other in others)

    def get(self, name: str) -> Origin | None:
        return Origin(name, 1) if self._wire.reaches(self.origin.name, name) else None

    def link(self, peer: Origin) -> Link | None:
        raise NotImplementedError("a wire has no links")

    def tell(
        self, peer: Origin, service: str, message: object, *, lane: Lane = Lane.MSG
    ) -> bool:
        if not self._wire.reaches(self.origin.name, peer.name):
            return False
        to = self._wire.nodes[peer.name].services[service]
        assert to.tell is not None
        content = msgspec.msgpack.encode(message)
        with self._wire.nodes[peer.name].here():
            said = msgspec.msgpack.decode(content, type=to.messages)
            to.tell(FromPeer(self.origin), said)  # type: ignore[arg-type]
        return True

    async def call(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("a wire carries no calls")

    @contextmanager
    def watch(self, callback: Callable[[PeerEvent], None]) -> Iterator[None]:
        for peer in self.all():
            callback(PeerUp(peer))
        self._watchers.append(callback)
        yield
        self._watchers.remove(callback)

    @contextmanager
    def watch_members(self, _: Callable[[MemberChanged], None]) -> Iterator[None]:
        yield

    def told(self, name: str, *, is_up: bool) -> None:
        peer = Origin(name, 1)
        for watcher in tuple(self._watchers):
            watcher(PeerUp(peer) if is_up else PeerDown(peer, "no_pong"))


class Member:
    """A node, and its part in the singleton."""

    def __init__(self, name: str, wire: Wire, node: Node) -> None:
        self.name = name
        self.wire = wire
        self.node = node
        self.peers = WirePeers(name, wire)
        self.services: dict[str, Service[Any]] = {}
        self.root: Pid | None = None
        self.pid: Pid | None = None
        self._singleton: ClusterSingleton | None = None

    @property
    def singleton(self) -> ClusterSingleton:
        assert self._singleton is not None
        return self._singleton

    @contextmanager
    def here(self) -> Iterator[None]:
        token = NODE.set(self.node)
        try:
            yield
        finally:
            NODE.reset(token)

    async def start(self, singleton: ClusterSingleton) -> None:
        self._singleton = singleton
        self.services = dict(singleton.services())
        with self.here():
            self.root = await self.node.start(DynamicSupervisor())
            self.pid = await start_child(self.root, singleton.child(self.peers))
        self.wire.join(self)

    async def leave(self) -> None:
        """Stop as a node does that leaves its cluster: the links end last."""
        assert self.root is not None
        assert self.pid is not None
        with self.here():
            await terminate_child(self.root, self.pid)
        self.wire.leave(self.name)

    def name_of(self, node: str, name: str) -> Pid | None:
        """Return who has a name on a node: all of them are in this program."""
        # It joins when it has started.
        member = self if node == self.name else self.wire.nodes[node]
        process = member.node.names.get(name)
        return None if process is None else process.pid

    def why(self) -> str:
        with self.here():
            return self.singleton.why()

    def holder(self) -> str | None:
        with self.here():
            return self.singleton.holder

    def token(self) -> int:
        with self.here():
            return self.singleton.token()

    async def wait_running(self) -> str:
        """Return who runs it, when all nodes have had the time to hear of it."""
        with self.here():
            holder = await self.singleton.wait_running(timeout_s=60.0)
        await trio.testing.wait_all_tasks_blocked()
        return holder


@attrs.define
class Log:
    """What singletons did: begun and ended, by node."""

    lines: list[str] = attrs.field(factory=list)
    running: set[str] = attrs.field(factory=set)

    def begin(self, name: str) -> None:
        assert not self.running, f"{name} begins while {self.running} run"
        self.running.add(name)
        self.lines.append(f"{name} begins")

    def end(self, name: str) -> None:
        self.running.remove(name)
        self.lines.append(f"{name} ends")


class Billing(GenServer):
    """A singleton that says where it runs."""

    def __init__(self, node: str, log: Log) -> None:
        self.node = node
        self.log = log

    def init(self) -> None:
        self.log.begin(self.node)

    def handle_call(self, request: str, from_: From) -> Reply:
        return Reply(f"{request} on {self.node}")

    def terminate(self, reason: object) -> None:
        self.log.end(self.node)


@attrs.define
class Cluster:
    """Several members."""

    wire: Wire
    log: Log
    members: dict[str, Member]

    def __getitem__(self, name: str) -> Member:
        return self.members[name]


def billing(member: Member, log: Log, **options: Any) -> ClusterSingleton:
    spec = child(lambda: Billing(member.name, log), id="billing")
    given: dict[str, Any] = {"voters": NAMES, "lease_s": 3.0, "stop_s": 1.0}
    given |= options
    return ClusterSingleton(given.pop("spec", spec), member, **given)


@asynccontextmanager
async def open_members(
    names: tuple[str, ...] = NAMES,
    make: Callable[[Member, Log], ClusterSingleton] = billing,
) -> AsyncIterator[Cluster]:
    """Open nodes that know each other."""
    log, wire = Log(), Wire()
    before = NODE.get()
    async with AsyncExitStack() as stack:
        members: dict[str, Member] = {}
        for name in names:
            node = await stack.enter_async_context(open_node(name))
            NODE.set(before)
            members[name] = member = Member(name, wire, node)
            await member.start(make(member, log))
        yield Cluster(wire, log, members)
