"""The connections of a client: taken, opened, asked, given back.

A request takes, in this order: a stream of an HTTP/2 connection with room, an
idle HTTP/1.1 connection, a new connection, or its place in the queue.  Where
the peer may speak HTTP/2, one connection is opened at a time, since all who
wait may find room on it.

When a connection turns out to be gone before the peer can have seen the
request, another one is tried; that is decided in :meth:`Connections._ask`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import trio

from atomr import telemetry
from atomr_infer.errors import OverloadedError, StreamCutError, UpstreamError
from atomr_infer.remote.http.connection import Http1Connection, UntouchedError
from atomr_infer.remote.http.dialing.tunnel import ProxyRefusedError
from atomr_infer.remote.http.events import ConnectionEvents
from atomr_infer.remote.http.http2.connection import Http2Connection
from atomr_infer.remote.http.http2.protocol import RefusedError
from atomr_infer.remote.http.http2.stream import Http2Stream
from atomr_infer.remote.http.phases import TRANSPORT_ERRORS

if TYPE_CHECKING:
    from atomr_infer.remote.http.dialing.dialer import Dialer
    from atomr_infer.remote.http.exchange import Call
    from atomr_infer.remote.http.pipe import Pipe
    from atomr_infer.remote.http.pool import Pool
    from atomr_infer.remote.http.request_head import RequestHeads
    from atomr_infer.remote.http.watchdog import Watchdog

Connection: TypeAlias = Http1Connection | Http2Connection
Exchange: TypeAlias = Http1Connection | Http2Stream

_PROXY_REFUSES = 407

MAX_TRIES = 3
"""Connections on which a request that was not processed is tried."""


class Connections:
    """Runs exchanges with one origin over connections of its own.

    Attributes:
        active: exchanges under way.
        nursery: runs the tasks of HTTP/2 connections; None outside of the
            client's block.
    """

    def __init__(
        self,
        heads: RequestHeads,
        *,
        dialer: Dialer,
        pool: Pool[Http1Connection, Http2Connection],
        watchdog: Watchdog,
    ) -> None:
        self._heads = heads
        self._dialer = dialer
        self._origin = dialer.origin
        self._pool = pool
        self._watchdog = watchdog
        self._events = ConnectionEvents(str(dialer.origin))
        self._shared: list[Http2Connection] = []
        self._gated = dialer.may_share
        self._opening: trio.Event | None = None
        self._doomed: list[tuple[Http1Connection, str]] = []
        self._closed = False
        self.active = 0
        self.nursery: trio.Nursery | None = None

    @property
    def shared(self) -> int:
        """Open connections of HTTP/2."""
        return len(self._shared)

    async def start(self, call: Call) -> Exchange:
        """Send a request and wait for the head of its answer.

        Raises:
            InferenceError: as ``HttpClient.request``.
        """
        failed: Connection | None = None
        for _ in range(MAX_TRIES):
            connection = self._pick(failed)
            if self._doomed:
                await self._bury()
            if connection is None:
                connection = await self._open(call, failed)
            exchange = await self._ask(connection, call)
            if exchange is not None:
                return exchange
            failed = connection
        raise OverloadedError(
            f"{self._origin} refused the request {MAX_TRIES} times",
            code="refused_stream",
        )

    async def finish(self, exchange: Exchange) -> None:
        """End an exchange: keep its connection, or close what is unfinished."""
        if isinstance(exchange, Http2Stream):
            exchange.finish()
        else:
            self._give_back(exchange)
        if self._doomed:
            await self._bury()

    async def close(self) -> None:
        """Close all connections but those of HTTP/1.1 that are in use.

        They close at the end of their exchange.
        """
        self._closed = True
        for connection in self._pool.clear():
            self._drop(connection, reason="client")
        await self._bury()
        for shared in list(self._shared):
            await shared.close(reason="client")

    # --- taking -----------------------------------------------------------------

    def _pick(self, failed: Connection | None) -> Connection | None:
        """Return a connection that is open and has room.

        Args:
            failed: the one that has just been tried.  After one of HTTP/1.1 no
                kept one is taken again: what closed it closed others too.
        """
        for shared in self._shared:
            if shared is not failed and shared.room:
                self._reused(shared)
                return shared
        if failed is None:
            return self._take()
        return None

    def _take(self) -> Http1Connection | None:
        while True:
            connection, too_old = self._pool.take(trio.current_time())
            for old in too_old:
                self._drop(old, reason="idle")
            if connection is None:
                return None
            if not connection.is_stale():
                self._reused(connection)
                return connection
            self._drop(connection, reason="stale")

    def _reused(self, connection: Connection) -> None:
        if telemetry.handlers:
            self._events.reused(exchanges=connection.exchanges)

    # --- opening ----------------------------------------------------------------

    async def _open(self, call: Call, failed: Connection | None) -> Connection:
        """Open a connection as soon as there is room for one, or take a kept one."""
        due_at = min(trio.current_time() + call.timeouts.connect_s, call.total_at)
        while True:
            if self._gated and self._opening is not None:
                await self._wait_for_another(self._opening, call, due_at)
                shared = self._pick(failed)
                if shared is not None:
                    return shared
                continue
            given = await self._room(due_at)
            if given is None:
                return await self._dial_alone(call, due_at)
            if isinstance(given, Http2Connection):
                if given.room:
                    return given
            elif failed is None:
                self._reused(given)
                return given
            else:
                # Its room is what is wanted: what closed one closed it too.
                self._drop(given, reason="stale")
                await self._bury()

    async def _wait_for_another(
        self, opening: trio.Event, call: Call, due_at: float
    ) -> None:
        with trio.move_on_at(due_at):
            await opening.wait()
            return
        raise self._dialer.too_slow(call, due_at)

    async def _room(self, due_at: float) -> Connection | None:
        if self._pool.reserve():
            return None
        wait_s = due_at - trio.current_time()
        with trio.move_on_at(due_at):
            return await self._pool.wait()
        raise OverloadedError(
            f"no connection to {self._origin} was free within {wait_s:g} s:"
            f" all {self._pool.max_connections} are in use",
            code="pool_timeout",
        )

    async def _dial_alone(self, call: Call, due_at: float) -> Connection:
        """Dial; others wait for its end, and over HTTP/2 for the peer's settings."""
        if not self._gated:
            return await self._dial(call, due_at)
        self._opening = trio.Event()
        connection: Connection | None = None
        try:
            connection = await self._dial(call, due_at)
        finally:
            if not isinstance(connection, Http2Connection):
                self._opened()
        return connection

    def _opened(self) -> None:
        if self._opening is not None:
            self._opening.set()
            self._opening = None

    async def _dial(self, call: Call, due_at: float) -> Connection:
        try:
            opened = await self._dialer.dial(call, due_at)
        except BaseException:
            self._pool.gone()
            raise
        self._gated = self._gated and opened.speaks_http2
        self._events.opened(
            connect_s=opened.connect_s,
            protocol="h2" if opened.speaks_http2 else "http/1.1",
        )
        if opened.speaks_http2:
            return self._share(opened.pipe)
        return Http1Connection(
            opened.pipe, origin=self._origin, watchdog=self._watchdog
        )

    def _share(self, pipe: Pipe) -> Http2Connection:
        assert self.nursery is not None
        shared = Http2Connection(
            pipe,
            origin=self._origin,
            watchdog=self._watchdog,
            max_age_s=self._pool.max_age_s,
            changed=self._shared_changed,
        )
        self.nursery.start_soon(shared.read)
        self.nursery.start_soon(shared.write)
        self._shared.append(shared)
        return shared

    # --- asking -----------------------------------------------------------------

    async def _ask(
        self, connection: Connection, call: Call
    ) -> Http1Connection | Http2Stream | None:
        """Ask; None when it is worth asking again on another connection."""
        if isinstance(connection, Http2Connection):
            return await self._ask_shared(connection, call)
        try:
            await connection.ask(call)
        except UntouchedError:
            await self._discard(connection, reason="failed")
            self._events.retried(reason="untouched")
            return None
        except TRANSPORT_ERRORS as error:
            await self._discard(connection, reason="failed")
            fault = connection.fault(error)
            kept = connection.exchanges > 0 and not connection.answered
            if not _may_repeat(fault, call, kept=kept):
                raise fault from error
            self._events.retried(reason="no_response")
            return None
        except BaseException:
            await self._discard(connection, reason="left")
            raise
        if connection.head.status == _PROXY_REFUSES and not self._dialer.tunnels:
            await self._discard(connection, reason="failed")
            raise self._dialer.fault(ProxyRefusedError(_PROXY_REFUSES))
        return connection

    async def _ask_shared(
        self, connection: Http2Connection, call: Call
    ) -> Http2Stream | None:
        if trio.current_time() - connection.opened_at > self._pool.max_life_s:
            connection.retire()
        fields = self._heads.fields(
            call.method, call.path, headers=call.headers, body_bytes=len(call.body)
        )
        try:
            stream = connection.open(call, fields)
        except RefusedError:
            return None
        try:
            await stream.start()
        except RefusedError:
            stream.finish()
            self._events.retried(reason="refused")
            return None
        except TRANSPORT_ERRORS as error:
            fault = stream.fault(error)
            stream.finish()
            if not _may_repeat(fault, call, kept=stream.kept):
                raise fault from error
            self._events.retried(reason="no_response")
            return None
        except BaseException:
            stream.finish()
            raise
        return stream

    # --- giving back ------------------------------------------------------------

    def _give_back(self, connection: Http1Connection) -> None:
        if self._closed or not connection.recycle():
            self._drop(connection, reason="left")
            return
        now = trio.current_time()
        if now - connection.opened_at > self._pool.max_life_s:
            self._drop(connection, reason="old")
            return
        for surplus in self._pool.put(connection, now):
            self._drop(surplus, reason="surplus")

    def _shared_changed(self, connection: Http2Connection) -> None:
        """Note that a stream has ended, or the whole connection."""
        if connection.error is not None or connection.told:
            self._opened()
        if connection.error is None:
            if connection.room:
                self._pool.offer(connection)
        elif connection in self._shared:
            self._shared.remove(connection)
            self._pool.gone()
            self._tell_closed(connection, reason=connection.end)

    def _drop(self, connection: Http1Connection, *, reason: str) -> None:
        self._pool.gone()
        self._doomed.append((connection, reason))

    async def _discard(self, connection: Http1Connection, *, reason: str) -> None:
        self._drop(connection, reason=reason)
        await self._bury()

    async def _bury(self) -> None:
        while self._doomed:
            connection, reason = self._doomed.pop()
            self._tell_closed(connection, reason=reason)
            await connection.close()

    def _tell_closed(self, connection: Connection, *, reason: str) -> None:
        self._events.closed(
            lifetime_s=trio.current_time() - connection.opened_at,
            exchanges=connection.exchanges,
            reason=reason,
        )


def _may_repeat(fault: UpstreamError, call: Call, *, kept: bool) -> bool:
    """True when a kept connection was gone, as browsers decide it."""
    return kept and isinstance(fault, StreamCutError) and call.replay
