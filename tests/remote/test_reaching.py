"""Whether an origin can be reached, over real sockets."""

from __future__ import annotations

import socket

import pytest
import trio

from atomr_infer.errors import UpstreamConnectError, UpstreamTimeoutError
from atomr_infer.remote.http.reaching import reach


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def url_of(server: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}/v1"


async def test_a_server_that_takes_connections_is_reached_and_asked_nothing() -> None:
    with listening() as server:
        await reach(url_of(server), within_s=10)
        server.settimeout(10)
        taken, _ = server.accept()
        with taken:
            taken.settimeout(10)
            assert taken.recv(100) == b""


async def test_one_that_is_not_there_is_told_with_the_reason() -> None:
    with listening() as server:
        url = url_of(server)
    with pytest.raises(UpstreamConnectError, match="no connection to http://127"):
        await reach(url, within_s=10)


async def test_one_that_says_nothing_takes_too_long() -> None:
    with listening() as server, pytest.raises(UpstreamTimeoutError, match="within 0"):
        await reach(url_of(server, "https"), within_s=0.1)


async def test_one_that_speaks_no_tls_is_told() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 no\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(UpstreamConnectError, match="no connection to https"):
            await reach(f"https://127.0.0.1:{port}", within_s=10)
        nursery.cancel_scope.cancel()


async def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="ftp"):
        await reach("ftp://x", within_s=1)
