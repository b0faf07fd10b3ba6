"""A cancelled exchange is over for the upstream at once, in each phase.

On real sockets, and asserted where the upstream stands.  Time stands still from the
moment of the cancellation on, so that anything which waits for a timer fails.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.remote.http.client import HttpClient
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    from trio.testing import MockClock

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

# More than the buffers of both sides hold together.
BIG = bytes(20_000_000)


@attrs.define
class Upstream:
    """Reads and answers as told, and notes when its peer went."""

    reads_bytes: float
    answer: bytes
    reached: trio.Event = attrs.field(factory=trio.Event)
    left: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.abc.Stream) -> None:
        seen = 0
        while seen < self.reads_bytes:
            seen += len(await stream.receive_some(1000))
        if self.answer:
            await stream.send_all(self.answer)
        self.reached.set()
        try:
            while await stream.receive_some(1_000_000):
                pass
        except trio.BrokenResourceError:
            # A reset: the peer closed with bytes of ours unread.
            pass
        self.left.set()


async def _read(client: HttpClient, body: bytes) -> None:
    async with client.request("POST", "/", body=body) as answer:
        await answer.read()


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    mock_clock.rate = 1.0
    return mock_clock


async def _cancel_when(
    upstream: Upstream, client: HttpClient, body: bytes, clock: MockClock
) -> str:
    """Wait until the upstream has seen it, and return the client's state."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, client, body)
        await upstream.reached.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        stand_still(clock)
        nursery.cancel_scope.cancel()
    state = repr(client).partition(": ")[2]
    await at_once(upstream.left.is_set, clock)
    clock.rate = 1.0
    return state


PHASES = [
    pytest.param(1, b"", BIG, id="write"),
    pytest.param(20, b"", b"{}", id="head"),
    pytest.param(20, HEAD[:20], b"{}", id="inside the head"),
    pytest.param(20, HEAD, b"{}", id="body"),
    pytest.param(20, HEAD + b"half", b"{}", id="inside the body"),
    pytest.param(20, CHUNKED + b"4\r\nhalf\r\n", b"{}", id="between chunks"),
]


@pytest.mark.parametrize(("reads_bytes", "answer", "body"), PHASES)
async def test_upstream_sees_the_end_of_a_cancelled_exchange(
    open_peer: Any, clock: MockClock, reads_bytes: int, answer: bytes, body: bytes
) -> None:
    upstream = Upstream(reads_bytes, answer)
    async with (
        open_peer(upstream.serve) as peer,
        HttpClient(peer.base_url, max_connections=7) as client,
    ):
        state = await _cancel_when(upstream, client, body, clock)
    assert state == "0 active, 0 idle, 0 of 7 connections, 0 waiting>"


@pytest.mark.parametrize(("reads_bytes", "answer", "body"), PHASES)
async def test_upstream_sees_the_end_of_a_cancelled_exchange_over_tls(
    open_peer: Any,
    certificates: Any,
    clock: MockClock,
    reads_bytes: int,
    answer: bytes,
    body: bytes,
) -> None:
    upstream = Upstream(reads_bytes, answer)
    ours = certificates.server("good")

    async def serve(stream: trio.SocketStream) -> None:
        await upstream.serve(
            trio.SSLStream(stream, ours, server_side=True, https_compatible=True)
        )

    theirs = ssl.create_default_context(cafile=certificates.authority)
    async with open_peer(serve) as peer:
        url = peer.base_url.replace("http:", "https:")
        async with HttpClient(url, ssl_context=theirs, max_connections=7) as client:
            state = await _cancel_when(upstream, client, body, clock)
    assert state == "0 active, 0 idle, 0 of 7 connections, 0 waiting>"


async def test_upstream_sees_the_end_of_a_handshake_that_is_cancelled(
    open_peer: Any, clock: MockClock
) -> None:
    upstream = Upstream(1, b"")
    async with open_peer(upstream.serve) as peer:
        url = peer.base_url.replace("http:", "https:")
        async with HttpClient(url, max_connections=7) as client:
            state = await _cancel_when(upstream, client, b"{}", clock)
    assert state == "0 active, 0 idle, 0 of 7 connections, 0 waiting>"
