"""What a call of a process on another node costs, beside a bare call of the same link.

    python tests/benchmarks/bench_remote.py [ROUNDS]

Two processes over loopback with mutual TLS, each a node of a cluster.  Prints medians
of interleaved rounds; the last column is the ratio to the bare link in the same run,
which can be compared between machines.  The bare service answers the same bytes: it
knows no processes, no mailboxes and no types.

CPU is that of one process, for each side.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import attrs
import msgspec
import trio

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

from atomr.cluster import (  # noqa: E402
    ClusterOptions,
    ClusterService,
    StaticSeeds,
    open_cluster,
)
from atomr.cluster.remote import Messages, RemoteProcesses, at  # noqa: E402
from atomr.cluster.remote.codec import Codec  # noqa: E402
from atomr.cluster.remote.frames import Frame, Send  # noqa: E402
from atomr.errors import LinkBusyError  # noqa: E402
from atomr.http2 import Credentials, Link, Service  # noqa: E402
from atomr.otp import GenServer, Reply, call, cast, child  # noqa: E402
from atomr.process import (  # noqa: E402
    demonitor,
    monitor,
    open_node,
    spawn,
    wait_exit,
)
from tests.benchmarks.bench_link import make_certificates  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from multiprocessing.connection import Connection

    from atomr.cluster import Peers
    from atomr.core.child_spec import ChildSpec
    from atomr.http2 import IncomingCall
    from atomr.process import From

CLUSTER = "bench"
COOKIE = b"a cookie that is no secret"
CALLS = 40_000
CASTS = 100_000
WATCHES = 20_000
DECODES = 200_000
BODY = b"x" * 180

Work: TypeAlias = "Callable[[], Awaitable[None]]"


@attrs.frozen
class Put:
    """What is sent: 187 bytes of it."""

    body: bytes


class Ask(msgspec.Struct, array_like=True):
    """The same for the bare service."""

    body: bytes


class Cpu(msgspec.Struct, array_like=True):
    """Asks the bare service for the CPU time of its process."""


MESSAGES = Messages(Put)


@attrs.frozen
class Figures:
    """What one bench found.

    Attributes:
        per_s: work in a second.
        here_us: CPU of this process for each piece of work.
        there_us: CPU of the other one.
    """

    per_s: float
    here_us: float
    there_us: float


class Lean(GenServer):
    """Answers at once, without a task."""

    def handle_call(self, request: Put, from_: From) -> Reply:
        return Reply(request.body)

    def handle_cast(self, message: Put) -> None:
        pass


class Async(GenServer):
    """Answers from a task."""

    async def handle_call(self, request: Put, from_: From) -> Reply:
        return Reply(request.body)


class Bare:
    """The service of the bare link, as a part of the cluster."""

    shares_life = False

    def services(self) -> Mapping[str, Service[Any]]:
        def called(incoming: IncomingCall, ask: Ask) -> None:
            incoming.reply(ask.body)

        def cpu(incoming: IncomingCall, _: Cpu) -> None:
            incoming.reply(time.process_time())

        return {
            "echo": Service(Ask, tell=lambda *_: None, call=called),
            "cpu": Service(Cpu, call=cpu),
        }

    def child(self, _: Peers) -> ChildSpec:
        return child(GenServer, id="bare")


def main() -> None:
    """Run all and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(Path(folder))
        with Other(folder) as other:
            trio.run(run, rounds, folder, other.address)


async def run(rounds: int, folder: str, address: str) -> None:
    """Run the benches in turn."""
    services: list[ClusterService] = [RemoteProcesses(MESSAGES), Bare()]
    async with (
        open_node("a"),
        open_cluster(options("a", folder, address), services) as cluster,
    ):
        await cluster.wait_for(2, timeout_s=10)
        (peer,) = cluster.peers.all()
        link = cluster.peers.link(peer)
        assert link is not None
        await wait_exit(spawn(run_all, rounds, link))


async def run_all(rounds: int, link: Link) -> None:
    lean, plain = at("b", "lean"), at("b", "async")

    def bare(in_flight: int, count: int) -> Work:
        return in_parallel(
            lambda: link.call("echo", Ask(BODY), returns=bytes), in_flight, count
        )

    def asked(server: Any, in_flight: int, count: int) -> Work:
        return in_parallel(lambda: call(server, Put(BODY)), in_flight, count)

    few = CALLS // 8
    benches: list[tuple[str, int, Work, Work]] = [
        ("call, 1 in flight", few, asked(lean, 1, few), bare(1, few)),
        ("call, 64 in flight", CALLS, asked(lean, 64, CALLS), bare(64, CALLS)),
        ("call async def, 64", CALLS, asked(plain, 64, CALLS), bare(64, CALLS)),
        ("cast, one way", CASTS, lambda: casts(lean, link), lambda: tells(link)),
        ("monitor, demonitor", WATCHES, lambda: watches(lean, link), bare(64, CALLS)),
    ]
    found: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name, *_ in benches}
    for _ in range(rounds):
        for name, count, work, floor in benches:
            per_floor = CALLS if name.startswith("monitor") else count
            pair = (
                await measured(link, work, count),
                await measured(link, floor, per_floor),
            )
            found[name].append(pair)
    heads = ("", "per s", "us here", "us there", "bare link", "us here", "us there")
    print("{:20} {:>8} {:>8} {:>8} {:>10} {:>8} {:>8} ratio".format(*heads))
    for name, pairs in found.items():
        show(name, pairs)
    show_codec()


