"""Several serving trees in one event loop, with real links between their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.cluster import ClusterOptions, StaticSeeds
from atomr.http2 import Credentials, Reason
from atomr.otp import which_children
from atomr.process import Node, current_node
from atomr.process.context import NODE
from atomr_infer.cli.certificates import make_folder
from atomr_infer.config.node import NodeConfig
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.replicas.routing_table import RoutingTable
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.shared import Serving
from tests.serving.conftest import Collected
from tests.serving.lab import LabPlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from atomr.http2 import Link
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import ModelRunner

COOKIE = b"a cookie of nodes that answer for each other"


@attrs.define(eq=False)
class FarTree:
    """One node with its serving tree.

    Attributes:
        name: the node's.
        serving: the tree.
        node: of processes.
        lab: the runtime of all nodes.
    """

    name: str
    serving: Serving
    node: Node
    lab: LabPlugin
    _numbers: Iterator[int] = attrs.field(factory=count)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Let the block run on this node."""
        token = NODE.set(self.node)
        try:
            yield
        finally:
            NODE.reset(token)

    async def deploy(self, deployment: Deployment, *runners: ModelRunner) -> None:
        """Run a deployment here, with these runners."""
        self.lab.plan = list(runners)
        with self.here():
            await self.serving.deploy(deployment)

    def know(self, deployment: Deployment) -> None:
        """Serve a deployment that other nodes run."""
        table = self.serving.table.with_deployment(deployment)
        self.serving.publish(table, RoutingTable(deployment.name))

    async def ask(
        self, text: str = "one two", *, sink: Collected | None = None, **more: Any
    ) -> Collected:
        """Ask here, in the ordinary way."""
        sink = Collected() if sink is None else sink
        batch = ExecuteBatch(
            request_id=f"{self.name}-{next(self._numbers)}",
            model=more.pop("model", "m"),
            messages=(Message(Role.USER, text),),
            **more,
        )
        with self.here():
            sink.result = await run_request(self.serving, batch, sink)
        return sink

    async def requests(self) -> list[str]:
        """The requests that run here, of this node's clients or another's."""
        with self.here():
            return [str(child.id) for child in await which_children(REQUESTS)]

    async def sees(self, replicas: int, deployment: str = "m") -> None:
        """Wait until so many replicas of other nodes can be asked."""
        far = self.serving.far_replicas
        await until(
            lambda: sum(r.ready for r in far.get(deployment, ())) == replicas,
            f"{self.name} sees {far}",
        )

    def link(self, other: FarTree) -> Link:
        """The link with another node."""
        peer = self.serving.node.peers.get(other.name)
        assert peer is not None
        link = self.serving.node.peers.link(peer)
        assert link is not None
        return link

    def cut(self, other: FarTree) -> None:
        """End the link with another node; it comes up again by itself."""
        self.link(other).end(Reason.BROKEN, "the test cuts it")


async def until(condition: Any, what: str = "", within_s: float = 30.0) -> None:
    """Wait, a moment of real time, for a state that has no event of its own."""
    with trio.move_on_after(within_s):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.005)
        return
    raise AssertionError(f"it does not come to that: {what}")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    make_folder(folder, cluster="far", nodes=("a", "b", "c"))
    return folder


def _options(folder: Path, name: str, seeds: Iterable[str]) -> ClusterOptions:
    return ClusterOptions(
        name=name,
        cluster="far",
        cookie=COOKIE,
        credentials=Credentials.load(
            ca_file=folder / "ca.pem",
            certificate_file=folder / f"{name}.pem",
            key_file=folder / f"{name}.key",
        ),
        listen="127.0.0.1:0",
        discovery=[StaticSeeds(tuple(seeds))],
    )


@asynccontextmanager
async def open_far_nodes(
    folder: Path, lab: LabPlugin, installed: Any, names: Iterable[str]
) -> AsyncIterator[list[FarTree]]:
    """Open nodes that all know each other."""
    seeds: list[str] = []
    trees: list[FarTree] = []
    before = NODE.get()
    async with AsyncExitStack() as stack:
        for name in names:
            node = ServingNode(NodeConfig(name=name), _options(folder, name, seeds))
            opened = open_serving(environ={}, installed=installed, node=node)
            serving = await stack.enter_async_context(opened)
            assert node.cluster is not None
            seeds.append(node.cluster.address)
            trees.append(FarTree(name, serving, current_node(), lab))
            stack.callback(NODE.set, trees[-1].node)
            NODE.set(before)
        for tree in trees:
            assert tree.serving.node.cluster is not None
            await tree.serving.node.cluster.wait_for(len(trees), timeout_s=30.0)
        yield trees
