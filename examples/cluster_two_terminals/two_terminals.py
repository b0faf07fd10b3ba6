"""What both terminals run; see README.md.

A node of a cluster, over mutual TLS on this machine.  One of the two has a greeter,
which both find by its name, and they count words together.
"""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import trio

from atomr.cluster import (
    ClusterOptions,
    ClusterService,
    PeerEvent,
    PeerUp,
    StaticSeeds,
    open_cluster,
)
from atomr.cluster.registry import ClusterRegistry
from atomr.cluster.remote import Messages, RemoteProcesses
from atomr.cluster.replicator import Replicator, ValueHandle
from atomr.crdt import GSet, PNCounter
from atomr.errors import CallError
from atomr.http2 import Credentials
from atomr.otp import ChildSpec, From, GenServer, Reply, Request, call, child
from atomr.process import open_node

ADDRESSES = {"a": "127.0.0.1:4371", "b": "127.0.0.1:4372"}
CERTS = Path("certs")
HELP = "a word: counts it; hi NAME: calls the greeter; ?: shows the counts"


@attrs.frozen
class Greet(Request[str]):
    """Ask the greeter for a greeting."""

    name: str


class Greeter(GenServer):
    """Greets whoever asks, from whichever node."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.greeted = 0

    def handle_call(self, request: Greet, from_: From) -> Reply:
        """Greet, and count."""
        self.greeted += 1
        return Reply(f"hello {request.name}, from {self.node}, no. {self.greeted}")


class Terminal:
    """One node, and what can be typed into its terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.remote = RemoteProcesses(Messages(Greet))
        self.replicator = Replicator()
        self.registry = ClusterRegistry(self.replicator, self.remote)
        self.words = self.replicator.open(GSet, "words")

    async def run(self, options: ClusterOptions) -> None:
        """Be a node until the input ends."""
        services: list[ClusterService] = [self.remote, self.replicator, self.registry]
        async with (
            open_node(self.name) as node,
            open_cluster(options, services) as cluster,
        ):
            if self.name == "a":
                await node.start(self.greeter())
            print(f"{self.name} is here; {HELP}", flush=True)
            with cluster.peers.watch(self.show_peer):
                async for line in trio.wrap_file(sys.stdin):
                    await self.obey(line)

    def greeter(self) -> ChildSpec:
        """Return how the greeter is started, with its name in the whole cluster."""
        name = self.registry.via("greeter")
        return child(lambda: Greeter(self.name), id="greeter", name=name)

    def show_peer(self, event: PeerEvent) -> None:
        """Say that the other node has come, or cannot be reached."""
        came = isinstance(event, PeerUp)
        print(f"{event.peer.name} is {'up' if came else 'gone'}", flush=True)

    async def obey(self, line: str) -> None:
        """Do what was typed."""
        match line.split():
            case ["hi", name]:
                print(await self.greet(name), flush=True)
            case ["?"]:
                print(self.counts(), flush=True)
            case [word]:
                self.count(word)
                print(self.counts(), flush=True)
            case _:
                print(HELP, flush=True)

    async def greet(self, name: str) -> str:
        """Call the greeter, on whichever node it is."""
        try:
            return await call(self.registry.via("greeter"), Greet(name))
        except CallError as error:
            return f"nobody greets: {error}"

    def count(self, word: str) -> None:
        """Count a word here, and soon everywhere."""
        self.words.write(lambda words: words.add(word))
        self.counter(word).write(lambda counter: counter.increment())

    def counter(self, word: str) -> ValueHandle[PNCounter]:
        """Return the counter of a word."""
        return self.replicator.open(PNCounter, f"count of {word}")

    def counts(self) -> str:
        """Return all words that were counted on any node, and how often."""
        words = sorted(str(word) for word in self.words.read().value)
        return ", ".join(f"{word} {self.counter(word).read().value}" for word in words)


def main(name: str) -> None:
    """Run a node; arguments are the folder of certificates, and both addresses."""
    folder, *addresses = [*sys.argv[1:], str(CERTS), *ADDRESSES.values()][:3]
    listen = dict(zip(ADDRESSES, addresses, strict=True))
    try:
        credentials = Credentials.load(
            ca_file=Path(folder, "ca.pem"),
            certificate_file=Path(folder, f"{name}.pem"),
            key_file=Path(folder, f"{name}.key"),
        )
    except ValueError as error:
        make = f"atomr-infer cluster certs --cluster demo --dir {folder} a b"
        sys.exit(f"{error}; make them: {make}")
    options = ClusterOptions(
        name=name,
        cluster="demo",
        cookie=b"not a secret, but it would be",
        credentials=credentials,
        listen=listen[name],
        discovery=[StaticSeeds(addresses)],
    )
    trio.run(Terminal(name).run, options)
