"""The gateway's listening sockets, and the process that serves them.

The accept loop is ours, because we need three things of it: the sockets
outlive a crash of the loop, every open connection can be counted and closed,
and a drain ends in the order *stop accepting, let answers finish, tell the
rest, close*.

A connection starts in our own HTTP/1.1 (``atomr_infer.gateway.http1``), which
gives it to hypercorn when it speaks something else.

Source: hypercorn's ``hypercorn.trio.run.worker_serve``, read for the order of
the steps.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from atomr_infer.errors import ConfigError
from atomr_infer.gateway.exchanges.guarded_stream import GuardedStream
from atomr_infer.gateway.http1.connection import Connection, Http1Settings
from atomr_infer.gateway.http1.lanes import Handover, Lane

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from atomr_infer.gateway.exchanges.exchange import Exchange
    from atomr_infer.gateway.http1.poller import Poller
    from atomr_infer.gateway.listening.asgi_exchange import Receive, Scope, Send
    from atomr_infer.gateway.listening.hypercorn_lane import HypercornLane

log = logging.getLogger(__name__)

_BACKLOG = 1024

_DEFAULTS = Http1Settings()

# A client whose machine is gone sends no end of file: ask after a minute of
# silence, and give it up after another.
_PROBE_AFTER_S = 60
_PROBES = 3
_PROBE_EVERY_S = 20


class Application(Protocol):
    """What is served: a handler, and the same one as an ASGI application."""

    async def handle(self, exchange: Exchange) -> None:
        """Serve one HTTP request."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, or refuse a WebSocket."""
        ...


class _Open(Protocol):
    """A connection, whoever serves it."""

    def close(self) -> None:
        """End it at once, whatever it is doing."""
        ...


class Listener:
    """Bound sockets and the connections that came in by them.

    Make it with :meth:`bind`, or of sockets that listen already, run :meth:`serve`
    in a process of its own, end it with :meth:`stop_accepting`,
    :meth:`connections_done` and :meth:`close`.

    Attributes:
        tls: what connections must begin with; None: none may.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        settings: Http1Settings,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.tls = tls
        self._sockets = sockets
        self._settings = settings
        self._accepting: trio.CancelScope | None = None
        self._stopped = False
        self._hypercorn: HypercornLane | None = None
        self._reading = trio.CapacityLimiter(1)
        self._open: set[_Open] = set()
        self._idle = trio.Event()
        self._idle.set()

    @classmethod
    async def bind(
        cls,
        host: str,
        port: int,
        settings: Http1Settings = _DEFAULTS,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> Listener:
        """Bind and listen, so that a busy port is known before anything loads.

        Args:
            host: an address or a name; every address of a name is bound.
            port: 0 picks a free one.
            settings: how long a connection is waited for.
            tls: every connection must begin with TLS; None: none may.

        Raises:
            ConfigError: the address is in use, not ours, or not allowed.
        """
        return cls(await bind_sockets(host, port), settings, tls)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first socket, as bound."""
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    def change(self, settings: Http1Settings, tls: ssl.SSLContext | None) -> None:
        """Take other settings, for the connections that come from now on.

        Args:
            settings: how long a connection is waited for.
            tls: what a connection must begin with; None: with no TLS.
        """
        self._settings, self.tls = settings, tls

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._open)

    async def serve(self, app: Application) -> None:
        """Accept and serve until :meth:`stop_accepting`, then until all are done.

        Cancellation: closes every connection at once.
        """
        async with trio.open_nursery() as nursery:
            poller = None
            if sys.platform == "linux":  # elsewhere hypercorn serves everything
                from atomr_infer.gateway.http1.poller import Poller  # noqa: PLC0415

                poller = Poller(tick_s=_tick_s(self._settings))
                nursery.start_soon(poller.run)
            await self._accept(partial(self._handle, app, poller))
            nursery.cancel_scope.cancel()

    async def stop_accepting(self) -> None:
        """Refuse new connections and end the idle ones; answers go on."""
        self._stopped = True
        if self._accepting is not None:
            self._accepting.cancel()
        for sock in self._sockets:
            sock.close()
        for connection in self._open:
            if isinstance(connection, Connection):
                connection.retire()
        if self._hypercorn is not None:
            await self._hypercorn.retire()

    async def connections_done(self) -> None:
        """Wait until no connection is open."""
        await self._idle.wait()

    async def close(self) -> None:
        """Close the sockets and every connection, whatever it is doing."""
        for sock in self._sockets:
            sock.close()
        for connection in list(self._open):
            connection.close()

    async def _accept(
        self, handle: Callable[[trio.SocketStream], Awaitable[None]]
    ) -> None:
        async with trio.open_nursery() as connections:
            # A scope can be entered once, and this process may be restarted.
            with trio.CancelScope() as self._accepting:
                if self._stopped:
                    return
                await trio.serve_listeners(
                    handle,
                    [self._trio_listener(sock) for sock in self._sockets],
                    handler_nursery=connections,
                )

    def _trio_listener(self, sock: socket.socket) -> trio.SocketListener:
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))

    async def _handle(
        self, app: Application, poller: Poller | None, stream: trio.SocketStream
    ) -> None:
        sock = _plain(stream)
        with sock:
            try:
                _ask_after_peer(sock)
                handover: Handover | None = Handover(Lane.HYPERCORN, b"")
                if poller is not None:
                    handover = await self._serve_http1(app, poller, sock)
                if handover is not None:
                    await self._hand_over(app, sock, handover)
            except Exception:
                # The boundary of one connection: whatever is made of a peer's
                # bytes, the other connections must not feel it.
                log.warning("a connection was closed for an error", exc_info=True)

    async def _serve_http1(
        self, app: Application, poller: Poller, sock: socket.socket
    ) -> Handover | None:
        connection = Connection(sock, poller, app.handle, self._settings)
        connection.clear_text = self.tls is None
        connection.last = self._stopped
        poller.add(sock, connection)
        try:
            with self._counted(connection):
                return await connection.run()
        finally:
            poller.remove(sock)

    async def _hand_over(
        self, app: Application, sock: socket.socket, handover: Handover
    ) -> None:
        if handover.lane is Lane.TLS and self.tls is None:
            return  # it cannot be told in words that it knows
        stream = GuardedStream(
            trio.SocketStream(trio.socket.from_stdlib_socket(sock.dup())),
            first=handover.data,
            write_timeout_s=self._settings.write_timeout_s,
        )
        sock.close()
        with self._counted(stream):
            try:
                lane = await self._hypercorn_lane()
                await lane.serve(app, stream, self.tls)
            finally:
                stream.close()

    async def _hypercorn_lane(self) -> HypercornLane:
        """Return what serves the connections that we do not; made for the first."""
        lane = self._hypercorn
        if lane is not None:
            return lane
        # In a thread: it is read from disk for a tenth of a second, and answers that
        # run here go on.  In one of its own: look-ups of names that hang can fill those
        # that all share.
        make = await trio.to_thread.run_sync(_import_lane, limiter=self._reading)
        if self._hypercorn is None:  # no other connection was before
            self._hypercorn = make(keep_alive_s=self._settings.keep_alive_s)
            if self._stopped:
                await self._hypercorn.retire()
        return self._hypercorn

    @contextmanager
    def _counted(self, connection: _Open) -> Iterator[None]:
        self._open.add(connection)
        if self._idle.is_set():
            self._idle = trio.Event()
        try:
            yield
        finally:
            self._open.discard(connection)
            if not self._open:
                self._idle.set()


