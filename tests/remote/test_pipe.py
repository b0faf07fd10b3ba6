"""TLS on a socket, and what a peer can do to it."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trio
import trio.testing

from atomr_infer.remote.http.pipe import TlsPipe

BIG = bytes(range(256)) * 20_000


def _streams() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = socket.socketpair()
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(ours)),
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)),
    )


async def _pair(certificates: Any) -> tuple[TlsPipe, trio.SSLStream[trio.SocketStream]]:
    ours, theirs = _streams()
    context = ssl.create_default_context(cafile=certificates.authority)
    pipe = TlsPipe(ours, context, host="localhost")
    peer = trio.SSLStream(
        theirs, certificates.server("good"), server_side=True, https_compatible=True
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.handshake)
        nursery.start_soon(peer.do_handshake)
    return pipe, peer


async def test_bytes_of_any_number_go_both_ways(certificates: Any) -> None:
    pipe, peer = await _pair(certificates)
    got = bytearray()

    async def read_all() -> None:
        while len(got) < len(BIG):
            got.extend(await peer.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all)
        await pipe.send(memoryview(BIG))
    assert got == BIG
    back = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, BIG)
        while len(back) < len(BIG):
            back += await pipe.receive()
    assert back == BIG
    await pipe.close()
    await trio.aclose_forcefully(peer)


async def test_write_that_stops_half_way_is_continued_where_it_stopped(
    certificates: Any,
) -> None:
    pipe, peer = await _pair(certificates)
    sent = pipe.send_nowait(memoryview(BIG))
    assert 0 < sent < len(BIG)
    assert pipe.send_nowait(memoryview(BIG)[sent:]) == 0
    got = bytearray()

    async def read_all() -> None:
        while len(got) < len(BIG):
            got.extend(await peer.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all)
        await pipe.wait_writable()
        await pipe.send(memoryview(BIG)[sent:])
    assert got == BIG
    await pipe.close()
    await trio.aclose_forcefully(peer)


async def test_end_of_the_peer_is_the_end_with_a_farewell_and_without(
    certificates: Any,
) -> None:
    for farewell in (True, False):
        pipe, peer = await _pair(certificates)
        assert not pipe.is_readable()
        if farewell:
            # It says goodbye, and then waits for ours.
            with trio.move_on_after(0.01):
                await peer.unwrap()
        else:
            await trio.aclose_forcefully(peer)
        assert pipe.is_readable()
        await pipe.close()
        await trio.aclose_forcefully(peer)
    pipe, peer = await _pair(certificates)
    await trio.aclose_forcefully(peer)
    assert await pipe.receive() == b""
    with pytest.raises(OSError, match=r"(?i)pipe|EOF"):
        await pipe.send(memoryview(BIG))
    await pipe.close()


async def test_close_from_outside_ends_a_wait(certificates: Any) -> None:
    for wait in ("receive", "wait_writable", "handshake"):
        if wait == "handshake":
            ours, peer = _streams()
            pipe = TlsPipe(ours, ssl.create_default_context(), host="localhost")
        else:
            pipe, tls = await _pair(certificates)
            peer = tls.transport_stream
            pipe.send_nowait(memoryview(BIG))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ends_closed, getattr(pipe, wait))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await pipe.close()
        await peer.aclose()
        if wait != "handshake":
            with pytest.raises(trio.ClosedResourceError):
                await getattr(pipe, wait)()


async def _ends_closed(wait: Any) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await wait()


async def test_garbage_between_records_is_an_error_and_not_data(
    certificates: Any,
) -> None:
    pipe, peer = await _pair(certificates)
    await peer.transport_stream.send_all(b"garbage" * 10)
    with pytest.raises(ssl.SSLError):
        await pipe.receive()
    await pipe.close()
    await trio.aclose_forcefully(peer)
