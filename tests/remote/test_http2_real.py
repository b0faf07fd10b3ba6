"""HTTP/2 against a server that nobody here wrote: hypercorn's, over TLS and bare."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config

from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.dialing.tls import verifying_context
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@attrs.define
class App:
    """Echoes; streams for ever on ``/stream``, and notes who left."""

    versions: list[str] = attrs.field(factory=list)
    sending: trio.Event = attrs.field(factory=trio.Event)
    left: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any, *_: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
        self.versions.append(scope["http_version"])
        body = b""
        more = True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        headers = [(b"x-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/stream":
            await self._stream(receive, send)
            return
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        self.sending.set()
        event = await receive()
        assert event == {"type": "http.disconnect"}
        self.left.set()


@asynccontextmanager
async def _serve(app: App, *, tls: tuple[str, str] | None) -> AsyncIterator[str]:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.alpn_protocols = ["h2", "http/1.1"]
    if tls is not None:
        config.certfile, config.keyfile = tls
    async with trio.open_nursery() as nursery:
        serve = partial(
            hypercorn.trio.serve,
            app,
            config,
            shutdown_trigger=trio.sleep_forever,
            mode="asgi",
        )
        binds = await nursery.start(serve)
        yield str(binds[0])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _client(
    app: App, certificates: Any, *, secure: bool
) -> AsyncIterator[HttpClient]:
    tls = certificates.files("good") if secure else None
    context = verifying_context(ca_file=certificates.authority)
    async with (
        _serve(app, tls=tls) as url,
        HttpClient(
            url,
            http2="alpn" if secure else "prior-knowledge",
            ssl_context=context if secure else None,
        ) as client,
    ):
        yield client


async def _echo(client: HttpClient, body: bytes) -> bytes:
    async with client.request("POST", "/", body=body) as answer:
        assert answer.headers["x-length"] == str(len(body))
        return await answer.read()


@pytest.mark.parametrize("secure", [True, False])
async def test_bodies_of_all_sizes_come_back_over_one_connection(
    certificates: Any, secure: bool
) -> None:
    app = App()
    async with _client(app, certificates, secure=secure) as client:
        for size in (0, 1, 16384, 65535, 65536, 1_000_000):
            body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            assert await _echo(client, body) == body
        assert "1 of 1024 connections" in repr(client)
    assert set(app.versions) == {"2"}


async def test_many_requests_at_once_are_each_their_own(certificates: Any) -> None:
    app = App()
    got: list[bytes] = []

    async def ask(client: HttpClient, number: int) -> None:
        got.append(await _echo(client, b"%d" % number))

    async with _client(app, certificates, secure=True) as client:
        async with trio.open_nursery() as nursery:
            for number in range(150):
                nursery.start_soon(ask, client, number)
        assert sorted(map(int, got)) == list(range(150))
        assert client.active == 0


@pytest.mark.parametrize("secure", [True, False])
async def test_upstream_sees_a_cancelled_stream_at_once(
    certificates: Any, mock_clock: MockClock, secure: bool
) -> None:
    mock_clock.rate = 1.0
    app = App()
    async with _client(app, certificates, secure=secure) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_stream, client)
            await app.sending.wait()
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        await at_once(app.left.is_set, mock_clock)
        mock_clock.rate = 1.0
        assert await _echo(client, b"{}") == b"{}"
        assert "0 active" in repr(client)
        assert "1 of 1024 connections" in repr(client)


async def _read_stream(client: HttpClient) -> None:
    async with client.request("POST", "/stream") as answer:
        await answer.read()
