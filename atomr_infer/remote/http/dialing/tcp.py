"""How a connection to an upstream is opened: TCP, a proxy's tunnel, and TLS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from atomr_infer.remote.http.dialing.tls import verifying_context
from atomr_infer.remote.http.dialing.tunnel import open_tunnel
from atomr_infer.remote.http.origin import Origin
from atomr_infer.remote.http.pipe import TlsPipe

if TYPE_CHECKING:
    import ssl

    from atomr_infer.remote.http.dialing.proxy import Proxy

Connect = Callable[[Origin], Awaitable[trio.abc.Stream | TlsPipe]]
"""Opens a byte stream to an origin: TCP, and TLS where the origin asks."""


def tcp_connect(ssl_context: ssl.SSLContext | None) -> Connect:
    """Return a function that opens TCP, and TLS when there is a context.

    trio looks the name up in a thread, tries the addresses of both families
    (RFC 8305, the next one after 250 ms), and sets TCP_NODELAY.
    """

    async def connect(origin: Origin) -> trio.abc.Stream | TlsPipe:
        stream = await trio.open_tcp_stream(origin.host, origin.port)
        if ssl_context is None:
            return stream
        return await _over_tls(stream, ssl_context, origin)

    return connect


def proxied_connect(
    proxy: Proxy, ssl_context: ssl.SSLContext | None, *, tunnel: bool
) -> Connect:
    """Return a function that opens a connection by way of a proxy.

    Args:
        proxy: the proxy.
        ssl_context: for TLS with the upstream, inside the tunnel.
        tunnel: False for requests that the proxy itself reads.
    """
    to_proxy = verifying_context() if proxy.origin.tls else None

    async def connect(origin: Origin) -> trio.abc.Stream | TlsPipe:
        stream: trio.abc.Stream = await trio.open_tcp_stream(
            proxy.origin.host, proxy.origin.port
        )
        if to_proxy is not None:
            stream = await _over_stream(stream, to_proxy, proxy.origin)
        if not tunnel:
            return stream
        try:
            await open_tunnel(stream, proxy, origin)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if ssl_context is None:
            return stream
        return await _over_tls(stream, ssl_context, origin)

    return connect


async def _over_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext, origin: Origin
) -> trio.abc.Stream | TlsPipe:
    if not isinstance(stream, trio.SocketStream):
        return await _over_stream(stream, context, origin)
    pipe = TlsPipe(stream, context, host=origin.host)
    try:
        await pipe.handshake()
    except BaseException:
        await pipe.close()
        raise
    return pipe


async def _over_stream(
    stream: trio.abc.Stream, context: ssl.SSLContext, origin: Origin
) -> trio.abc.Stream:
    # Compatible: HTTP servers end TLS by closing TCP, and HTTP's own framing
    # shows whether something is missing.
    tls = trio.SSLStream(
        stream, context, server_hostname=origin.host, https_compatible=True
    )
    try:
        await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(tls)
        raise
    return tls
