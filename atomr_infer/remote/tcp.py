"""How a connection to an upstream is opened: TCP, and TLS where it is asked for."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import trio

from atomr_infer.remote.origin import Origin

Connect = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to an origin: TCP, and TLS where the origin asks."""


def tcp_connect(ssl_context: ssl.SSLContext | None) -> Connect:
    """Return a function that opens TCP, and TLS when there is a context.

    trio tries the addresses of both families (RFC 8305) and sets TCP_NODELAY.
    """

    async def connect(origin: Origin) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(origin.host, origin.port)
        if ssl_context is None:
            return stream
        # Compatible: HTTP servers end TLS by closing TCP, and HTTP's own
        # framing shows whether something is missing.
        tls = trio.SSLStream(
            stream, ssl_context, server_hostname=origin.host, https_compatible=True
        )
        try:
            await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tls)
            raise
        return tls

    return connect


def verifying_context() -> ssl.SSLContext:
    """Return a context that trusts the system's authorities."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
