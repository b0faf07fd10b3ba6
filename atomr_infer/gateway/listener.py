"""The gateway's listening sockets, and the process that serves them.

hypercorn does HTTP; the accept loop is ours, because we need three things of
it: the sockets outlive a crash of the loop, every open connection can be
counted and closed, and a drain ends in the order *stop accepting, let answers
finish, tell the rest, close*.

Source: hypercorn's ``hypercorn.trio.run.worker_serve``, read for the order of
the steps.
"""

from __future__ import annotations

import errno
import logging
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from atomr_infer.errors import ConfigError
from atomr_infer.gateway.guarded_stream import STREAM, GuardedStream

if TYPE_CHECKING:
    from atomr_infer.gateway.app import GatewayApp

log = logging.getLogger(__name__)

_BACKLOG = 1024


class Listener:
    """Bound sockets and the connections that came in by them.

    Make it with :meth:`bind`, run :meth:`serve` in a process of its own, end
    it with :meth:`stop_accepting`, :meth:`connections_done` and :meth:`close`.
    """

    def __init__(self, sockets: list[socket.socket], *, write_timeout_s: float) -> None:
        self._sockets = sockets
        self._write_timeout_s = write_timeout_s
        self._accepting: trio.CancelScope | None = None
        self._stopped = False
        self._context = WorkerContext(None)
        self._streams: set[trio.SocketStream] = set()
        self._idle = trio.Event()
        self._idle.set()

    @classmethod
    async def bind(
        cls, host: str, port: int, *, write_timeout_s: float = 60.0
    ) -> Listener:
        """Bind and listen, so that a busy port is known before anything loads.

        Args:
            host: an address or a name; every address of a name is bound.
            port: 0 picks a free one.
            write_timeout_s: a client that reads nothing for so long is dropped.

        Raises:
            ConfigError: the address is in use, not ours, or not allowed.
        """
        try:
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigError(_bind_problem(host, port, error)) from error
        # Kept as plain sockets: trio's listeners close with the accept loop,
        # and these must survive its crash.
        sockets = []
        for listener in listeners:
            duplicate = listener.socket.dup()
            sockets.append(socket.socket(fileno=duplicate.detach()))
            await listener.aclose()
        return cls(sockets, write_timeout_s=write_timeout_s)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first socket, as bound."""
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._streams)

    async def serve(self, app: GatewayApp) -> None:
        """Accept and serve until :meth:`stop_accepting`, then until all are done.

        Cancellation: closes every connection at once.
        """
        # hypercorn names the type of every ASGI event; ours is the plain mapping.
        wrapper = ASGIWrapper(cast("Any", app))
        config = _http_config()
        async with trio.open_nursery() as connections:
            handle = partial(self._handle, wrapper, config)
            # A scope can be entered once, and this process may be restarted.
            with trio.CancelScope() as self._accepting:
                if self._stopped:
                    return
                await trio.serve_listeners(
                    handle,
                    [self._trio_listener(sock) for sock in self._sockets],
                    handler_nursery=connections,
                )

    async def stop_accepting(self) -> None:
        """Refuse new connections and end the idle ones; answers go on."""
        self._stopped = True
        if self._accepting is not None:
            self._accepting.cancel()
        for sock in self._sockets:
            sock.close()
        await self._context.terminated.set()

    async def connections_done(self) -> None:
        """Wait until no connection is open."""
        await self._idle.wait()

    async def close(self) -> None:
        """Close the sockets and every connection, whatever it is doing."""
        for sock in self._sockets:
            sock.close()
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    def _trio_listener(self, sock: socket.socket) -> trio.SocketListener:
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))

    async def _handle(
        self, wrapper: ASGIWrapper, config: Config, stream: trio.SocketStream
    ) -> None:
        self._streams.add(stream)
        if self._idle.is_set():
            self._idle = trio.Event()
        try:
            guarded = GuardedStream(stream, self._write_timeout_s)
            server = _Connection(
                wrapper,
                config,
                self._context,
                ConnectionState({STREAM: guarded}),
                # It has what TCPServer uses of a stream, and no more.
                cast("Any", guarded),
            )
            await server.run()
        except Exception:
            # The boundary of one connection: whatever hypercorn makes of a
            # peer's bytes, the other connections must not feel it.
            log.warning("a connection was closed for an error", exc_info=True)
            await trio.aclose_forcefully(stream)
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._idle.set()


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


def _http_config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("atomr_infer.gateway.http")
    config.include_server_header = False
    # Coding agents keep a connection between turns; 5 s would cost a handshake.
    config.keep_alive_timeout = 75.0
    return config


def _bind_problem(host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}"
    # trio raises one error for several addresses; each cause has its errno.
    numbers = {error.errno, getattr(error.__cause__, "errno", None)}
    if errno.EADDRINUSE in numbers:
        return (
            f"cannot listen on {where}: the port is in use; "
            "stop the other program or choose another port with --bind HOST:PORT"
        )
    if errno.EACCES in numbers:
        return f"cannot listen on {where}: not allowed; choose a port above 1023"
    return f"cannot listen on {where}: {error.strerror or error}"
