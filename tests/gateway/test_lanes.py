"""Which server a connection gets: HTTP/1.1 ours, everything else hypercorn."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from atomr_infer.gateway.http1.exchange import Http1Exchange
from atomr_infer.gateway.http1.lanes import Lane, lane_of
from atomr_infer.gateway.listening.asgi_exchange import AsgiExchange
from tests.gateway.http import parse, received
from tests.gateway.http1 import Client, connected, get, served

if TYPE_CHECKING:
    from atomr_infer.gateway.exchanges.exchange import Exchange

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HANDSHAKE = get(
    "/",
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def carrier(exchange: Exchange) -> None:
    """Answer with the name of what carries the exchange."""
    await exchange.read_body(limit_bytes=100, timeout_s=5)
    await exchange.answer(200, type(exchange).__name__.encode())


@pytest.mark.parametrize("size", range(1, len(PREFACE)))
def test_a_preface_that_is_not_whole_decides_nothing(size: int) -> None:
    assert lane_of(PREFACE[:size]) is None
    assert lane_of(PREFACE[:size] + b"!") is Lane.HTTP1


async def ask_h2(client: Client, *, in_pieces: bool, path: str = "/") -> bytes:
    """Ask over HTTP/2 without an upgrade, and return the body."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    fields = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "x"}
    connection.send_headers(1, list(fields.items()), end_stream=True)
    data = connection.data_to_send()
    for at in range(0, len(data), 1 if in_pieces else len(data)):
        await client.send(data[at : at + (1 if in_pieces else len(data))])
    body = b""
    while True:
        for event in connection.receive_data(await received(client.stream)):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            if isinstance(event, h2.events.StreamEnded):
                return body


@pytest.mark.parametrize("in_pieces", [True, False])
async def test_http2_without_an_upgrade_is_hypercorns(*, in_pieces: bool) -> None:
    async with served(carrier) as listener, connected(listener) as client:
        body = await ask_h2(client, in_pieces=in_pieces)
        assert body == AsgiExchange.__name__.encode()
        assert listener.connections == 1


async def test_http2_waits_for_no_thread_that_others_hold() -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    async with served(carrier) as listener, AsyncExitStack() as held:
        for _ in range(int(limiter.total_tokens)):
            await limiter.acquire_on_behalf_of(who := object())
            held.callback(limiter.release_on_behalf_of, who)
        assert limiter.available_tokens == 0
        with trio.fail_after(30):
            async with (
                connected(listener) as one,
                connected(listener) as other,
                trio.open_nursery() as nursery,
            ):
                for client in (one, other):
                    nursery.start_soon(partial(ask_h2, client, in_pieces=False))


async def test_http2_takes_no_thread_where_its_server_is_loaded() -> None:
    async with served(carrier) as listener, AsyncExitStack() as held:
        async with connected(listener) as client:
            await ask_h2(client, in_pieces=False)
        await listener._reading.acquire_on_behalf_of(who := object())
        held.callback(listener._reading.release_on_behalf_of, who)
        with trio.fail_after(30):
            async with connected(listener) as client:
                body = await ask_h2(client, in_pieces=False)
    assert body == AsgiExchange.__name__.encode()


async def test_http11_is_ours_until_a_request_asks_for_another_protocol() -> None:
    async with served(carrier) as listener, connected(listener) as client:
        await client.send(get("/"))
        assert (await client.answer()).body == Http1Exchange.__name__.encode()
        await client.send(HANDSHAKE)
        assert parse(await client.rest()).status == 403


async def test_an_upgrade_that_nobody_knows_is_an_ordinary_request() -> None:
    asking = get("/", "connection: upgrade", "upgrade: gopher")
    async with served(carrier) as listener, connected(listener) as client:
        await client.send(asking)
        assert (await client.answer()).body == Http1Exchange.__name__.encode()


async def test_tls_that_is_not_configured_is_closed_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
    async with served(carrier) as listener, connected(listener) as client:
        await client.send(hello)
        assert await client.rest() == b""
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_drain_ends_hypercorns_connections_as_well() -> None:
    async with served(carrier) as listener, connected(listener) as client:
        await ask_h2(client, in_pieces=False)
        await listener.stop_accepting()
        await listener.connections_done()
