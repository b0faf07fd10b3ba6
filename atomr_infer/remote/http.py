"""A thin HTTP/1.1 client for one upstream: kept-alive connections over h11.

An exchange is a ``with`` block, and its end is the exchange's end::

    async with HttpClient("https://api.example.com/v1") as client:
        async with client.request("POST", "/chat/completions", body=b"{}") as answer:
            async for piece in answer.iter_bytes():
                ...

Leaving the block with the whole body read gives the connection back for the
next request.  Leaving it earlier closes the connection, and that is how a
generation is cancelled: the upstream sees its peer go.

Each phase has its own limit (``HttpTimeouts``), and every error is an
:class:`~atomr_infer.errors.UpstreamError`, translated in one place.

A kept-alive connection can be closed by the peer at the very moment it is
used.  When that happens before a byte of the answer, the request is sent once
more on a fresh connection, as browsers do (RFC 9112, 9.3.1).  A caller whose
request must never be made twice says ``replay=False``.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import h11
import trio

from atomr_infer.errors import StreamCutError
from atomr_infer.remote.connection import HttpConnection
from atomr_infer.remote.headers import Headers, encode_headers
from atomr_infer.remote.idle import IdleLimits, IdleList
from atomr_infer.remote.origin import parse_base_url
from atomr_infer.remote.phases import HttpTimeouts, Phase, Phases
from atomr_infer.remote.response import HttpResponse
from atomr_infer.remote.tcp import Connect, tcp_connect, verifying_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

_DEFAULT_TIMEOUTS = HttpTimeouts()
_DEFAULT_IDLE = IdleLimits()


class HttpClient:
    """Requests to one origin.  Use it as an ``async with`` block.

    Ownership: it owns its connections and closes the unused ones at its end;
    all exchanges must have ended by then.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Headers = (),
        timeouts: HttpTimeouts = _DEFAULT_TIMEOUTS,
        idle: IdleLimits = _DEFAULT_IDLE,
        ssl_context: ssl.SSLContext | None = None,
        connect: Connect | None = None,
    ) -> None:
        """Prepare; no connection is made yet.

        Args:
            base_url: ``https://host[:port][/prefix]``.
            headers: sent with every request.
            timeouts: the limit of each phase.
            idle: how many unused connections are kept, and how long.
            ssl_context: how the peer is verified; None: the system's
                authorities.
            connect: opens streams; None: TCP with TLS for ``https``.

        Raises:
            ValueError: ``base_url`` or a header is not valid.
        """
        url = parse_base_url(base_url)
        self._origin = url.origin
        self._prefix = url.prefix
        self._phases = Phases(url.origin, timeouts)
        self._headers = encode_headers([("host", url.origin.authority), *headers])
        self._idle: IdleList[HttpConnection] = IdleList(idle)
        self._connect = connect or tcp_connect(
            ssl_context or verifying_context() if url.origin.tls else None
        )
        self._active = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpClient {self._origin}: {self._active} active, {self.idle} idle>"

    @property
    def active(self) -> int:
        """Exchanges under way."""
        return self._active

    @property
    def idle(self) -> int:
        """Connections that wait for their next request."""
        return len(self._idle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        await _close_all(self._idle.clear())

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        replay: bool = True,
    ) -> AsyncIterator[HttpResponse]:
        """Send a request; the block begins with the answer's headers.

        Args:
            method: ``GET``, ``POST``, ...
            path: behind the base URL's prefix, with its leading slash.
            headers: beside the client's own; no ``content-length``.
            body: the whole body.
            replay: send again on a fresh connection when a kept-alive one
                turns out to be gone.

        Raises:
            UpstreamConnectError: no connection could be made.
            UpstreamTimeoutError: a phase took too long; ``code`` says which.
            UpstreamProtocolError: the peer does not speak HTTP/1.1.
            StreamCutError: the peer left before it answered.
            ValueError: a header or the path is not valid.

        Cancellation: closes the connection before the block's exit returns.
        """
        if self._closed:
            raise RuntimeError(f"{self!r} is closed")
        request = self._head(method, path, headers, body)
        self._active += 1
        try:
            connection, head = await self._exchange(request, body, replay=replay)
            try:
                yield HttpResponse(self._phases, connection, head)
            finally:
                await self._release(connection)
        finally:
            self._active -= 1

    def _head(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> h11.Request:
        fields = [*self._headers, *encode_headers(headers)]
        if body or method not in {"GET", "HEAD"}:
            fields.append((b"content-length", b"%d" % len(body)))
        try:
            return h11.Request(
                method=method, target=self._prefix + path, headers=fields
            )
        except h11.LocalProtocolError as error:
            raise ValueError(f"{method} {path}: {error}") from error

    async def _exchange(
        self, request: h11.Request, body: bytes, *, replay: bool
    ) -> tuple[HttpConnection, h11.Response]:
        kept = await self._take_idle()
        if kept is not None:
            try:
                return kept, await self._ask(kept, request, body)
            except StreamCutError:
                if kept.answered or not replay:
                    raise
        fresh = await self._open()
        return fresh, await self._ask(fresh, request, body)

    async def _take_idle(self) -> HttpConnection | None:
        while True:
            connection, too_old = self._idle.take(trio.current_time())
            await _close_all(too_old)
            if connection is None or not connection.is_stale():
                return connection
            await connection.close()

    async def _open(self) -> HttpConnection:
        async def connect() -> HttpConnection:
            return HttpConnection(await self._connect(self._origin))

        return await self._phases.run(Phase.CONNECT, connect)

    async def _ask(
        self, connection: HttpConnection, request: h11.Request, body: bytes
    ) -> h11.Response:
        async def send() -> None:
            await connection.send(request, body)

        try:
            await self._phases.run(Phase.WRITE, send, connection)
            return await self._phases.run(
                Phase.HEAD, connection.receive_head, connection
            )
        except BaseException:
            await connection.close()
            raise

    async def _release(self, connection: HttpConnection) -> None:
        if self._closed or not connection.recycle():
            await connection.close()
            return
        await _close_all(self._idle.put(connection, trio.current_time()))


async def _close_all(connections: Sequence[HttpConnection]) -> None:
    for connection in connections:
        await connection.close()
