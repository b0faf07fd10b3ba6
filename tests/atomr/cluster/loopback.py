"""Several nodes in one event loop, with real links between them.

Each has a node of processes, links over loopback with mutual TLS, and the peers that
the services of a cluster are given.  No membership: a peer is up while its link is.
"""

from __future__ import annotations

import contextvars
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import pytest
import trio

from atomr.cluster.peers import MemberChanged, PeerDown, PeerEvent, PeerUp
from atomr.crdt.origin import Origin
from atomr.errors import LinkBusyError, LinkDownError
from atomr.http2 import (
    Lane,
    Link,
    LinkDown,
    LinkEvent,
    LinkOptions,
    Links,
    LinkUp,
    Reason,
    Service,
    open_links,
)
from atomr.process import Node, open_node
from atomr.process.context import NODE
from atomr.process.plain import PlainProcess
from tests.atomr.http2.conftest import CLUSTER, COOKIE, Authority

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Mapping,
    )

    from atomr.cluster.service import ClusterService

T = TypeVar("T")


class LoopbackPeers:
    """``atomr.cluster.peers.Peers`` by links alone."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.links: Links | None = None
        self.refused = 0
        self._watchers: list[Callable[[PeerEvent], None]] = []

    def _up(self) -> dict[str, Link]:
        links = () if self.links is None else self.links.all()
        return {link.peer.name: link for link in links}

    def all(self) -> tuple[Origin, ...]:
        return tuple(sorted(link.peer for link in self._up().values()))

    def get(self, name: str) -> Origin | None:
        link = self._up().get(name)
        return None if link is None else link.peer

    def link(self, peer: Origin) -> Link | None:
        link = self._up().get(peer.name)
        return link if link is not None and link.peer == peer else None

    def tell(
        self, peer: Origin, service: str, message: object, *, lane: Lane = Lane.MSG
    ) -> bool:
        link = self.link(peer)
        try:
            if link is not None:
                link.tell(service, message, lane=lane)
                return True
        except (LinkBusyError, LinkDownError):
            pass
        self.refused += 1
        return False

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
            raise LinkDownError(peer, Reason.UNREACHABLE, "there is no link with it")
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
    def watch_members(self, _: Callable[[MemberChanged], None]) -> Iterator[None]:
        yield

    def observe(self, event: LinkEvent) -> None:
        told: PeerEvent
        if isinstance(event, LinkUp):
            told = PeerUp(event.link.peer)
        elif isinstance(event, LinkDown):
            told = PeerDown(event.link.peer, event.error.reason)
        else:
            return
        for watcher in tuple(self._watchers):
            watcher(told)


class LoopbackNode:
    """One node.

    Attributes:
        node: of processes.
        links: its links.
        peers: what its services see.
        port: where it listens.
    """

    def __init__(
        self, node: Node, links: Links, *, peers: LoopbackPeers, port: int
    ) -> None:
        self.node = node
        self.links = links
        self.peers = peers
        self.port = port

    @property
    def origin(self) -> Origin:
        return self.peers.origin

    @contextmanager
    def here(self) -> Iterator[Node]:
        """Let the block run on this node, as no process of it."""
        token = NODE.set(self.node)
        try:
            yield self.node
        finally:
            NODE.reset(token)

    async def run(self, fn: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run a function as a process of this node; return what it returns."""
        done = trio.Event()
        found: list[outcome.Outcome[T]] = []

        async def body() -> None:
            try:
                found.append(outcome.Value(await fn(*args)))
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - raised below
                found.append(outcome.Error(error))
            finally:
                done.set()

        # A context of its own: what the caller is must not be seen in it.
        contextvars.Context().run(
            self.node.spawn, PlainProcess(body), label="test", name=None
        )
        await done.wait()
        assert found, "the process was ended from outside"
        return found[0].unwrap()

    async def dial(self, other: LoopbackNode) -> Link:
        return await self.links.dial(other.origin.name, "127.0.0.1", other.port)

    def cut(self, other: LoopbackNode) -> None:
        """End the link with another node, if there is one."""
        link = self.links.get(other.origin.name)
        if link is not None:
            link.end(Reason.BROKEN, "the test cuts it")


@asynccontextmanager
async def open_loopback(
    authority: Authority,
    name: str,
    services: Iterable[ClusterService] = (),
    *,
    boot: int = 1,
    extra: Mapping[str, Service[Any]] | None = None,
    **options: Any,
) -> AsyncIterator[LoopbackNode]:
    """Open one node with services of a cluster, which knows nobody yet."""
    origin = Origin(name, boot)
    peers = LoopbackPeers(origin)
    table: dict[str, Service[Any]] = dict(extra or {})
    for service in services:
        table.update(service.services())
    made = LinkOptions(
        cluster=CLUSTER,
        origin=origin,
        cookie=COOKIE,
        credentials=authority.credentials(name),
        **options,
    )
    before = NODE.get()
    async with (
        open_node(name) as node,
        open_links(made, table, observer=peers.observe) as links,
    ):
        peers.links = links
        for service in services:
            await node.start(service.child(peers))
        port = await links.listen("127.0.0.1", 0)
        NODE.set(before)
        yield LoopbackNode(node, links, peers=peers, port=port)
        NODE.set(node)


@asynccontextmanager
async def open_mesh(
    authority: Authority,
    names: Iterable[str],
    services: Callable[[str], Iterable[ClusterService]],
) -> AsyncIterator[dict[str, LoopbackNode]]:
    """Open several nodes, each of which has a link with each other."""
    async with AsyncExitStack() as stack:
        nodes: dict[str, LoopbackNode] = {}
        for name in names:
            opened = open_loopback(authority, name, tuple(services(name)))
            node = await stack.enter_async_context(opened)
            for other in nodes.values():
                await other.dial(node)
            nodes[name] = node
        yield nodes
