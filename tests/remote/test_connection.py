"""One HTTP/1.1 connection over a pair of real sockets."""

from __future__ import annotations

import math
import socket

import pytest
import trio

from atomr_infer.remote.http.connection import Http1Connection, UntouchedError
from atomr_infer.remote.http.exchange import Call
from atomr_infer.remote.http.http1 import PeerClosedError
from atomr_infer.remote.http.origin import Origin
from atomr_infer.remote.http.phases import HttpTimeouts
from atomr_infer.remote.http.pipe import open_pipe
from atomr_infer.remote.http.watchdog import Watchdog

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def _pair() -> tuple[Http1Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    origin = Origin("http", "h", 80)
    return Http1Connection(
        open_pipe(stream), origin=origin, watchdog=Watchdog()
    ), theirs


def _call(body: bytes = b"") -> Call:
    return Call(
        method="GET",
        path="/",
        headers=(),
        body=body,
        head=b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",
        replay=False,
        timeouts=HttpTimeouts(),
        total_at=math.inf,
    )


async def test_kept_connection_on_which_nothing_can_be_written_is_untouched() -> None:
    connection, peer = _pair()
    peer.sendall(OK)
    await connection.ask(_call())
    assert [await connection.receive(), await connection.receive()] == [b"ok", None]
    assert connection.recycle()
    assert not connection.is_stale()
    peer.close()
    assert connection.is_stale()
    with pytest.raises(UntouchedError):
        await connection.ask(_call())
    await connection.close()


async def test_fresh_connection_on_which_nothing_can_be_written_is_lost() -> None:
    connection, peer = _pair()
    peer.close()
    with pytest.raises(PeerClosedError):
        await connection.ask(_call())
    await connection.close()


async def test_end_of_a_stream_that_is_here_already_is_read_at_the_end() -> None:
    connection, peer = _pair()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    for rest, kept in [(b"\r\n0\r\n\r\n", True), (b"\r\n9\r\n", False)]:
        peer.sendall(head + b"4\r\nhalf" + rest)
        await connection.ask(_call())
        assert await connection.receive() == b"half"
        assert connection.recycle() is kept
    await connection.close()
    peer.close()


def test_request_shows_nothing_that_may_be_secret() -> None:
    call = _call(b"sk-hidden")
    call.head = b"authorization: Bearer sk-hidden"
    call.headers = [("authorization", "sk-hidden")]
    assert "sk-hidden" not in repr(call)


async def test_closed_connection_is_out_of_the_watchdogs_sight() -> None:
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    watchdog = Watchdog()
    connection = Http1Connection(
        open_pipe(stream), origin=Origin("http", "h", 80), watchdog=watchdog
    )
    assert watchdog.watched == {connection}
    await connection.close()
    assert watchdog.watched == set()
    theirs.close()
