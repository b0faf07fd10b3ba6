"""A raw TCP peer whose every byte the test decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.define
class Peer:
    """Attributes: base_url; connections accepted so far."""

    base_url: str
    connections: int = 0


@asynccontextmanager
async def _open_peer(serve: Serve) -> AsyncIterator[Peer]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer = Peer(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")

    async def handle(stream: trio.SocketStream) -> None:
        peer.connections += 1
        async with stream:
            await serve(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield peer
        nursery.cancel_scope.cancel()


@pytest.fixture
def open_peer() -> Callable[[Serve], AbstractAsyncContextManager[Peer]]:
    return _open_peer
