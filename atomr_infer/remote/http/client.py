"""An HTTP client for one upstream: kept-alive connections, limits, timeouts.

An exchange is a ``with`` block, and its end is the exchange's end::

    async with HttpClient("https://api.example.com/v1") as client:
        async with client.request("POST", "/chat/completions", body=b"{}") as answer:
            async for piece in answer.iter_bytes():
                ...

Leaving the block with the whole body read gives the connection back for the
next request.  Leaving it earlier closes the connection, and that is how a
generation is cancelled: the upstream sees its peer go.

Each phase has its own limit (``HttpTimeouts``), and every error is an
:class:`~atomr_infer.errors.InferenceError`, translated in one place.

A kept-alive connection can be closed by the peer at the very moment it is
used.  When that happens before a byte of the request was written, or before a
byte of the answer came, the request is sent once more on a fresh connection,
as browsers do (RFC 9112, 9.3.1).  A caller whose request must never be made
twice says ``replay=False``: then only what was never written is sent again.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Self

import trio

from atomr_infer.remote.http.connections import Connections, Exchange
from atomr_infer.remote.http.dialing.dialer import Dialer, Http2
from atomr_infer.remote.http.dialing.proxy import Proxies, Proxy, proxies_from
from atomr_infer.remote.http.dialing.tcp import (
    Connect,
    proxied_connect,
    tcp_connect,
)
from atomr_infer.remote.http.dialing.tls import verifying_context
from atomr_infer.remote.http.exchange import Call
from atomr_infer.remote.http.idle import IdleLimits
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.remote.http.phases import HttpTimeouts
from atomr_infer.remote.http.pool import Pool
from atomr_infer.remote.http.request_head import RequestHeads
from atomr_infer.remote.http.response import HttpResponse
from atomr_infer.remote.http.watchdog import Watchdog

if TYPE_CHECKING:
    import ssl
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from atomr_infer.remote.http.connection import Http1Connection
    from atomr_infer.remote.http.headers import Headers
    from atomr_infer.remote.http.http2.connection import Http2Connection
    from atomr_infer.remote.http.origin import Origin

_DEFAULT_TIMEOUTS = HttpTimeouts()
_DEFAULT_IDLE = IdleLimits()

MAX_CONNECTIONS = 1024
"""Default cap of connections to one origin: a process may open as many files."""


class HttpClient:
    """Requests to one origin.  Use it as an ``async with`` block.

    Ownership: it owns its connections and closes the unused ones at its end;
    all exchanges must have ended by then.
    """

    def __init__(  # noqa: PLR0913 - all but one by keyword, all with a default
        self,
        base_url: str,
        *,
        headers: Headers = (),
        timeouts: HttpTimeouts = _DEFAULT_TIMEOUTS,
        idle: IdleLimits = _DEFAULT_IDLE,
        max_connections: int = MAX_CONNECTIONS,
        http2: str = "off",
        proxies: Proxies | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect: Connect | None = None,
    ) -> None:
        """Prepare; no connection is made yet.

        Args:
            base_url: ``https://host[:port][/prefix]``.
            headers: sent with every request.
            timeouts: the limit of each phase.
            idle: how many unused connections are kept, and how long.
            max_connections: most connections, idle ones included; a request
                beyond them waits for ``connect_s`` at most.
            http2: ``"off"``; ``"alpn"``: where the TLS handshake agrees on it;
                ``"prior-knowledge"``: always, in clear text too.  One
                connection then carries many exchanges, each of which costs
                several times the work of one over HTTP/1.1.
            proxies: the proxy of each scheme; None: what the environment says
                (``HTTPS_PROXY``, ``NO_PROXY``, ...); ``DIRECT``: none.
            ssl_context: how the peer is verified, see ``verifying_context``;
                None: the system's authorities, or those of ``SSL_CERT_FILE``.
            connect: opens streams; None: TCP with TLS for ``https``.

        Raises:
            ValueError: ``base_url``, a header, a limit or a variable of the
                environment is not valid.
        """
        url = parse_base_url(base_url)
        way = Http2(http2)
        if connect is None:
            known = proxies_from(os.environ) if proxies is None else proxies
            dialer = dialer_to(url.origin, known.of(url.origin), ssl_context, way)
        else:
            dialer = Dialer(origin=url.origin, connect=connect, http2=way)
        reader = None if dialer.tunnels else dialer.proxy
        self._named = str(url.origin) + ("" if reader is None else f" by {reader}")
        self._timeouts = timeouts
        self._heads = RequestHeads(headers, url=url, reader=reader)
        self._pool: Pool[Http1Connection, Http2Connection] = Pool(
            idle, max_connections=max_connections
        )
        self._watchdog = Watchdog()
        self._connections = Connections(
            self._heads, dialer=dialer, pool=self._pool, watchdog=self._watchdog
        )
        self._closed = False
        self._block: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        shared = self._connections.shared
        return (
            f"<HttpClient {self._named}: {self.active} active, {self.idle} idle,"
            f" {self._pool.size} of {self._pool.max_connections} connections"
            f"{f' ({shared} shared)' if shared else ''},"
            f" {self._pool.waiting} waiting{', closed' if self._closed else ''}>"
        )

    @property
    def active(self) -> int:
        """Exchanges under way."""
        return self._connections.active

    @property
    def idle(self) -> int:
        """Connections that wait for their next request."""
        return self._pool.idle

    async def __aenter__(self) -> Self:
        self._block = trio.open_nursery()
        self._nursery = await self._block.__aenter__()
        self._nursery.start_soon(self._watchdog.run)
        self._connections.nursery = self._nursery
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._block is not None
        assert self._nursery is not None
        self._closed = True
        await self._connections.close()
        self._nursery.cancel_scope.cancel()
        # The block's own error is kept out of the nursery, which would wrap it.
        await self._block.__aexit__(None, None, None)

    def request(  # noqa: PLR0913 - all but two by keyword, all with a default
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        replay: bool = True,
        timeouts: HttpTimeouts | None = None,
        due_by: float | None = None,
    ) -> AbstractAsyncContextManager[HttpResponse]:
        """Return a block that sends a request and begins with the answer's headers.

        Args:
            method: ``GET``, ``POST``, ...
            path: behind the base URL's prefix, with its leading slash.
            headers: beside the client's own; no ``content-length``.
            body: the whole body.
            replay: send again on a fresh connection when a kept-alive one
                turns out to be gone.
            timeouts: in place of the client's.
            due_by: the instant, of trio's clock, that takes the place of
                ``total_s``; ``HttpResponse.due_by`` moves it.

        Raises:
            OverloadedError: no connection became free in time (``pool_timeout``).
            UpstreamConnectError: no connection could be made.
            UpstreamTimeoutError: a phase took too long; ``code`` says which.
            UpstreamProtocolError: the peer does not speak HTTP/1.1.
            StreamCutError: the peer left before it answered.
            ValueError: a header or the path is not valid.

        Cancellation: closes the connection before the block's exit returns.
        """
        call = self.call(
            method,
            path,
            headers=headers,
            body=body,
            replay=replay,
            timeouts=timeouts,
            due_by=due_by,
        )
        return _Block(self, call)

    def call(  # noqa: PLR0913 - as request
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        replay: bool = True,
        timeouts: HttpTimeouts | None = None,
        due_by: float | None = None,
    ) -> Call:
        """Return a request, checked and ready to be sent; see :meth:`request`."""
        if self._closed or self._nursery is None:
            raise RuntimeError(f"{self!r} is closed")
        limits = timeouts or self._timeouts
        return Call(
            method=method,
            path=path,
            headers=headers,
            body=body,
            head=self._heads.encode(
                method, path, headers=headers, body_bytes=len(body)
            ),
            replay=replay,
            timeouts=limits,
            total_at=_total_at(limits) if due_by is None else due_by,
        )

    def exchange(self, call: Call) -> AbstractAsyncContextManager[HttpResponse]:
        """Return a block that sends a request of :meth:`call`; see :meth:`request`."""
        return _Block(self, call)

    # --- for who needs no block ---------------------------------------------------

    async def start(self, call: Call) -> Exchange:
        """Send a request of :meth:`call` and wait for the head of its answer.

        :meth:`finish` must follow.

        Raises:
            InferenceError: as :meth:`request`; nothing is left to finish then.

        Cancellation: the same.
        """
        connections = self._connections
        connections.active += 1
        try:
            return await connections.start(call)
        except BaseException:
            connections.active -= 1
            raise

    async def finish(self, exchange: Exchange) -> None:
        """Keep the connection of an answer that is read, or close what is not."""
        self._connections.active -= 1
        await self._connections.finish(exchange)


class _Block:
    """The ``with`` block of one exchange.

    By hand, because a generator for each request costs more than the request.
    """

    __slots__ = ("_call", "_client", "_exchange", "_response")

    def __init__(self, client: HttpClient, call: Call) -> None:
        self._client = client
        self._call = call

    async def __aenter__(self) -> HttpResponse:
        self._exchange = await self._client.start(self._call)
        self._response = HttpResponse(self._exchange)
        return self._response

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.end()
        await self._client.finish(self._exchange)


def dialer_to(
    origin: Origin, proxy: Proxy | None, context: ssl.SSLContext | None, http2: Http2
) -> Dialer:
    """Return the way to an origin; see :class:`HttpClient`."""
    if origin.tls:
        context = context or verifying_context()
        if http2 is not Http2.OFF:
            context.set_alpn_protocols(["h2", "http/1.1"])
    else:
        context = None
    if proxy is None:
        return Dialer(origin=origin, connect=tcp_connect(context), http2=http2)
    tunnels = origin.tls or http2 is Http2.PRIOR_KNOWLEDGE
    return Dialer(
        origin=origin,
        connect=proxied_connect(proxy, context, tunnel=tunnels),
        http2=http2,
        proxy=proxy,
        tunnels=tunnels,
    )


def _total_at(limits: HttpTimeouts) -> float:
    if limits.total_s == math.inf:
        return math.inf
    return trio.current_time() + limits.total_s
