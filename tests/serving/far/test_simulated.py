"""Three nodes, links that break and upstreams that fail, in virtual time.

The links are in memory, and each message is carried as bytes: whatever happens, an
answer is whole, once, and an error otherwise; and in the end nobody holds anything.
"""

from __future__ import annotations

import math
import random
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.errors import LinkDownError, LinkStreamError
from atomr.otp import which_children
from atomr.process import current_node
from atomr.process.context import NODE
from atomr.waking import Parked
from atomr_infer import errors
from atomr_infer.config.node import NodeConfig
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.failover import OnCut
from atomr_infer.model.routing import Routing
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.far.answering import Answering
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.replicas.far_replica import FarReplica
from atomr_infer.serving.replicas.replica import Phase
from atomr_infer.serving.replicas.routing_table import RoutingTable
from atomr_infer.serving.requests.request import run_request
from atomr_infer.wire.nodes.frames import Opening
from tests.at_length import times
from tests.serving.conftest import Collected
from tests.serving.lab import PLUGIN, LabPlugin
from tests.serving.test_simulation import TEXT, Typist

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from atomr.process import Node
    from atomr_infer.serving.shared import Serving as Shared

NAMES = "abc"
CLIENTS = 80
BACKLOG = 8


class Pipe:
    """One direction of a stream; full at ``BACKLOG`` messages."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.ended = False
        self.changed = Parked()


class Stream:
    """One side of a stream between two nodes."""

    def __init__(self, link: Link, out: Pipe, into: Pipe) -> None:
        self.link = link
        self._out = out
        self._into = into
        self.error: Exception | None = None
        self.scope: trio.CancelScope | None = None
        self.other: Stream

    async def send(self, message: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while len(self._out.messages) >= BACKLOG and self.error is None:
            await self._out.changed.wait()
        if self.error is not None:
            raise self.error
        self._out.messages.append(message)
        self._out.changed.wake()

    async def receive(self) -> bytes | None:
        await trio.lowlevel.checkpoint()
        while not self._into.messages:
            if self._into.ended:
                return None
            if self.error is not None:
                raise self.error
            await self._into.changed.wait()
        message = self._into.messages.popleft()
        self._into.changed.wake()
        return message

    def end(self) -> None:
        self._out.ended = True
        self._out.changed.wake()

    def close(self, *, wait_for_peer: bool = False) -> None:
        self.end()
        self.link.streams.discard(self)

    def abort(self) -> None:
        self.link.streams.discard(self)
        self.other.breaks(LinkStreamError(self.link.origin, "CANCEL"))

    def breaks(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            self._into.changed.wake()
            self._out.changed.wake()
            self.link.streams.discard(self)
            if self.scope is not None:
                self.scope.cancel()


class Link:
    """A way from one node to another, until it breaks."""

    def __init__(self, world: World, origin: Origin, peer: Origin) -> None:
        self.world = world
        self.origin = origin
        self.peer = peer
        self.streams: set[Stream] = set()
        self.is_down = False

    async def begin_stream(self, _: str, opening: Opening) -> Stream:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise LinkDownError(self.peer, "broken", "the test cut it")
        back = self.world.links[self.peer.name, self.origin.name]
        there, here = Pipe(), Pipe()
        ours, theirs = Stream(self, there, here), Stream(back, here, there)
        ours.other, theirs.other = theirs, ours
        self.streams.add(ours)
        back.streams.add(theirs)
        data = msgspec.msgpack.encode(opening)
        self.world.serve(self.peer.name, theirs, data)
        return ours

    def breaks(self) -> None:
        self.is_down = True
        for stream in tuple(self.streams):
            stream.breaks(LinkDownError(self.peer, "broken", "the test cut it"))


@attrs.define
class Peers:
    """The other nodes, as one of them sees them."""

    world: World
    name: str

    def link(self, peer: Origin) -> Any:
        link = self.world.links[self.name, peer.name]
        return None if link.is_down else link


class World:
    """Three serving trees, and the links between them."""

    def __init__(self, nursery: trio.Nursery, rng: random.Random) -> None:
        self.rng = rng
        self.nursery = nursery
        self.trees: dict[str, Shared] = {}
        self.nodes: dict[str, Node] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self.cuts = 0
        self.is_calm = False

    def connect(self, one: str, other: str) -> None:
        for here, there in ((one, other), (other, one)):
            link = Link(self, Origin(here, 1), Origin(there, 1))
            self.links[here, there] = link

    def serve(self, name: str, stream: Stream, data: bytes) -> None:
        """Serve a stream as the link of that node would."""

        async def run() -> None:
            NODE.set(self.nodes[name])
            answering: Any = Answering(self.trees[name])
            opening = msgspec.msgpack.decode(data, type=Opening)
            with trio.CancelScope() as stream.scope:
                await answering.serve(stream, opening)
            stream.close()

        self.nursery.start_soon(run)

    def know(self) -> None:
        """Let each node see the others' replicas."""
        for name, tree in self.trees.items():
            peers: Any = Peers(self, name)
            tree.far_replicas["m"] = tuple(
                FarReplica(Origin(other, 1), "m", 0, peers, Phase.SERVING)
                for other in NAMES
                if other != name and self.trees[other].replicas("m")
            )
            for far in tree.far_replicas["m"]:
                far.told = msgspec.structs.replace(far.told, limit=8)

    async def cut_now_and_then(self) -> None:
        """Break a link, and have it up again a moment later, until it is calm."""
        while not self.is_calm:
            await trio.sleep(self.rng.expovariate(0.5))
            one, other = self.rng.sample(NAMES, 2)
            self.cuts += 1
            for link in (self.links[one, other], self.links[other, one]):
                link.breaks()
            await trio.sleep(self.rng.choice([0.0, 0.1, 2.0]))
            self.connect(one, other)

    async def held(self) -> list[Any]:
        """Return all that anybody holds."""
        found: list[Any] = [stream for x in self.links.values() for stream in x.streams]
        for name, tree in self.trees.items():
            token = NODE.set(self.nodes[name])
            found += [child.id for child in await which_children(REQUESTS)]
            NODE.reset(token)
            found += [r for r in tree.replicas("m") if r.outstanding or r.tokens]
            found += [f for f in tree.far_replicas["m"] if f.sent or f.sent_tokens]
        return found


