"""What replication costs: how soon others know, and how long it holds up the loop.

    python tests/benchmarks/bench_replicator.py

Three nodes of one cluster in processes of their own, over mutual TLS on loopback, all
parts on.  Propagation is from ``put`` on one node until a process on another one has
been told of the change, by the clock that processes of one machine share.  Beside it,
a bare ``tell`` over the same link in the same run: the ratio can be compared between
machines.

A stall is the CPU time that the loop's thread spends between two looks of a task that
wants to run each millisecond: what the machine's other processes take is not in it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import msgspec
import trio

from atomr.cluster import ClusterOptions, StaticSeeds, open_cluster
from atomr.cluster.replicator import Changed, Replicator
from atomr.http2 import Credentials, Service
from atomr.otp import GenServer, child
from atomr.process import open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from multiprocessing.connection import Connection

    from atomr.cluster import ClusterService, Peers
    from atomr.cluster.replicator.changes import Told
    from atomr.core.child_spec import ChildSpec

CLUSTER = "bench"
NAMES = ("a", "b", "c")
PORTS = {"a": 17_471, "b": 17_472, "c": 17_473}
PUTS = 500
KEYS = 100_000
EVENTS_PER_S = 500
STEADY_S = 10.0
PUTS_AT_ONCE = 10


class Stamp(msgspec.Struct, array_like=True):
    """When something was told."""

    at_ns: int


@attrs.define
class Figures:
    """What a node found.

    Attributes:
        changes_ms: from each put to the change here.
        tells_ms: from each tell to its arrival here.
        stalls_ms: between two looks, CPU of the loop's thread.
    """

    changes_ms: list[float] = attrs.Factory(list)
    tells_ms: list[float] = attrs.Factory(list)
    stalls_ms: list[float] = attrs.Factory(list)


class Pings:
    """A service that notes how long a tell took."""

    shares_life: ClassVar[bool] = False

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def services(self) -> Mapping[str, Service[Any]]:
        return {"pings": Service(Stamp, tell=self._told)}

    def child(self, peers: Peers) -> ChildSpec:
        return child(GenServer, id="pings")

    def _told(self, _: object, stamp: Stamp) -> None:
        self._figures.tells_ms.append(since_ms(stamp.at_ns))


def since_ms(at_ns: int) -> float:
    """Return how long ago something was, by the clock of the machine."""
    return (time.monotonic_ns() - at_ns) / 1e6


@asynccontextmanager
async def member(
    name: str, folder: str, replicator: Replicator, figures: Figures
) -> AsyncIterator[Peers]:
    """Be a node of the cluster, and wait for the others."""
    credentials = Credentials.load(
        ca_file=f"{folder}/ca.pem",
        certificate_file=f"{folder}/{name}.pem",
        key_file=f"{folder}/{name}.key",
    )
    seeds = [f"127.0.0.1:{port}" for port in PORTS.values()]
    options = ClusterOptions(
        name=name,
        cluster=CLUSTER,
        cookie=b"a cookie that is no secret",
        credentials=credentials,
        listen=f"127.0.0.1:{PORTS[name]}",
        discovery=(StaticSeeds(seeds),),
    )
    services: list[ClusterService] = [replicator, Pings(figures)]
    async with open_node(name), open_cluster(options, services) as cluster:
        await cluster.wait_for(len(NAMES), timeout_s=30.0)
        yield cluster.peers


async def begin_anew(figures: Figures) -> None:
    """Forget what was found, and what the collection took that makes it comparable."""
    gc.collect()
    gc.freeze()
    await trio.sleep(0.01)
    figures.stalls_ms.clear()


async def watch_stalls(figures: Figures) -> None:
    """Note how long others kept the loop, again and again."""
    while True:
        before_s = time.thread_time()
        await trio.sleep(0.001)
        figures.stalls_ms.append((time.thread_time() - before_s) * 1e3)


async def other(name: str, folder: str, ours: Connection) -> None:
    """Be one of the two that are told."""
    figures, replicator = Figures(), Replicator()

    def changed(told: Told) -> None:
        if isinstance(told, Changed) and isinstance(told.new, int):
            figures.changes_ms.append(since_ms(told.new))

    async with (
        member(name, folder, replicator, figures),
        trio.open_nursery() as nursery,
    ):
        replicator.open_map("stamps").watch(changed)
        gc.freeze()
        nursery.start_soon(watch_stalls, figures)
        ours.send("ready")
        while True:
            command = await trio.to_thread.run_sync(ours.recv)
            if command == "reset":
                await begin_anew(figures)
                ours.send("ready")
            elif command == "count":
                ours.send(len(replicator.open_map("keys")))
            else:
                ours.send(figures)


class Others:
    """The other nodes, as the first one asks them."""

    def __init__(self, connections: dict[str, Connection]) -> None:
        self._connections = connections
        self.names = tuple(connections)

    async def wait(self) -> None:
        """Wait until they are there."""
        for connection in self._connections.values():
            await trio.to_thread.run_sync(connection.recv)

    async def ask(self, command: str) -> list[Any]:
        """Return what each answers."""
        answers = []
        for connection in self._connections.values():
            connection.send(command)
            answers.append(await trio.to_thread.run_sync(connection.recv))
        return answers


async def first(folder: str, connections: dict[str, Connection]) -> None:
    """Be the one that writes, and print what came of it."""
    figures, replicator, others = Figures(), Replicator(), Others(connections)
    async with (
        member("a", folder, replicator, figures) as peers,
        trio.open_nursery() as nursery,
    ):
        await others.wait()
        await trio.sleep(1.0)
        await propagation(replicator, peers, others)
        nursery.start_soon(watch_stalls, figures)
        await load(replicator, others)
        await stalls("as they come", figures, others)
        await steady(replicator)
        await stalls(f"{EVENTS_PER_S} events/s", figures, others)
        await snapshots(replicator)
        await stalls("snapshots", figures, others)
        nursery.cancel_scope.cancel()


async def propagation(replicator: Replicator, peers: Peers, others: Others) -> None:
    """Put and tell in turn, slowly."""
    stamps = replicator.open_map("stamps")
    for number in range(PUTS):
        stamps.put(number % 50, time.monotonic_ns())
        await trio.sleep(0.01)
        for peer in peers.all():
            peers.tell(peer, "pings", Stamp(time.monotonic_ns()))
        await trio.sleep(0.01)
    await trio.sleep(0.5)
    found = await others.ask("figures")
    changes = sorted(ms for one in found for ms in one.changes_ms)
    tells = sorted(ms for one in found for ms in one.tells_ms)
    show("ms from put to told", changes)
    show("ms of a bare tell", tells)
    ratio = statistics.median(changes) / statistics.median(tells)
    print(f"{'ratio of the medians':32} {ratio:10.1f}")


async def load(replicator: Replicator, others: Others) -> None:
    """Put many keys, and wait until all know them."""
    keys, began_s = replicator.open_map("keys"), time.monotonic()
    await others.ask("reset")
    for number in range(KEYS):
        keys.put(number, {"port": number, "host": "10.0.0.1"})
        if number % PUTS_AT_ONCE == 0:
            await trio.sleep(0.0)
    put_s = time.monotonic() - began_s
    while set(await others.ask("count")) != {KEYS}:  # noqa: ASYNC110 - in others
        await trio.sleep(0.05)
    known_s = time.monotonic() - began_s
    print(f"{KEYS} keys were put in {put_s:.1f} s, and known after {known_s:.1f} s")


async def steady(replicator: Replicator) -> None:
    """Overwrite some of them, at a rate."""
    keys, number = replicator.open_map("keys"), 0
    end_s = trio.current_time() + STEADY_S
    while trio.current_time() < end_s:
        keys.put(number % KEYS, number)
        number += 7
        await trio.sleep(1.0 / EVENTS_PER_S)


async def snapshots(replicator: Replicator) -> None:
    """Let the others fetch all of it again, shard by shard."""
    core = replicator.running().core
    for shard in core.shards:
        for peer in list(shard.nodes):
            effects = shard.machine._offer(peer, trio.current_time())
            core._perform(shard, effects, trio.current_time())
            replicator.running().act()
            await trio.sleep(0.02)
    await trio.sleep(2.0)


async def stalls(what: str, figures: Figures, others: Others) -> None:
    """Print what all nodes found, and begin anew."""
    found = [figures, *(await others.ask("figures"))]
    for name, one in zip(("a", *others.names), found, strict=True):
        show(f"ms of a stall, {what}, {name}", sorted(one.stalls_ms))
    await begin_anew(figures)
    await others.ask("reset")


def show(what: str, found: list[float]) -> None:
    """Print percentiles."""
    p50, p99, p999 = (found[int(len(found) * part)] for part in (0.5, 0.99, 0.999))
    print(
        f"{what:32} p50 {p50:6.2f}  p99 {p99:6.2f}  p99.9 {p999:6.2f}"
        f"  worst {found[-1]:6.2f}  n {len(found)}"
    )


def main() -> None:
    """Run three nodes."""
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "atomr_infer.cli", "cluster", "certs"]
        subprocess.run(
            [*command, "--cluster", CLUSTER, "--dir", folder, *NAMES],
            check=True,
            capture_output=True,
        )
        others: dict[str, Connection] = {}
        pids: list[int] = []
        for name in NAMES[1:]:
            ours, theirs = fork.Pipe()
            process = fork.Process(
                target=trio.run, args=(other, name, folder, theirs), daemon=True
            )
            process.start()
            assert process.pid is not None
            pids.append(process.pid)
            others[name] = ours
        try:
            trio.run(first, folder, others)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
