"""What a link between two nodes costs, beside a bare TCP connection.

    python tests/benchmarks/bench_link.py [ROUNDS]

Two processes over loopback.  Prints medians of interleaved rounds; the last column is
the ratio to bare TCP in the same run, which can be compared between machines.  The
bare peers parse nothing: they exchange the same number of bytes, without TLS, and
know no deadlines, no bounds and no cancellation.

CPU is that of the process alone, for each side.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import attrs
import msgspec
import trio

from atomr.crdt.origin import Origin
from atomr.errors import LinkBusyError
from atomr.http2 import (
    Credentials,
    Lane,
    Link,
    LinkOptions,
    Service,
    frames,
    open_links,
)

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from atomr.http2 import IncomingCall

CLUSTER = "bench"
COOKIE = b"a cookie that is no secret"
CALLS = 40_000
TELLS = 100_000
BULK_BYTES = 192 * 1024 * 1024
PIECE_BYTES = 65_536
IN_FLIGHT = 64
BODY = b"x" * 180
PROBES = 300

Bench: TypeAlias = Callable[[Link], Awaitable["Figures"]]


class Ask(msgspec.Struct, array_like=True):
    """A call, or one thing that is told."""

    body: bytes


class Cpu(msgspec.Struct, array_like=True):
    """Asks for the CPU time of the other process."""


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


def main() -> None:
    """Run all and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(Path(folder))
        with Other(serve_link, folder) as linked, Other(serve_bare, folder) as bare:
            trio.run(run, rounds, folder, linked.port, bare.port)


