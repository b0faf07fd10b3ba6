"""What an exchange with an upstream costs, beside a socket that does nothing else.

    python tests/benchmarks/bench_http_client.py [ROUNDS]

CPU per request of this process alone; the upstream is a process of its own.
Prints medians of interleaved rounds and the ratio to the loop over a bare trio
stream in the same run: the ratio is comparable between machines, the
microseconds are not.  The bare loops parse nothing, know no timeout and no pool.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self, TypeAlias

import h2.config
import h2.connection
import h2.events
import trio

from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.dialing.tls import verifying_context

Bench: TypeAlias = Callable[[], Awaitable[float]]

REQUESTS = 3_200
CHUNKS = 6_400
CONNECTIONS = 64

BODY = b'{"messages": [{"role": "user", "content": "' + b"x" * 500 + b'"}]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b"date: Fri, 27 Nov 2026 14:00:00 GMT\r\nx-request-id: 0123456789abcdef\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"b2\r\n" + b"x" * 178 + b"\r\n"
PATH = "/chat/completions"


def main() -> None:
    """Run all and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with (
        tempfile.TemporaryDirectory() as folder,
        Upstream(serve_http1) as plain,
        Upstream(serve_http2) as shared,
        Upstream(partial(serve_tls, certificate=make_certificate(folder))) as secure,
    ):
        trusting = verifying_context(ca_file=f"{folder}/cert.pem")
        benches: dict[str, Bench] = {
            "bare trio stream": lambda: bare(plain.port),
            "HTTP/1.1": lambda: exchanges(plain.port, http2="off"),
            "HTTP/1.1 over TLS": lambda: exchanges(
                secure.port, http2="off", context=trusting
            ),
            "HTTP/2, multiplexed": lambda: exchanges(
                shared.port, http2="prior-knowledge"
            ),
        }
        show("us per request", benches, rounds)
        benches = {
            "bare trio stream": lambda: bare_chunks(plain.port),
            "HTTP/1.1": lambda: chunks(plain.port),
        }
        show("us per chunk", benches, rounds)


def show(unit: str, benches: dict[str, Bench], rounds: int) -> None:
    """Run the benches in turn, and print their medians and ratios to the first."""
    found: dict[str, list[float]] = {name: [] for name in benches}
    for _ in range(rounds):
        for name, bench in benches.items():
            found[name].append(trio.run(bench))
    floor = statistics.median(next(iter(found.values())))
    for name, values in found.items():
        median = statistics.median(values)
        print(f"{name:24} {median:7.1f} {unit}  {median / floor:5.2f}x")


async def cpu_us(run: Callable[[int], Awaitable[None]], count: int) -> float:
    """Return CPU microseconds per piece of work, ``CONNECTIONS`` at a time."""
    began = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(run, count // CONNECTIONS)
    return (time.process_time() - began) / count * 1e6


async def bare(port: int) -> float:
    request = b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b"
    data = request % (PATH.encode(), len(BODY), BODY)

    async def run(count: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(count):
                await stream.send_all(data)
                await stream.receive_some(65536)

    return await cpu_us(run, REQUESTS)


async def exchanges(
    port: int, *, http2: str, context: ssl.SSLContext | None = None
) -> float:
    headers = [("content-type", "application/json"), ("authorization", "Bearer k")]
    scheme = "http" if context is None else "https"
    async with HttpClient(
        f"{scheme}://127.0.0.1:{port}/v1",
        headers=headers,
        http2=http2,
        ssl_context=context,
    ) as client:

        async def run(count: int) -> None:
            for _ in range(count):
                async with client.request("POST", PATH, body=BODY) as answer:
                    await answer.read()

        # The handshakes are not what is measured.
        await cpu_us(run, CONNECTIONS)
        return await cpu_us(run, REQUESTS)


async def bare_chunks(port: int) -> float:
    async def run(count: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /stream HTTP/1.1\r\nhost: h\r\n\r\n")
            left = len(STREAM) + count * len(CHUNK)
            while left:
                left -= len(await stream.receive_some(min(left, 65536)))

    return await cpu_us(run, CHUNKS)


async def chunks(port: int) -> float:
    async with HttpClient(f"http://127.0.0.1:{port}") as client:

        async def run(count: int) -> None:
            left = count * 178
            async with client.request("GET", "/stream") as answer:
                while left > 0:
                    left -= len(await answer.receive() or b"")

        return await cpu_us(run, CHUNKS)


class Upstream:
    """A server in a process of its own.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=serve, args=(self._listener,), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._listener.close()


def serve_http1(listener: socket.socket) -> None:
    """Answer each read with the whole answer; drip chunks on ``/stream``."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    streams: set[int] = set()
    while True:
        for number, _ in poll.poll(0.002 if streams else -1):
            if number == listener.fileno():
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            data = _received(peers[number])
            if data.startswith(b"GET /stream"):
                peers[number].sendall(STREAM)
                streams.add(number)
            elif data:
                peers[number].sendall(ANSWER)
            else:
                streams.discard(number)
                poll.unregister(number)
                peers.pop(number).close()
        for number in list(streams):
            if not _sent(peers[number], CHUNK):
                streams.discard(number)


def make_certificate(folder: str) -> tuple[str, str]:
    """Return the files of a certificate for 127.0.0.1, and of its key."""
    cert, key = f"{folder}/cert.pem", f"{folder}/key.pem"
    asked = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    named = "-days 2 -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    command = f"{asked} {named} -keyout {key} -out {cert}".split()
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def serve_tls(listener: socket.socket, *, certificate: tuple[str, str]) -> None:
    """Answer each read with the whole answer, a thread for each connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    def serve(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(peer, server_side=True) as tls:
            while _received(tls):
                tls.sendall(ANSWER)

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve, args=(peer,), daemon=True).start()


def serve_http2(listener: socket.socket) -> None:
    """Answer the requests of one connection after the other."""
    while True:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(client_side=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        connection.increment_flow_control_window(2**30)
        while data := _received(peer):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.StreamEnded) and event.stream_id:
                    connection.send_headers(event.stream_id, [(":status", "200")])
                    connection.send_data(event.stream_id, BODY, end_stream=True)
            peer.sendall(connection.data_to_send())
        peer.close()


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except ConnectionError:
        return b""


def _sent(peer: socket.socket, data: bytes) -> bool:
    try:
        peer.sendall(data)
    except ConnectionError:
        return False
    return True


if __name__ == "__main__":
    main()
