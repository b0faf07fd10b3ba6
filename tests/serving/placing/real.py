"""Nodes of a cluster in one loop, with gateways and real links, that come and go."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr_infer.cli.certificates import make_folder
from atomr_infer.cluster import Cluster
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.gateway.gateway import Gateway
from atomr_infer.model.secret import EnvSecret, Secret
from atomr_infer.serving.node import make_node
from tests.gateway.http import chat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.gateway.http import Answer

NAMES = ("a", "b", "c")
ADMIN = Secret("adm-0123456789")
WAIT_S = 30.0


@attrs.define(eq=False)
class Node:
    """One node that runs.

    Attributes:
        name: its name.
        cluster: what programs use.
        gateway: what clients use.
        address: where other nodes reach it.
    """

    name: str
    cluster: Cluster
    gateway: Gateway
    address: str
    scope: trio.CancelScope
    ended: trio.Event = attrs.field(factory=trio.Event)
    leaves: bool = False

    @property
    def is_ready(self) -> bool:
        """What ``/readyz`` says."""
        return self.cluster.readiness().ready and not self.leaves

    @property
    def port(self) -> int:
        return int(self.gateway.url.rsplit(":", 1)[1])

    def runs(self) -> dict[str, int]:
        """Replicas that serve here, by deployment."""
        found: dict[str, int] = {}
        for status in self.cluster.deployments():
            for share in status.shares:
                if share.node == self.name and share.serving:
                    found[status.name] = share.serving
        return found

    async def chat(self, **members: Any) -> Answer:
        return await chat(self.port, **members)


class Fleet:
    """Starts nodes, stops them in order, and kills them."""

    def __init__(self, folder: Path, nursery: trio.Nursery, **more: Any) -> None:
        make_folder(folder, cluster="dev", nodes=NAMES)
        self._folder = folder
        self._nursery = nursery
        self._more = more
        self.nodes: dict[str, Node] = {}

    async def start(self, name: str, **facts: Any) -> Node:
        """Start a node; it joins those that are there."""
        seeds = tuple(node.address for node in self.nodes.values())
        node: Node = await self._nursery.start(self._run, name, seeds, facts)
        self.nodes[name] = node
        opened = node.cluster
        await until(lambda: len(opened.orders.nodes()) >= len(self.nodes))
        return node

    async def stop(self, name: str) -> None:
        """Stop it as ``serve`` does: others take over, what runs may end."""
        node = self.nodes.pop(name)
        node.leaves = True
        with node.cluster.at_home():
            await node.cluster.orders.leave()
            await node.gateway.drain(10.0)
        node.scope.cancel()
        await node.ended.wait()

    async def kill(self, name: str) -> None:
        """End it without a word to the others, who see its links end."""
        node = self.nodes.pop(name)
        node.scope.cancel()
        await node.ended.wait()

    async def _run(
        self,
        name: str,
        seeds: tuple[str, ...],
        facts: dict[str, Any],
        *,
        task_status: trio.TaskStatus[Node],
    ) -> None:
        cluster = ClusterConfig(
            name="dev",
            voters=NAMES,
            cookie=EnvSecret("COOKIE"),
            ca=str(self._folder / "ca.pem"),
            certificate=str(self._folder / f"{name}.pem"),
            private_key=str(self._folder / f"{name}.key"),
            listen="127.0.0.1:0",
            seeds=seeds,
            **self._more,
        )
        environ = {"COOKIE": "a secret of all nodes"}
        with trio.CancelScope() as scope:
            node = make_node(NodeConfig(name=name, **facts), cluster, environ)
            node.is_starting = True  # as `serve` says of it until all is loaded
            async with Cluster.connect("inproc://n", environ={}, node=node) as opened:
                gateway = await opened.serve("127.0.0.1:0", admin_key=ADMIN)
                assert opened.address is not None
                made = Node(name, opened, gateway, opened.address, scope)
                task_status.started(made)
                while not opened.readiness().ready:  # noqa: ASYNC110 - as in `until`
                    await trio.sleep(0.02)
                node.is_starting = False
                await trio.sleep_forever()
        made.ended.set()


@asynccontextmanager
async def open_fleet(
    folder: Path, *names: str, replace_after_s: float = 60.0
) -> AsyncIterator[Fleet]:
    """Run nodes for the length of the block."""
    async with trio.open_nursery() as nursery:
        fleet = Fleet(folder, nursery, replace_after_s=replace_after_s)
        for name in names:
            await fleet.start(name)
        yield fleet
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait, in real time, for a state that has no event of its own."""
    with trio.move_on_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.02)
        return
    raise AssertionError(f"it does not come to that: {what}")