async def run(rounds: int, folder: str, linked: int, bare: int) -> None:
    """Run the benches in turn."""
    pairs: list[tuple[str, str, Bench, Callable[[int], Awaitable[Figures]]]] = [
        ("calls, 1 in flight", "", lambda link: calls(link, 1), lambda p: pings(p, 1)),
        (
            f"calls, {IN_FLIGHT} in flight",
            "",
            lambda link: calls(link, IN_FLIGHT),
            lambda p: pings(p, IN_FLIGHT),
        ),
        ("tells, one way", "", tells, writes),
        ("bulk, MB", "MB", bulk, bare_bulk),
    ]
    found: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name, *_ in pairs}
    waits: list[float] = []
    services: dict[str, Service[Any]] = {
        "pong": Service(Ask, tell=lambda *_: pongs.pop().set())
    }
    async with open_links(options("a", folder), services) as links:
        link = await links.dial("b", "127.0.0.1", linked)
        for _ in range(rounds):
            for name, _, bench, floor in pairs:
                found[name].append((await bench(link), await floor(bare)))
            waits.extend(await probes_under_bulk(link))
    heads = ("", "per s", "us here", "us there", "bare TCP")
    print("{:24} {:>10} {:>8} {:>9} {:>10} ratio".format(*heads))
    for name, pair in found.items():
        show(name, pair)
    waits.sort()
    at = [waits[len(waits) // 2], waits[int(len(waits) * 0.99)], waits[-1]]
    p50, p99, worst = (f"{wait * 1e3:.1f}" for wait in at)
    print(f"ctl round trip under bulk: p50 {p50} ms, p99 {p99} ms, worst {worst} ms")
    encode_us, decode_us = codec_us()
    codec = f"encode {encode_us:.2f}, decode {decode_us:.2f} us"
    print(f"a tell of {len(BODY)} bytes: {codec}")


def show(name: str, pairs: list[tuple[Figures, Figures]]) -> None:
    """Print the medians of one bench."""

    def median(pick: Callable[[Figures], float], which: int) -> float:
        return statistics.median(pick(pair[which]) for pair in pairs)

    per_s, floor = median(lambda f: f.per_s, 0), median(lambda f: f.per_s, 1)
    here, there = median(lambda f: f.here_us, 0), median(lambda f: f.there_us, 0)
    print(
        f"{name:24} {per_s:10,.0f} {here:8.1f} {there:9.1f} {floor:10,.0f}"
        f" {per_s / floor:5.2f}x"
    )


def codec_us(times: int = 100_000) -> tuple[float, float]:
    """Return what encoding and decoding one tell take, its body left as it is."""
    tell = frames.Tell("echo", frames.raw(Ask(BODY)))
    began = time.perf_counter()
    for _ in range(times):
        buffer = bytearray()
        frames.append(buffer, tell)
    encoded = time.perf_counter()
    message = bytes(buffer[4:])
    for _ in range(times):
        frames.decode(message)
    decoded = time.perf_counter()
    return (encoded - began) / times * 1e6, (decoded - encoded) / times * 1e6


# --- over a link -----------------------------------------------------------------


async def calls(link: Link, in_flight: int) -> Figures:
    count = CALLS if in_flight > 1 else CALLS // 8

    async def ask(times: int) -> None:
        for _ in range(times):
            await link.call("echo", Ask(BODY), returns=bytes)

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(in_flight):
                nursery.start_soon(ask, count // in_flight)

    return await measured(link, work, count)


async def tells(link: Link) -> Figures:
    async def work() -> None:
        left = TELLS
        while left:
            try:
                link.tell("echo", Ask(BODY))
            except LinkBusyError:
                await link.room()
                continue
            left -= 1
        await link.call("echo", Ask(BODY), returns=bytes, timeout_s=60)

    return await measured(link, work, TELLS)


async def bulk(link: Link) -> Figures:
    async def work() -> None:
        async with link.open_stream("sink", Ask(b"")) as stream:
            for _ in range(BULK_BYTES // PIECE_BYTES):
                await stream.send(bytes(PIECE_BYTES))
            stream.end()
            await stream.receive()

    return await measured(link, work, BULK_BYTES // 1_000_000)


async def probes_under_bulk(link: Link) -> list[float]:
    """Return how long calls on the link took while bulk fills it."""
    waits: list[float] = []
    async with trio.open_nursery() as nursery:

        async def fill() -> None:
            async with link.open_stream("sink", Ask(b"")) as stream:
                while True:
                    await stream.send(bytes(PIECE_BYTES))

        nursery.start_soon(fill)
        nursery.start_soon(fill)
        await trio.sleep(0.2)
        for _ in range(PROBES):
            began = trio.current_time()
            done = trio.Event()
            pongs.append(done)
            link.tell("echo", Ask(b"ping"), lane=Lane.CTL)
            await done.wait()
            waits.append(trio.current_time() - began)
        nursery.cancel_scope.cancel()
    return waits


pongs: list[trio.Event] = []


async def measured(
    link: Link, work: Callable[[], Awaitable[None]], count: int
) -> Figures:
    there = await link.call("cpu", Cpu(), returns=float)
    here, began = time.process_time(), time.perf_counter()
    await work()
    took = time.perf_counter() - began
    here = time.process_time() - here
    there = await link.call("cpu", Cpu(), returns=float) - there
    return Figures(count / took, here / count * 1e6, there / count * 1e6)


# --- over bare TCP ---------------------------------------------------------------


async def pings(port: int, in_flight: int) -> Figures:
    """Send as many at once as would be in flight, and read the same back."""
    count = CALLS // (1 if in_flight > 1 else 8)
    data = BODY * in_flight

    async def work(stream: trio.SocketStream) -> None:
        for _ in range(count // in_flight):
            await stream.send_all(data)
            left = len(data)
            while left:
                left -= len(await stream.receive_some(left))

    return await bare_measured(port, b"e", work, count)


async def writes(port: int) -> Figures:
    async def work(stream: trio.SocketStream) -> None:
        for _ in range(TELLS // IN_FLIGHT):
            await stream.send_all(BODY * IN_FLIGHT)
        await stream.send_eof()
        await stream.receive_some(1)

    return await bare_measured(port, b"s", work, TELLS)


async def bare_bulk(port: int) -> Figures:
    async def work(stream: trio.SocketStream) -> None:
        for _ in range(BULK_BYTES // PIECE_BYTES):
            await stream.send_all(bytes(PIECE_BYTES))
        await stream.send_eof()
        await stream.receive_some(1)

    return await bare_measured(port, b"s", work, BULK_BYTES // 1_000_000)


async def bare_measured(
    port: int,
    mode: bytes,
    work: Callable[[trio.SocketStream], Awaitable[None]],
    count: int,
) -> Figures:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(mode)
        here, began = time.process_time(), time.perf_counter()
        await work(stream)
        took = time.perf_counter() - began
        return Figures(count / took, (time.process_time() - here) / count * 1e6, 0.0)


# --- the other process -----------------------------------------------------------


class Other:
    """A process that serves one end.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, serve: Callable[..., Awaitable[None]], folder: str) -> None:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()
        self._process = fork.Process(
            target=trio.run, args=(serve, folder, theirs), daemon=True
        )
        self._ours = ours
        self.port = 0

    def __enter__(self) -> Self:
        self._process.start()
        self.port = self._ours.recv()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


async def serve_link(folder: str, ready: Connection) -> None:
    """Be the other node."""

    def told(link: Link, ask: Ask) -> None:
        if ask.body == b"ping":
            link.tell("pong", Ask(b""), lane=Lane.CTL)

    def called(call: IncomingCall, ask: Ask) -> None:
        call.reply(ask.body)

    def cpu(call: IncomingCall, _: Cpu) -> None:
        call.reply(time.process_time())

    async def sink(stream: Any, _: Ask) -> None:
        while await stream.receive() is not None:
            continue

    services: dict[str, Service[Any]] = {
        "echo": Service(Ask, tell=told, call=called),
        "cpu": Service(Cpu, call=cpu),
        "sink": Service(Ask, stream=sink),
    }
    async with open_links(options("b", folder), services) as links:
        ready.send(await links.listen("127.0.0.1", 0))
        await trio.sleep_forever()


async def serve_bare(_: str, ready: Connection) -> None:
    """Send back what comes, or take it and say when it is over."""

    async def serve(stream: trio.SocketStream) -> None:
        mode = await stream.receive_some(1)
        async for data in stream:
            if mode == b"e":
                await stream.send_all(data)
        if mode == b"s":
            await stream.send_all(b".")

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    ready.send(listener.socket.getsockname()[1])
    await trio.serve_listeners(serve, [listener])


def options(node: str, folder: str) -> LinkOptions:
    credentials = Credentials.load(
        ca_file=f"{folder}/ca.pem",
        certificate_file=f"{folder}/{node}.pem",
        key_file=f"{folder}/{node}.key",
    )
    return LinkOptions(CLUSTER, Origin(node, 1), COOKIE, credentials)


def make_certificates(folder: Path) -> None:
    """Make them with the command that users have."""
    command = [sys.executable, "-m", "atomr_infer.cli", "cluster", "certs"]
    subprocess.run(
        [*command, "--cluster", CLUSTER, "--dir", str(folder), "a", "b"],
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    main()
