"""A node with a gateway in a process of its own, as tests and benchmarks start it.

    python -m tests.serving.far.node_program CONFIG

Says where it listens, and answers each line on its standard input with what it holds.
It ends when that does, so it does not outlive whoever started it; one that is
``unasked`` runs until it is killed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from atomr.cluster import ClusterOptions, StaticSeeds
from atomr.cluster.permits import FIRST
from atomr.http2 import Credentials
from atomr.otp import which_children
from atomr.process import current_node
from atomr_infer.cluster import Cluster
from atomr_infer.config.node import NodeConfig
from atomr_infer.model.budget import Budget, Per
from atomr_infer.model.deployment import Deployment, Jitter, RetryPolicy, Serving
from atomr_infer.model.failover import OnCut
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.secret import Secret
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.replicas.routing_table import RoutingTable

COOKIE = b"a cookie of nodes that answer for each other"
CLUSTER = "far"
WIDE = RateLimits(requests_per_minute=60_000, tokens_per_minute=6_000_000, window_s=1.0)


@attrs.frozen(kw_only=True)
class Model:
    """A deployment that asks a fake upstream.

    Attributes:
        runtime: which provider's.
        model: as it calls it.
        endpoint: where it listens.
        runs: whether it runs on this node, or others run it.
        max_concurrency: of its replica.
        on_cut: see there.
        attempts: at most so many.
        limited: whether it has rate limits and a budget, which are wide.
    """

    runtime: str
    model: str | None
    endpoint: str
    runs: bool
    max_concurrency: int = 64
    on_cut: str = "error"
    attempts: int = 3
    limited: bool = False

    def deployment(self) -> Deployment:
        """Return it."""
        return Deployment(
            name="m",
            runtime=self.runtime,
            model=self.model,
            credential=Secret("a-key-of-ours"),
            options={"endpoint": self.endpoint},
            serving=Serving(max_concurrency=self.max_concurrency),
            on_cut=OnCut(self.on_cut),
            retry=RetryPolicy(
                max_attempts=self.attempts, backoff_s=0.05, jitter=Jitter.NONE
            ),
            rate_limits=WIDE if self.limited else None,
            budget=(Budget(per=Per.DAY, usd="1000"),) if self.limited else (),
            price=Price(rates=Rates(input=1, output=10)) if self.limited else None,
        )


def options(folder: Path, name: str, seeds: list[str]) -> ClusterOptions:
    """Return how a node finds the others."""
    return ClusterOptions(
        name=name,
        cluster=CLUSTER,
        cookie=COOKIE,
        credentials=Credentials.load(
            ca_file=folder / "ca.pem",
            certificate_file=folder / f"{name}.pem",
            key_file=folder / f"{name}.key",
        ),
        listen="127.0.0.1:0",
        discovery=[StaticSeeds(tuple(seeds))],
    )


async def held(cluster: Cluster, node: ServingNode) -> dict[str, Any]:
    """Return all that the node holds now."""
    serving = cluster._serving
    links = [node.peers.link(peer) for peer in node.peers.all()]
    with cluster.at_home():
        processes = len(current_node().processes)
        requests = [str(child.id) for child in await which_children(REQUESTS)]
    limits = serving.limits.service
    return {
        "processes": processes,
        "sockets": _sockets(),
        "waiting": sum(limits.state(each.name).waiting for each in limits.limits),
        "used": sum(limits.state(each.name).used for each in limits.limits),
        "reserved": sum(each.reserved for each in serving.budgets.service.states()),
        "replicas": [
            [replica.phase.value, replica.outstanding, replica.tokens]
            for replica in serving.replicas("m")
        ],
        "far": [
            [far.label, far.ready, far.outstanding]
            for far in serving.far_replicas.get("m", ())
        ],
        "requests": requests,
        "streams": sum(len(link.dispatch.streams) for link in links if link),
        "peers": len(links),
        "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _sockets() -> int:
    """Return how many the process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # it was what lists them
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


async def main(config: dict[str, Any]) -> None:
    """Be a node until the standard input ends."""
    name, folder = config["name"], Path(config["folder"])
    node = ServingNode(NodeConfig(name=name), options(folder, name, config["seeds"]))
    model = Model(**config["model"])
    if model.limited:
        node.voters = ("b", "c")
    async with Cluster.connect("inproc://far", environ={}, node=node) as cluster:
        cluster._serving.limits.announced.past = FIRST
        assert node.cluster is not None
        if model.runs:
            with cluster.at_home():
                await cluster._serving.deploy(model.deployment())
        else:
            serving = cluster._serving
            table = serving.table.with_deployment(model.deployment())
            serving.publish(table, RoutingTable("m"))
        gateway = await cluster.serve("127.0.0.1:0")
        say({"url": gateway.url, "address": node.cluster.address})
        if config.get("unasked"):
            await trio.sleep_forever()
        lines = trio.wrap_file(sys.stdin)
        while await lines.readline():
            say(await held(cluster, node))


def say(told: dict[str, Any]) -> None:
    """Tell whoever started this."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