def show(name: str, pairs: list[tuple[Figures, Figures]]) -> None:
    """Print the medians of one bench."""

    def median(pick: Callable[[Figures], float], which: int) -> float:
        return statistics.median(pick(pair[which]) for pair in pairs)

    ours = [
        median(pick, 0)
        for pick in (lambda f: f.per_s, lambda f: f.here_us, lambda f: f.there_us)
    ]
    bare = [
        median(pick, 1)
        for pick in (lambda f: f.per_s, lambda f: f.here_us, lambda f: f.there_us)
    ]
    print(
        f"{name:20} {ours[0]:8,.0f} {ours[1]:8.1f} {ours[2]:8.1f}"
        f" {bare[0]:10,.0f} {bare[1]:8.1f} {bare[2]:8.1f} {ours[0] / bare[0]:5.2f}x"
    )


def show_codec() -> None:
    """Print what a message costs to encode and to decode, without a link."""

    def none(_: object) -> Any:
        raise NotImplementedError("no pid is in it")

    codec = Codec(MESSAGES, form=none, pid=none)
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Frame)
    data = msgspec.msgpack.encode(Send(7, *codec.encode(Put(BODY))))

    def encode() -> None:
        msgspec.msgpack.encode(Send(7, *codec.encode(Put(BODY))))

    def decode() -> None:
        frame = decoder.decode(data)
        codec.decode(frame.tag, frame.body)

    for name, do in (("encode", encode), ("decode", decode)):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(DECODES // 5):
                do()
            times.append((time.perf_counter() - began) / (DECODES // 5) * 1e6)
        print(f"{name} a message of {len(data)} bytes: {min(times):.2f} us")


# --- the work -------------------------------------------------------------------------


def in_parallel(
    ask: Callable[[], Awaitable[object]], in_flight: int, count: int
) -> Work:
    async def some() -> None:
        for _ in range(count // in_flight):
            await ask()

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(in_flight):
                nursery.start_soon(some)

    return work


async def casts(server: Any, link: Link) -> None:
    message = Put(BODY)
    for number in range(CASTS):
        cast(server, message)
        if number % 64 == 0:
            await link.room()
    await call(server, message, timeout_s=60)


async def tells(link: Link) -> None:
    left = CASTS
    while left:
        try:
            link.tell("echo", Ask(BODY))
        except LinkBusyError:
            await link.room()
            continue
        left -= 1
    await link.call("echo", Ask(BODY), returns=bytes, timeout_s=60)


async def watches(server: Any, link: Link) -> None:
    for number in range(WATCHES):
        demonitor(monitor(server))
        if number % 64 == 0:
            await link.room()
    await call(server, Put(BODY), timeout_s=60)


async def measured(link: Link, work: Work, count: int) -> Figures:
    there = await link.call("cpu", Cpu(), returns=float)
    here, began = time.process_time(), time.perf_counter()
    await work()
    took = time.perf_counter() - began
    here = time.process_time() - here
    there = await link.call("cpu", Cpu(), returns=float) - there
    return Figures(count / took, here / count * 1e6, there / count * 1e6)


# --- the other process ----------------------------------------------------------------


class Other:
    """A process that is the other node.

    Attributes:
        address: where it listens.
    """

    def __init__(self, folder: str) -> None:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()
        self._process = fork.Process(
            target=trio.run, args=(serve, folder, theirs), daemon=True
        )
        self._ours = ours
        self.address = ""

    def __enter__(self) -> Self:
        self._process.start()
        self.address = self._ours.recv()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


async def serve(folder: str, ready: Connection) -> None:
    """Be the other node."""
    services: list[ClusterService] = [RemoteProcesses(MESSAGES), Bare()]
    async with (
        open_node("b") as node,
        open_cluster(options("b", folder), services) as cluster,
    ):
        await node.start(child(Lean, name="lean"))
        await node.start(child(Async, name="async"))
        ready.send(cluster.address)
        await trio.sleep_forever()


def options(node: str, folder: str, *seeds: str) -> ClusterOptions:
    credentials = Credentials.load(
        ca_file=f"{folder}/ca.pem",
        certificate_file=f"{folder}/{node}.pem",
        key_file=f"{folder}/{node}.key",
    )
    return ClusterOptions(
        name=node,
        cluster=CLUSTER,
        cookie=COOKIE,
        credentials=credentials,
        listen="127.0.0.1:0",
        discovery=[StaticSeeds(seeds)],
    )


if __name__ == "__main__":
    main()
