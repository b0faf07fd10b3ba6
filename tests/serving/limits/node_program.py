"""A node with a serving tree in a process of its own, which is asked all the time.

    python -m tests.serving.limits.node_program CONFIG

Prints a line of JSON each half second: what its clients asked, and got.  It ends when
its standard input does, so it does not outlive whoever started it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr.cluster import ClusterOptions, StaticSeeds
from atomr.cluster.permits import FIRST
from atomr.http2 import Credentials
from atomr_infer.config.node import NodeConfig
from atomr_infer.errors import DeadlineError, InferenceError, RateLimitedError
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.rate_limits import LimitMode, RateLimits
from atomr_infer.model.secret import Secret
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.requests.request import run_request

if TYPE_CHECKING:
    from atomr_infer.model.batch import RawChunk, TokenChunk
    from atomr_infer.serving.requests.served import Served
    from atomr_infer.serving.shared import Serving as Tree

COOKIE = b"a cookie of nodes that share limits"
CLUSTER = "limits"
TICK_S = 0.02


@attrs.frozen
class Config:
    """What a node is told at its start.

    Attributes:
        name: of the node.
        folder: of the certificates.
        listen: host and port.
        advertise: where others reach it.
        seeds: addresses of others.
        voters: all nodes.
        endpoint: of the provider.
        requests_per_minute: its limit.
        tokens_per_minute: likewise.
        window_s: the limits' window.
        is_first: whether no node of this name has run before.
        mode: how nodes keep them.
        offered_per_s: how many requests come to this node each second.
        patience_s: how long each waits.
    """

    name: str
    folder: str
    listen: str
    advertise: str
    seeds: list[str]
    voters: list[str]
    endpoint: str
    requests_per_minute: int
    tokens_per_minute: int
    window_s: float
    is_first: bool = True
    mode: str = "escrow"
    offered_per_s: int = 60
    patience_s: float = 2.0


class Nowhere:
    """A sink for answers that nobody reads."""

    async def begin(self, served: Served) -> None:
        """Take nothing."""

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        """Take nothing."""


class Program:
    """What the node does."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.numbers = 0

    async def run(self) -> None:
        """Serve until standard input ends."""
        async with open_serving(environ={}, node=self.node()) as tree:
            if self.config.is_first:
                tree.limits.announced.past = FIRST
            await tree.deploy(self.deployment())
            self.say("open")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.offer, tree, nursery)
                nursery.start_soon(self.report, tree)
                stdin = trio.lowlevel.FdStream(0)
                while await stdin.receive_some():
                    pass
                nursery.cancel_scope.cancel()

    def node(self) -> ServingNode:
        config = self.config
        folder = Path(config.folder)
        node = ServingNode(
            NodeConfig(name=config.name),
            ClusterOptions(
                name=config.name,
                cluster=CLUSTER,
                cookie=COOKIE,
                credentials=Credentials.load(
                    ca_file=folder / "ca.pem",
                    certificate_file=folder / f"{config.name}.pem",
                    key_file=folder / f"{config.name}.key",
                ),
                listen=config.listen,
                advertise=config.advertise,
                discovery=[StaticSeeds(config.seeds)],
            ),
        )
        node.voters = tuple(config.voters)
        return node

    def deployment(self) -> Deployment:
        config = self.config
        return Deployment(
            name="m",
            runtime="openai",
            model="fake-model",
            credential=Secret("sk-one-key-for-all"),
            options={"endpoint": config.endpoint},
            retry=RetryPolicy(max_attempts=1),
            serving=Serving(max_concurrency=1000),
            rate_limits=RateLimits(
                requests_per_minute=config.requests_per_minute,
                tokens_per_minute=config.tokens_per_minute,
                window_s=config.window_s,
                mode=LimitMode(config.mode),
            ),
        )

    async def offer(self, tree: Tree, nursery: trio.Nursery) -> None:
        """Ask as often as is wanted, however long answers take."""
        began_s, offered = trio.current_time(), 0
        while True:
            due = int((trio.current_time() - began_s) * self.config.offered_per_s)
            for _ in range(min(due - offered, self.config.offered_per_s)):
                nursery.start_soon(self.ask, tree)
            offered = due
            await trio.sleep(TICK_S)

    async def ask(self, tree: Tree) -> None:
        self.numbers += 1
        self.counts["offered"] += 1
        batch = ExecuteBatch(
            request_id=f"{self.config.name}-{self.numbers}",
            model="m",
            messages=(Message(Role.USER, "How are you?"),),
            sampling=Sampling(max_tokens=20),
            stream=False,
            timeout_s=self.config.patience_s,
        )
        try:
            served = await run_request(tree, batch, Nowhere())
        except RateLimitedError as error:
            kind = "refused" if error.status is None else "provider 429"
            self.counts[kind] += 1
        except DeadlineError:
            self.counts["late"] += 1
        except InferenceError as error:
            self.counts[f"failed: {error}"] += 1
        else:
            self.counts["answered"] += 1
            self.counts["tokens"] += served.spent[0].usage.total_tokens

    async def report(self, tree: Tree) -> None:
        while True:
            await trio.sleep(0.5)
            peers = [peer.name for peer in tree.node.peers.all()]
            shown = {each.counts: each.used for each in tree.limits.shown()}
            self.say("counts", counts=dict(self.counts), peers=peers, used=shown)

    def say(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}) + "\n"
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(Program(Config(**json.loads(sys.argv[1]))).run)
