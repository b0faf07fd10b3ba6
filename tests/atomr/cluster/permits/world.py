"""Permit services of several nodes in one event loop, in virtual time.

The services, their processes and their timers are the real ones; the links between
them are not: a frame is encoded, and comes later, twice, or never.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from atomr.cluster.permits import PermitService
from atomr.crdt import Origin
from atomr.gossip.escrow import Frame, decode, encode
from atomr.otp import Supervisor
from atomr.process import open_node
from atomr.testing.leftovers import leftovers
from tests.atomr.cluster.post import Post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr.process import Node
    from atomr.process.timers import Timer

R = TypeVar("R")


@attrs.define
class Net:
    """What becomes of frames.

    Attributes:
        draw: decides.
        loss: share of the frames that are lost.
        twice: share of the frames that come twice.
        delay_s: the longest that a frame takes.
        cuts: pairs of names between which nothing goes.
    """

    draw: random.Random
    post: Post = attrs.field(factory=Post)
    loss: float = 0.0
    twice: float = 0.0
    delay_s: float = 0.002
    cuts: set[frozenset[str]] = attrs.field(factory=set)
    nodes: dict[str, VirtualNode] = attrs.field(factory=dict)
    sent: int = 0

    def send(self, sender: Origin, to: str, data: bytes) -> None:
        self.sent += 1
        for _ in range(2 if self.draw.random() < self.twice else 1):
            if self.draw.random() >= self.loss:
                delay_s = self.draw.uniform(0.0, self.delay_s)
                self.post.send(delay_s, partial(self._deliver, sender, to, data))

    def _deliver(self, sender: Origin, to: str, data: bytes) -> None:
        node = self.nodes.get(to)
        if node is not None and frozenset((sender.name, to)) not in self.cuts:
            node.context.run(node.tell, FakeLink(sender), decode(data))


@attrs.frozen
class FakeLink:
    """Says who sent something."""

    peer: Origin


class VirtualPeers:
    """All others of the net, which are up whatever happens."""

    def __init__(self, net: Net, origin: Origin) -> None:
        self.origin = origin
        self._net = net

    def get(self, name: str) -> Origin | None:
        node = self._net.nodes.get(name)
        return None if node is None else node.origin

    def tell(self, peer: Origin, service: str, message: Frame, *, lane: object) -> bool:
        self._net.send(self.origin, peer.name, encode(message))
        return True


@attrs.define
class VirtualNode:
    """A node that runs."""

    origin: Origin
    service: PermitService
    context: Context
    scope: trio.CancelScope
    ended: trio.Event
    tell: Any = None

    def __attrs_post_init__(self) -> None:
        self.tell = self.service.services()[self.service.service_name].tell

    def do(self, call: Callable[..., R], *args: Any) -> R:
        """Call a function as code of this node."""
        return self.context.run(call, *args)

    async def kill(self) -> None:
        """End the node."""
        self.scope.cancel()
        await self.ended.wait()


class VirtualCluster:
    """Starts nodes, and ends them."""

    def __init__(self, net: Net, nursery: trio.Nursery) -> None:
        self.net = net
        self._nursery = nursery
        self._boot = 0

    def tasks(self) -> int:
        """Return how many nodes run, and how many frames are under way."""
        return len(self._nursery.child_tasks) + len(self.net.post)

    async def start(
        self, service: PermitService, name: str, *, rate: float = 1.0
    ) -> VirtualNode:
        """Start a node in a new life, whose timers are wrong by a rate."""
        self._boot += 1
        node: VirtualNode = await self._nursery.start(
            self._run, service, Origin(name, self._boot), rate
        )
        self.net.nodes[name] = node
        return node

    async def _run(
        self,
        service: PermitService,
        origin: Origin,
        rate: float,
        *,
        task_status: trio.TaskStatus[VirtualNode],
    ) -> None:
        ended = trio.Event()
        peers: Any = VirtualPeers(self.net, origin)
        try:
            with trio.CancelScope() as scope:
                async with AsyncExitStack() as stack:
                    node = await stack.enter_async_context(open_node(origin.name))
                    _run_at(rate, node)
                    await node.start(Supervisor([service.child(peers)]))
                    task_status.started(
                        VirtualNode(origin, service, copy_context(), scope, ended)
                    )
                    await trio.sleep_forever()
            assert leftovers(node) == ()
        finally:
            known = self.net.nodes.get(origin.name)
            if known is not None and known.origin == origin:
                del self.net.nodes[origin.name]
            ended.set()


def _run_at(rate: float, node: Node) -> None:
    """Let the timers of a node run as its clock does.

    Else each one that fires too early by that clock is armed again, and again.
    """
    exact = node.timers.after

    def after(delay_s: float, callback: Callable[[], None]) -> Timer:
        return exact(delay_s / rate, callback)

    node.timers.after = after  # type: ignore[method-assign]


@asynccontextmanager
async def open_virtual(draw: random.Random) -> AsyncIterator[VirtualCluster]:
    """Open a cluster without nodes; they end with the block."""
    async with trio.open_nursery() as frames, trio.open_nursery() as nodes:
        net = Net(draw)
        frames.start_soon(net.post.run)
        yield VirtualCluster(net, nodes)
        nodes.cancel_scope.cancel()
        frames.cancel_scope.cancel()
