"""Answers that come before the request is read to its end, on real sockets."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    StreamCutError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.phases import HttpTimeouts

# More than the buffers of both sides hold together.
BIG = bytes(range(256)) * 80_000

TOO_LARGE = b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nhuge"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SLOW = HttpTimeouts(write_s=20.0, head_s=20.0, idle_s=20.0)


async def _read_all(stream: trio.abc.Stream, seen: bytearray) -> None:
    end = len(BIG)
    while (head := seen.find(b"\r\n\r\n", 0, 1000)) < 0 or len(seen) < head + 4 + end:
        more = await stream.receive_some(1_000_000)
        if not more:
            return
        seen += more


async def test_answer_of_a_peer_that_reads_no_further_is_not_lost(
    open_peer: Any,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(TOO_LARGE)
        await trio.sleep_forever()

    async with open_peer(serve) as peer, HttpClient(peer.base_url, timeouts=SLOW) as c:
        with trio.fail_after(10):
            async with c.request("POST", "/x", body=BIG) as answer:
                assert (answer.status, await answer.read()) == (413, b"huge")
        assert (c.active, c.idle) == (0, 0)


async def test_early_answer_in_pieces_behind_a_1xx_is_found(open_peer: Any) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\n" + TOO_LARGE[:20])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(TOO_LARGE[20:])
        await trio.sleep_forever()

    async with open_peer(serve) as peer, HttpClient(peer.base_url, timeouts=SLOW) as c:
        with trio.fail_after(10):
            async with c.request("POST", "/x", body=BIG) as answer:
                assert (answer.status, await answer.read()) == (413, b"huge")


async def test_big_body_arrives_unchanged_and_its_connection_is_kept(
    open_peer: Any,
) -> None:
    bodies: list[bool] = []

    async def serve(stream: trio.SocketStream) -> None:
        for _ in range(2):
            seen = bytearray()
            await _read_all(stream, seen)
            bodies.append(seen.partition(b"\r\n\r\n")[2] == BIG)
            await stream.send_all(OK)

    async with open_peer(serve) as peer, HttpClient(peer.base_url, timeouts=SLOW) as c:
        for _ in range(2):
            async with c.request("POST", "/x", body=BIG) as answer:
                assert await answer.read() == b"ok"
            assert c.idle == 1
        assert (bodies, peer.connections) == ([True, True], 1)


async def test_peer_that_ends_inside_the_request_cuts_the_exchange(
    open_peer: Any,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_eof()
        await trio.sleep_forever()

    async with open_peer(serve) as peer, HttpClient(peer.base_url, timeouts=SLOW) as c:
        with trio.fail_after(10), pytest.raises(StreamCutError) as caught:
            await c.request("POST", "/x", body=BIG).__aenter__()
        assert caught.value.code == "no_response"


async def test_early_answer_that_is_no_http_is_told(open_peer: Any) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(b"go away\r\n\r\n")
        await trio.sleep_forever()

    async with open_peer(serve) as peer, HttpClient(peer.base_url, timeouts=SLOW) as c:
        with trio.fail_after(10), pytest.raises(UpstreamProtocolError):
            await c.request("POST", "/x", body=BIG).__aenter__()


async def test_silent_peer_that_does_not_read_is_a_write_timeout(
    open_peer: Any,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    short = HttpTimeouts(write_s=0.2)
    async with open_peer(serve) as peer, HttpClient(peer.base_url, timeouts=short) as c:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await c.request("POST", "/x", body=BIG).__aenter__()
        assert caught.value.code == "write_timeout"
        assert (c.active, c.idle) == (0, 0)
