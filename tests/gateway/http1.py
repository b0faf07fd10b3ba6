"""A listener over a handler of the test's, and raw clients to talk to it."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from atomr_infer.gateway.exchanges.exchange import Exchange
from atomr_infer.gateway.http1.connection import Http1Settings
from atomr_infer.gateway.listening.asgi_exchange import (
    AsgiExchange,
    Receive,
    Scope,
    Send,
)
from atomr_infer.gateway.listening.listener import Listener
from tests.gateway.http import Answer, parse

Handler = Callable[[Exchange], Awaitable[None]]


class App:
    """An application of one handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def handle(self, exchange: Exchange) -> None:
        await self._handler(exchange)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        await self._handler(AsgiExchange(scope, receive, send))


@asynccontextmanager
async def served(
    handler: Handler, settings: Http1Settings | None = None
) -> AsyncIterator[Listener]:
    """Serve a handler for the length of the block; then everything is closed."""
    listener = await Listener.bind("127.0.0.1", 0, settings or Http1Settings())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, App(handler))
        try:
            yield listener
        finally:
            with trio.CancelScope(shield=True):
                await listener.stop_accepting()
                await listener.close()


@attrs.define(eq=False)
class Client:
    """A raw connection; reads answers one by one."""

    stream: trio.SocketStream
    buffer: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_until(self, end: bytes) -> bytes:
        """Return everything up to ``end``, which must come."""
        with trio.fail_after(10):
            while end not in self.buffer:
                data = await self.stream.receive_some()
                assert data, f"no {end!r} in {self.buffer!r}"
                self.buffer += data
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """Return the next answer of a kept connection."""
        head = await self.read_until(b"\r\n\r\n")
        parsed = parse(head)
        if bodiless:
            return parsed
        if "content-length" not in parsed.headers:
            return parse(head + await self.read_until(b"0\r\n\r\n"))
        length = int(parsed.headers["content-length"])
        with trio.fail_after(10):
            while len(self.buffer) < length:
                data = await self.stream.receive_some()
                assert data, "the body is cut"
                self.buffer += data
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return parse(head + body)

    async def rest(self) -> bytes:
        """Return everything to the end of file."""
        with trio.fail_after(10):
            return self.buffer + b"".join([piece async for piece in self.stream])

    async def reset(self) -> None:
        """Close so that the other side sees a reset."""
        linger = struct.pack("ii", 1, 0)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await self.stream.aclose()


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[Client]:
    """A connection to a listener, closed behind the block."""
    stream = await trio.open_tcp_stream(*listener.address)
    async with stream:
        yield Client(stream)


def get(path: str, *fields: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: x", *fields, "", ""]
    return "\r\n".join(lines).encode()


def post(path: str, body: bytes, *fields: str) -> bytes:
    length = f"content-length: {len(body)}"
    lines = [f"POST {path} HTTP/1.1", "host: x", length, *fields, "", ""]
    return "\r\n".join(lines).encode() + body