@asynccontextmanager
async def opened(
    world: World, name: str, installed: Any, before: Node | None
) -> AsyncIterator[None]:
    """Open one node, which has no others as far as it knows."""
    node = ServingNode(NodeConfig(name=name))
    async with open_serving(environ={}, installed=installed, node=node) as serving:
        world.trees[name] = serving
        own = world.nodes[name] = current_node()
        NODE.set(before)
        try:
            yield
        finally:
            NODE.set(own)


async def ask(world: World, number: int, on_cut: OnCut) -> Collected | None:
    """Ask some node at some time, and look at what comes."""
    rng = world.rng
    await trio.sleep(rng.random() * 60)
    name = rng.choice(NAMES)
    batch = ExecuteBatch(
        request_id=f"r{number}",
        model="m",
        messages=(Message(Role.USER, "type"),),
        stream=rng.random() < 0.8,
        session=rng.choice([None, "s", "t"]),
        timeout_s=rng.choice([None, 3.0, 30.0]),
    )
    sink = Collected()
    NODE.set(world.nodes[name])
    with trio.move_on_after(rng.choice([math.inf, math.inf, 1.0])) as left:
        try:
            await run_request(world.trees[name], batch, sink)
        except errors.InferenceError:
            assert TEXT.startswith("".join(sink.texts))
            return None
        assert "".join(sink.texts) == TEXT, (name, on_cut)
        return sink
    assert left.cancelled_caught
    assert TEXT.startswith("".join(sink.texts))
    return None


SLOW = (pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 3 + times(9)))
SEEDS = [*range(3), *SLOW]


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_breaks_an_answer_is_whole_or_an_error_and_nothing_is_left(
    lab_installed: Any,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    seed: int,
) -> None:
    rng = random.Random(seed)
    for field in attrs.fields(LabPlugin):
        monkeypatch.setattr(PLUGIN, field.name, getattr(LabPlugin(), field.name))
    m = Deployment(
        name="m",
        runtime="lab",
        retry=RetryPolicy(max_attempts=rng.choice([1, 3, 6])),
        on_cut=rng.choice([OnCut.ERROR, OnCut.RESTART_MATCH, OnCut.BUFFER]),
        serving=Serving(max_concurrency=8, routing=rng.choice(list(Routing))),
    )
    run_by = rng.choice(["b", "bc", "abc"])
    before = NODE.get()
    async with trio.open_nursery() as nursery:
        world = World(nursery, rng)
        for one, other in ("ab", "bc", "ac"):
            world.connect(one, other)
        async with (
            opened(world, "a", lab_installed, before),
            opened(world, "b", lab_installed, before),
            opened(world, "c", lab_installed, before),
        ):
            for name, tree in world.trees.items():
                NODE.set(world.nodes[name])
                if name in run_by:
                    PLUGIN.plan = [Typist(rng)]
                    await tree.deploy(m)
                else:
                    table = tree.table.with_deployment(m)
                    tree.publish(table, RoutingTable("m"))
            world.know()
            nursery.start_soon(world.cut_now_and_then)
            done: list[Collected | None] = []

            async def client(number: int) -> None:
                done.append(await ask(world, number, m.on_cut))

            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(client, number)
            world.is_calm = True
            with trio.move_on_after(60):
                while await world.held():  # noqa: ASYNC110 - it has no event
                    await trio.sleep(1)
            assert await world.held() == []
            nursery.cancel_scope.cancel()
            assert len(done) == CLIENTS
            assert sum(found is not None for found in done) > CLIENTS // 4
            assert world.cuts > 5
        NODE.set(before)
