"""hypercorn, as it is, for the connections that we do not serve ourselves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from atomr_infer.gateway.exchanges.guarded_stream import STREAM, GuardedStream

if TYPE_CHECKING:
    import ssl

    from atomr_infer.gateway.listening.listener import Application


class HypercornLane:
    """Serves connections of an ASGI application by hypercorn's ``TCPServer``."""

    def __init__(self, *, keep_alive_s: float) -> None:
        self._config = _config(keep_alive_s)
        self._context = WorkerContext(None)

    async def serve(
        self, app: Application, stream: GuardedStream, tls: ssl.SSLContext | None
    ) -> None:
        """Serve a connection to its end, and close it.

        Args:
            app: what is served.
            stream: the client's.
            tls: what the connection begins with; None: no TLS.
        """
        # Both have what TCPServer uses of a stream; ours has no more.
        carrier = cast("Any", stream)
        if tls is not None:
            carrier = trio.SSLStream(
                carrier, tls, server_side=True, https_compatible=True
            )
        server = _Connection(
            # hypercorn names the type of every ASGI event; ours is the plain mapping.
            ASGIWrapper(cast("Any", app)),
            self._config,
            self._context,
            ConnectionState({STREAM: stream}),
            carrier,
        )
        await server.run()

    async def retire(self) -> None:
        """End the idle connections; answers go on, and no request after them."""
        await self._context.terminated.set()


class _Connection(TCPServer):
    """A connection that ends with its client.

    hypercorn's own stays open for the rest of its keep-alive time, with its
    file descriptor, when the client has closed it.
    """

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()
        self.idle_task = cast("Any", _NeverIdle())


class _NeverIdle:
    """Stands where a connection's idle timer was."""

    async def restart(self, *_: object) -> None:
        """Nobody will ask on this connection again."""

    async def stop(self) -> None:
        """Nothing runs."""


def _config(keep_alive_s: float) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("atomr_infer.gateway.http")
    config.include_server_header = False
    config.keep_alive_timeout = keep_alive_s
    return config