def _import_lane() -> type[HypercornLane]:
    # Late: most gateways have no such connection, and a start would wait for it.
    from atomr_infer.gateway.listening.hypercorn_lane import HypercornLane  # noqa: PLC0415

    return HypercornLane


async def bind_sockets(host: str, port: int) -> tuple[socket.socket, ...]:
    """Bind and listen; see :meth:`Listener.bind`.

    Raises:
        ConfigError: the address is in use, not ours, or not allowed.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(_bind_problem(host, port, error)) from error
    # Kept as plain sockets: trio's listeners close with the accept loop, and
    # these must survive its crash.
    sockets = []
    for listener in listeners:
        duplicate = listener.socket.dup()
        sockets.append(socket.socket(fileno=duplicate.detach()))
        await listener.aclose()
    return tuple(sockets)


def _tick_s(settings: Http1Settings) -> float:
    """How often deadlines are looked at; a wait may be that much longer."""
    return min(1.0, settings.keep_alive_s / 4, settings.head_s / 4)


def _plain(stream: trio.SocketStream) -> socket.socket:
    """Take the socket out of trio's hands."""
    of_trio = stream.socket
    kind = (of_trio.family, of_trio.type, of_trio.proto)
    sock = socket.socket(*kind, fileno=of_trio.detach())
    sock.settimeout(0.0)
    return sock


def _ask_after_peer(sock: socket.socket) -> None:
    """Have the kernel ask after the peer; an OSError means that it is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for option, value in (
            (socket.TCP_KEEPIDLE, _PROBE_AFTER_S),
            (socket.TCP_KEEPINTVL, _PROBE_EVERY_S),
            (socket.TCP_KEEPCNT, _PROBES),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _bind_problem(host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}"
    # trio raises one error for several addresses; each cause has its errno.
    numbers = {error.errno, getattr(error.__cause__, "errno", None)}
    if errno.EADDRINUSE in numbers:
        return (
            f"cannot listen on {where}: the port is in use; "
            "stop the other program or choose another port (--bind HOST:PORT of the "
            "command), or 0 for one that is free"
        )
    if errno.EACCES in numbers:
        return f"cannot listen on {where}: not allowed; choose a port above 1023"
    return f"cannot listen on {where}: {error.strerror or error}"
