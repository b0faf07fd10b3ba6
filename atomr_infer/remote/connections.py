"""The HTTP/1.1 connections of a client: taken, opened, asked, given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr_infer.errors import OverloadedError, StreamCutError, UpstreamError
from atomr_infer.remote.connection import Http1Connection, UntouchedError
from atomr_infer.remote.phases import TRANSPORT_ERRORS, Phase, translate
from atomr_infer.remote.pipe import open_pipe

if TYPE_CHECKING:
    from atomr_infer.remote.events import ConnectionEvents
    from atomr_infer.remote.exchange import Call
    from atomr_infer.remote.origin import Origin
    from atomr_infer.remote.pool import Pool
    from atomr_infer.remote.tcp import Connect
    from atomr_infer.remote.watchdog import Watchdog


class Connections:
    """Runs exchanges with one origin over connections of its own.

    Attributes:
        active: exchanges under way.
    """

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
        self._doomed: list[tuple[Http1Connection, str]] = []
        self._closed = False
        self.active = 0

    async def start(self, call: Call) -> Http1Connection:
        """Send a request and wait for the head of its answer.

        Raises:
            InferenceError: as ``HttpClient.request``.
        """
        self.active += 1
        try:
            connection = self._take()
            if self._doomed:
                await self._bury()
            if connection is None:
                connection = await self._open(call, kept=True)
            if await self._ask(connection, call):
                return connection
            connection = await self._open(call)
            await self._ask(connection, call)
        except BaseException:
            self.active -= 1
            raise
        return connection

    async def finish(self, connection: Http1Connection) -> None:
        """End an exchange: keep its connection, or close what is unfinished."""
        self.active -= 1
        if self._closed or not connection.recycle():
            self._drop(connection, reason="left")
        else:
            now = trio.current_time()
            if now - connection.opened_at > self._pool.max_life_s:
                self._drop(connection, reason="old")
            else:
                for surplus in self._pool.put(connection, now):
                    self._drop(surplus, reason="surplus")
        if self._doomed:
            await self._bury()

    async def close(self) -> None:
        """Close the idle connections; the others close at their exchange's end."""
        self._closed = True
        for connection in self._pool.clear():
            self._drop(connection, reason="client")
        await self._bury()

    def _take(self) -> Http1Connection | None:
        while True:
            connection, too_old = self._pool.take(trio.current_time())
            for old in too_old:
                self._drop(old, reason="idle")
            if connection is None:
                return None
            if not connection.is_stale():
                if telemetry.handlers:
                    self._events.reused(exchanges=connection.exchanges)
                return connection
            self._drop(connection, reason="stale")

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
        self._doomed.append((given, "surplus"))
        await self._bury()
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
            raise translate(
                error,
                phase=Phase.CONNECT,
                late_in=late_in,
                origin=self._origin,
                seconds=call.timeouts.of(late_in),
            ) from error
        except BaseException:
            self._pool.gone()
            raise
        connect_s = trio.current_time() - started_at
        self._events.opened(connect_s=connect_s, protocol="http/1.1")
        return Http1Connection(
            open_pipe(stream), origin=self._origin, watchdog=self._watchdog
        )

    async def _ask(self, connection: Http1Connection, call: Call) -> bool:
        """Ask; False when it is worth asking again on a fresh connection."""
        try:
            await connection.ask(call)
        except UntouchedError:
            await self._discard(connection, reason="failed")
            self._events.retried(reason="untouched")
            return False
        except TRANSPORT_ERRORS as error:
            await self._discard(connection, reason="failed")
            fault = connection.fault(error)
            if not _may_repeat(connection, call, fault):
                raise fault from error
            self._events.retried(reason="no_response")
            return False
        except BaseException:
            await self._discard(connection, reason="left")
            raise
        return True

    def _drop(self, connection: Http1Connection, *, reason: str) -> None:
        self._pool.gone()
        self._doomed.append((connection, reason))

    async def _discard(self, connection: Http1Connection, *, reason: str) -> None:
        self._drop(connection, reason=reason)
        await self._bury()

    async def _bury(self) -> None:
        while self._doomed:
            connection, reason = self._doomed.pop()
            self._events.closed(
                lifetime_s=trio.current_time() - connection.opened_at,
                exchanges=connection.exchanges,
                reason=reason,
            )
            await connection.close()


def _may_repeat(connection: Http1Connection, call: Call, fault: UpstreamError) -> bool:
    """True when a kept connection was gone, as browsers decide it."""
    kept = connection.exchanges > 0
    gone = isinstance(fault, StreamCutError) and not connection.answered
    return kept and gone and call.replay
