"""The way through a proxy: CONNECT, and then the bytes are the upstream's.

Source: RFC 9110, 9.3.6.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs

from atomr_infer.remote.http.http1 import PeerClosedError, ResponseHead, ResponseReader

if TYPE_CHECKING:
    import trio

    from atomr_infer.remote.http.dialing.proxy import Proxy
    from atomr_infer.remote.http.origin import Origin

_FIRST_REFUSAL = 300
_END = b"\r\n\r\n"


@attrs.define
class ProxyRefusedError(Exception):
    """The proxy makes no connection to the upstream.

    Attributes:
        status: what it answered.
    """

    status: int

    def __str__(self) -> str:
        if self.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return "it wants other credentials (status 407)"
        return f"it answered with status {self.status}"


async def open_tunnel(stream: trio.abc.Stream, proxy: Proxy, origin: Origin) -> None:
    """Ask a proxy for a connection to an upstream.

    Args:
        stream: a fresh connection to the proxy.
        proxy: whose credentials are sent.
        origin: the upstream.

    Raises:
        ProxyRefusedError: the answer is not a success.
        FramingError: it is no answer.
        PeerClosedError: the proxy closed the connection.
    """
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"proxy-authorization: {proxy.authorization.reveal()}")
    await stream.send_all("\r\n".join([*lines, "", ""]).encode("ascii"))
    head = await _read_head(stream)
    if head.status >= _FIRST_REFUSAL:
        raise ProxyRefusedError(head.status)


async def _read_head(stream: trio.abc.Stream) -> ResponseHead:
    """Read a head and not a byte more: what follows is the upstream's."""
    reader = ResponseReader()
    # No body follows a success, and that of a refusal is not read.
    reader.expect("HEAD")
    tail = b""
    while (head := reader.head()) is None:
        wanted = next(n for n in range(1, 5) if tail.endswith(_END[: 4 - n]))
        data = bytes(await stream.receive_some(wanted))
        if not data:
            raise PeerClosedError("it closed the connection")
        reader.feed(data)
        tail = (tail + data)[-3:]
    return head
