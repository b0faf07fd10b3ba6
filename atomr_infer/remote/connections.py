"""The HTTP/1.1 connections of a client: taken, opened, asked, given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import OverloadedError, StreamCutError, UpstreamError
from atomr_infer.remote.connection import Http1Connection, UntouchedError
from atomr_infer.remote.exchange import Call, Http1Exchange
from atomr_infer.remote.phases import TRANSPORT_ERRORS, Phase, translate
from atomr_infer.remote.pipe import open_pipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.remote.events import ConnectionEvents
    from atomr_infer.remote.origin import Origin
    from atomr_infer.remote.pool import Pool
    from atomr_infer.remote.tcp import Connect
    from atomr_infer.remote.watchdog import Watchdog


class Connections:
    """Runs exchanges with one origin over connections of its own."""

    def __init__(
        self,
        origin: Origin,
        *,
        connect: Connect,
        pool: Pool[Http1Connection],
        watchdog: Watchdog,
        events: ConnectionEvents,
    ) -> None:
        self._origin = origin
        self._connect = connect
        self._pool = pool
        self._watchdog = watchdog
        self._events = events
        self._closed = False

    async def start(self, call: Call) -> Http1Exchange:
        """Send a request and wait for the head of its answer.

        Raises:
            InferenceError: as ``HttpClient.request``.
        """
        connection = await self._acquire(call)
        try:
            return await self._ask(connection, call)
        except UntouchedError:
            self._events.retried(reason="untouched")
        except StreamCutError:
            if not connection.exchanges or connection.answered or not call.replay:
                raise
            self._events.retried(reason="no_response")
        return await self._ask(await self._open(call), call)

    async def close(self) -> None:
        """Close the idle connections; the others close at their exchange's end."""
        self._closed = True
        await self._discard_all(self._pool.clear(), reason="client")

    async def _acquire(self, call: Call) -> Http1Connection:
        while True:
            connection, too_old = self._pool.take(trio.current_time())
            await self._discard_all(too_old, reason="idle")
            if connection is None:
                return await self._open(call, kept=True)
            if not connection.is_stale():
                self._events.reused(exchanges=connection.exchanges)
                return connection
            await self._discard(connection, reason="stale")

    async def _open(self, call: Call, *, kept: bool = False) -> Http1Connection:
        """Open a connection as soon as there is room for one.

        Args:
            call: whose limits apply.
            kept: while waiting, take one that was given back instead.
        """
        due_at = min(trio.current_time() + call.timeouts.connect_s, call.total_at)
        given = await self._room(due_at)
        if given is None:
            return await self._dial(call, due_at)
        if kept:
            self._events.reused(exchanges=given.exchanges)
            return given
        # Its room is what was wanted.
        await self._shut(given, reason="surplus")
        return await self._dial(call, due_at)

    async def _room(self, due_at: float) -> Http1Connection | None:
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

    async def _dial(self, call: Call, due_at: float) -> Http1Connection:
        started_at = trio.current_time()
        try:
            with trio.fail_at(due_at):
                stream = await self._connect(self._origin)
        except TRANSPORT_ERRORS as error:
            self._pool.gone()
            late_in = Phase.TOTAL if due_at == call.total_at else Phase.CONNECT
            raise self._fault(error, Phase.CONNECT, late_in, call) from error
        except BaseException:
            self._pool.gone()
            raise
        connect_s = trio.current_time() - started_at
        self._events.opened(connect_s=connect_s, protocol="http/1.1")
        return Http1Connection(open_pipe(stream), self._watchdog)

    async def _ask(self, connection: Http1Connection, call: Call) -> Http1Exchange:
        try:
            head = await connection.ask(
                call.head,
                call.body,
                method=call.method,
                timeouts=call.timeouts,
                total_at=call.total_at,
            )
        except TRANSPORT_ERRORS as error:
            await self._discard(connection, reason="failed")
            late_in = connection.late_in
            raise self._fault(error, connection.phase, late_in, call) from error
        except BaseException:
            await self._discard(connection, reason="left")
            raise
        return Http1Exchange(
            connection,
            head,
            origin=self._origin,
            timeouts=call.timeouts,
            release=self._release,
        )

    async def _release(self, connection: Http1Connection) -> None:
        now = trio.current_time()
        if self._closed or not connection.recycle():
            await self._discard(connection, reason="left")
        elif now - connection.opened_at > self._pool.max_life_s:
            await self._discard(connection, reason="old")
        else:
            surplus = self._pool.put(connection, now)
            if surplus:
                await self._discard_all(surplus, reason="surplus")

    async def _discard_all(
        self, connections: Iterable[Http1Connection], *, reason: str
    ) -> None:
        for connection in connections:
            await self._discard(connection, reason=reason)

    async def _discard(self, connection: Http1Connection, *, reason: str) -> None:
        self._pool.gone()
        await self._shut(connection, reason=reason)

    async def _shut(self, connection: Http1Connection, *, reason: str) -> None:
        self._events.closed(
            lifetime_s=trio.current_time() - connection.opened_at,
            exchanges=connection.exchanges,
            reason=reason,
        )
        await connection.close()

    def _fault(
        self, error: BaseException, phase: Phase, late_in: Phase, call: Call
    ) -> UpstreamError:
        return translate(
            error,
            phase=phase,
            late_in=late_in,
            origin=self._origin,
            seconds=call.timeouts.of(late_in),
        )
