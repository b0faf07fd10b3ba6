"""Nodes with real links between them, in one event loop.

There is no membership here: a node is up as long as there is a link with it, and
suspected when the test says so.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import outcome
import trio

from atomr.cluster.peers import MemberChanged, PeerDown, PeerEvent, PeerUp
from atomr.crdt import Origin
from atomr.errors import AtomrError, LinkBusyError, LinkDownError
from atomr.gossip.membership import Member, Status
from atomr.http2 import (
    Lane,
    LinkDown,
    LinkEvent,
    LinkOptions,
    Links,
    LinkUp,
    Reason,
    open_links,
)
from atomr.otp import Strategy, Supervisor
from atomr.process import Node, open_node, spawn, wait_exit
from atomr.refs import Pid
from tests.atomr.http2.conftest import CLUSTER, COOKIE, Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from atomr.cluster.service import ClusterService
    from atomr.http2 import Link

R = TypeVar("R")


class LabPeers:
    """The peers of a node: those with whom there is a link."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.links: Links | None = None
        self.up: dict[str, Origin] = {}
        self.suspects: set[Origin] = set()
        self.refused = 0
        self._watchers: list[Callable[[PeerEvent], None]] = []
        self._judges: list[Callable[[MemberChanged], None]] = []

    def observe(self, event: LinkEvent) -> None:
        match event:
            case LinkUp(link):
                self.up[link.peer.name] = link.peer
                self._tell(PeerUp(link.peer))
            case LinkDown(link, error) if self.up.get(link.peer.name) == link.peer:
                del self.up[link.peer.name]
                self._tell(PeerDown(link.peer, error.reason))

    def _tell(self, event: PeerEvent) -> None:
        for watcher in list(self._watchers):
            watcher(event)

    def judge(self, peer: Origin, status: Status) -> None:
        for judge in list(self._judges):
            judge(MemberChanged(None, Member(peer, "x", 0, status)))

    def all(self) -> tuple[Origin, ...]:
        return tuple(sorted(self.up.values()))

    def get(self, name: str) -> Origin | None:
        return self.up.get(name)

    def link(self, peer: Origin) -> Link | None:
        link = self.links.get(peer.name) if self.links is not None else None
        return link if link is not None and link.peer == peer else None

    def tell(
        self, peer: Origin, service: str, message: object, *, lane: Lane = Lane.MSG
    ) -> bool:
        link = self.link(peer)
        if link is None:
            return False
        try:
            link.tell(service, message, lane=lane)
        except (LinkBusyError, LinkDownError):
            self.refused += 1
            return False
        return True

    async def call(
        self,
        peer: Origin,
        service: str,
        message: object,
        *,
        returns: Any,
        timeout_s: float = 5.0,
    ) -> Any:
        link = self.link(peer)
        if link is None:
            raise LinkDownError(peer, "closed", "there is no link")
        return await link.call(service, message, returns=returns, timeout_s=timeout_s)

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
    def watch_members(
        self, callback: Callable[[MemberChanged], None]
    ) -> Iterator[None]:
        self._judges.append(callback)
        try:
            yield
        finally:
            self._judges.remove(callback)


@attrs.define
class LabNode:
    """A node that runs.

    Attributes:
        peers: as its services see them.
        node: its processes.
        links: its links.
        port: where it listens.
    """

    peers: LabPeers
    node: Node
    links: Links
    port: int
    _context: Context
    _nursery: trio.Nursery
    _scope: trio.CancelScope

    @property
    def origin(self) -> Origin:
        return self.peers.origin

    def do(self, call: Callable[..., R], *args: Any) -> R:
        """Call a function as code of this node."""
        return self._context.run(call, *args)

    def spawn(self, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task of this node."""
        self.do(self._nursery.start_soon, call, *args)

    async def run(self, call: Callable[..., Awaitable[R]], *args: Any) -> R:
        """Run an async function as code of this node; return or raise what it does."""
        found: list[outcome.Outcome[R]] = []
        done = trio.Event()

        async def task() -> None:
            found.append(await outcome.acapture(call, *args))
            done.set()

        self.spawn(task)
        await done.wait()
        return found[0].unwrap()

    def cut(self, *others: LabNode) -> None:
        """End the links with others, as a broken network does."""
        for other in others:
            link = self.links.get(other.origin.name)
            if link is not None:
                link.end(Reason.BROKEN, "cut by the test")

    def end(self) -> None:
        """End the node."""
        self._scope.cancel()


class Lab:
    """Starts nodes, and dials."""

    def __init__(self, authority: Authority, nursery: trio.Nursery) -> None:
        self._authority = authority
        self._nursery = nursery
        self._boot = 0
        self.nodes: dict[str, LabNode] = {}

    async def start(self, name: str, *services: ClusterService) -> LabNode:
        """Start a node in a new life; it has no links yet."""
        self._boot += 1
        node: LabNode = await self._nursery.start(
            self._run, Origin(name, self._boot), services
        )
        self.nodes[name] = node
        return node

    async def _run(
        self,
        origin: Origin,
        services: Sequence[ClusterService],
        *,
        task_status: trio.TaskStatus[LabNode],
    ) -> None:
        peers = LabPeers(origin)
        known = {n: s for service in services for n, s in service.services().items()}
        options = LinkOptions(
            CLUSTER, origin, COOKIE, self._authority.credentials(origin.name)
        )
        with trio.CancelScope() as scope:
            async with (
                open_node(origin.name) as node,
                open_links(options, known, observer=peers.observe) as links,
                trio.open_nursery() as nursery,
            ):
                peers.links = links
                port = await links.listen("127.0.0.1", 0)
                children = [service.child(peers) for service in services]
                top = Supervisor(children, strategy=Strategy.REST_FOR_ONE)
                await node.start(top)
                task_status.started(
                    LabNode(peers, node, links, port, copy_context(), nursery, scope)
                )
                await trio.sleep_forever()

    async def link(self, *names: str) -> None:
        """Link all of these nodes with each other."""
        for dialing in names:
            for other in names:
                if dialing < other:
                    here, there = self.nodes[dialing], self.nodes[other]
                    if here.links.get(other) is None:
                        await here.links.dial(other, "127.0.0.1", there.port)


class LabPids:
    """Pids of all nodes of a lab: they share an event loop."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def pid_of(self, origin: Origin, number: int, label: str) -> Pid:
        # None while it starts.
        node = self._lab.nodes.get(origin.name)
        process = None
        if node is not None and node.origin == origin:
            process = node.node.processes.get(number)
        return Pid(number, label) if process is None else process.pid


async def in_a_process(call: Callable[..., object], *args: object) -> object:
    """Call a function in a process, and return what it returns, or raise it."""
    found: list[object] = []

    async def process() -> None:
        try:
            found.append(call(*args))
        except AtomrError as error:
            found.append(error)

    await wait_exit(spawn(process))
    if isinstance(found[0], AtomrError):
        raise found[0]
    return found[0]


@asynccontextmanager
async def open_lab(authority: Authority) -> AsyncIterator[Lab]:
    """Open a lab; its nodes end with the block."""
    async with trio.open_nursery() as nursery:
        yield Lab(authority, nursery)
        nursery.cancel_scope.cancel()
