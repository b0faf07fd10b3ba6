"""A fake upstream behind a listener: plain, or over TLS."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from atomr_infer.testing.upstreams.fake import FakeUpstream


@asynccontextmanager
async def serve_upstream(
    upstream: FakeUpstream,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    http2: bool = False,
) -> AsyncIterator[FakeUpstream]:
    """Let clients reach an upstream; the block's end closes its connections.

    Args:
        upstream: what to serve; its ``origin`` is set.
        host: address to listen on.
        port: TCP port; 0: any free one.
        tls: serves HTTPS with it; None: plain HTTP.
        http2: speaks HTTP/2: over TLS where the client agrees to it, in clear
            text to whoever knows it beforehand.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    scheme = "http" if tls is None else "https"
    upstream.origin = f"{scheme}://{host}:{listeners[0].socket.getsockname()[1]}"
    serve = partial(_serve_connection, upstream, tls, http2)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield upstream
        nursery.cancel_scope.cancel()


async def _serve_connection(
    upstream: FakeUpstream,
    tls: ssl.SSLContext | None,
    http2: bool,  # noqa: FBT001 - bound by the listener
    stream: trio.SocketStream,
) -> None:
    if tls is None:
        serve = upstream.serve_http2 if http2 else upstream.serve_stream
        await serve(stream)
        return
    if http2:
        tls.set_alpn_protocols(["h2", "http/1.1"])
    secure = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError:
        # The client does not trust us, which is what it is here for.
        await trio.aclose_forcefully(stream)
        return
    agreed = secure.selected_alpn_protocol() == "h2"
    await (upstream.serve_http2 if agreed else upstream.serve_stream)(secure)
