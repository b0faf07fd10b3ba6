"""Nodes of a cluster in one program, on real sockets, and relays that can be cut."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import attrs
import pytest
import trio

from atomr import telemetry
from atomr.cluster import (
    Cluster,
    ClusterOptions,
    PeerDown,
    PeerEvent,
    PeerUp,
    StaticSeeds,
    open_cluster,
)
from atomr.gossip.membership import MembershipOptions, Status
from atomr.process import open_node
from tests.atomr.http2.conftest import (  # noqa: F401 - fixtures
    CLUSTER,
    COOKIE,
    Authority,
    authority,
)
from tests.ports import free_port

WITHIN_S = 30.0

QUICK = MembershipOptions(
    probe_s=0.2,
    probe_timeout_s=0.1,
    retry_s=0.05,
    suspicion_mult=2.0,
    last_word_s=0.1,
    lag_s=0.3,
    gossip_s=0.05,
    sync_s=1.0,
    dead_probe_s=0.3,
    join_s=0.1,
)

CALM = attrs.evolve(QUICK, suspicion_mult=30.0)
"""Nobody is held dead on a busy machine."""

OpenMember: TypeAlias = Callable[..., AbstractAsyncContextManager[Cluster]]


@pytest.fixture
def options(authority: Authority) -> Callable[..., ClusterOptions]:  # noqa: F811
    """Make options with timers for tests; ``seeds`` are addresses."""

    def make(name: str, *seeds: str, **changed: Any) -> ClusterOptions:
        cluster = changed.get("cluster", CLUSTER)
        defaults: dict[str, Any] = {
            "name": name,
            "cluster": CLUSTER,
            "cookie": COOKIE,
            "listen": "127.0.0.1:0",
            "discovery": [StaticSeeds(seeds)],
            "membership": CALM,
            "heartbeat_interval_s": 0.1,
            "heartbeat_timeout_s": 10.0,
            "handshake_timeout_s": 10.0,
            "redial_s": 0.02,
            "max_redial_s": 0.3,
        }
        if "credentials" not in changed:
            defaults["credentials"] = authority.credentials(name, cluster=cluster)
        return ClusterOptions(**(defaults | changed))

    return make


@pytest.fixture
def open_member(options: Callable[..., ClusterOptions]) -> OpenMember:
    """Open a node and its part in the cluster."""

    @asynccontextmanager
    async def opened(
        name: str, *seeds: str, services: Any = (), **changed: Any
    ) -> AsyncIterator[Cluster]:
        made = options(name, *seeds, **changed)
        async with open_node(name), open_cluster(made, services) as cluster:
            yield cluster

    return opened


def status(cluster: Cluster, name: str) -> Status | None:
    """Return what a node holds of another one."""
    return next((row.status for row in cluster.members() if row.name == name), None)


@contextmanager
def watched(cluster: Cluster) -> Iterator[list[PeerEvent]]:
    """Collect what a node's watchers hear."""
    events: list[PeerEvent] = []
    with cluster.peers.watch(events.append):
        yield events


def told(events: list[PeerEvent]) -> list[tuple[str, str]]:
    """Return the events as name and ``up``, or name and reason."""
    rows = []
    for event in events:
        match event:
            case PeerUp(peer):
                rows.append((peer.name, "up"))
            case PeerDown(peer, reason):
                rows.append((peer.name, reason))
    return rows


@pytest.fixture
def unused_port() -> int:
    """Return a port that nobody is given who does not name it."""
    return free_port()


@pytest.fixture
def unreachable() -> Iterator[list[str]]:
    """Collect the reasons why dials failed."""
    reasons: list[str] = []
    telemetry.attach(
        "test unreachable",
        ("atomr", "peer", "unreachable"),
        lambda _, __, metadata: reasons.append(str(metadata["reason"])),
    )
    yield reasons
    telemetry.detach("test unreachable")


# --- networks that break --------------------------------------------------------------


@attrs.define
class Relay:
    """Stands in front of a node; what goes through can be cut.

    Attributes:
        nursery: where its connections live.
        port: where it listens.
        to: the node's port.
        open: not set: nothing goes through, and new connections are closed.
        pairs: both ends of each connection.
    """

    nursery: trio.Nursery
    port: int = 0
    to: int = 0
    open: trio.Event = attrs.field(factory=trio.Event)
    pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = attrs.field(factory=set)

    async def listen(self) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        self.nursery.start_soon(trio.serve_listeners, self._serve, listeners)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self, near: trio.SocketStream) -> None:
        if not self.open.is_set():
            return
        async with near:
            try:
                far = await trio.open_tcp_stream("127.0.0.1", self.to)
            except OSError:
                return
            async with far, trio.open_nursery() as nursery:
                pair = near, far
                self.pairs.add(pair)
                nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
                await self._pump(far, near, nursery.cancel_scope)
            self.pairs.discard(pair)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, end: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                await self.open.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        end.cancel()

    def cut(self) -> None:
        """Let nothing through; both sides see silence."""
        self.open = trio.Event()

    def heal(self) -> None:
        for pair in self.pairs:
            # What was in the network is lost; a connection does not outlive that.
            self._reset(pair)
        self.open.set()

    def reset(self) -> None:
        """Let both sides see what they see when the other one's process is killed."""
        self.cut()
        for pair in self.pairs:
            self._reset(pair)
        self.pairs.clear()

    def _reset(self, pair: tuple[trio.SocketStream, trio.SocketStream]) -> None:
        for stream in pair:
            linger = struct.pack("ii", 1, 0)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            stream.socket.close()


@asynccontextmanager
async def open_relay() -> AsyncIterator[Relay]:
    """Open a relay; its address is known before the node's port is."""
    async with trio.open_nursery() as nursery:
        relay = Relay(nursery)
        await relay.listen()
        relay.heal()
        yield relay
        nursery.cancel_scope.cancel()


@pytest.fixture
def open_relayed(open_member: OpenMember) -> OpenMember:
    """Open a node that others reach by the relay only."""

    @asynccontextmanager
    async def opened(
        name: str, relay: Relay, *seeds: str, **changed: Any
    ) -> AsyncIterator[Cluster]:
        async with open_member(
            name, *seeds, advertise=relay.address, **changed
        ) as cluster:
            relay.to = cluster._station.port
            yield cluster

    return opened
