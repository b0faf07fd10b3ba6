"""One client's connection: its requests, answered one after the other.

The task that serves a connection does everything for it.  It has one cancel
scope for all its requests, and four things cancel that:

- the client leaves, or reads nothing, while its request is worked on;
- the request is interrupted, because the server stops; its client is told;
- no request comes in time;
- the connection is closed from here.

A request that is read is answered before the next is looked at, so pipelined
requests are answered in order, and what is buffered of them is one read.
"""

from __future__ import annotations

import enum
import logging
import math
import socket as stdlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.gateway.exchanges.exchange import JSON, ClientGoneError
from atomr_infer.gateway.exchanges.ingresses import REFUSING
from atomr_infer.gateway.exchanges.routes import dialect_of
from atomr_infer.gateway.http1.answer import answer_head
from atomr_infer.gateway.http1.client_socket import ClientSocket
from atomr_infer.gateway.http1.exchange import Http1Exchange
from atomr_infer.gateway.http1.head import BadRequestError, HeadLimits
from atomr_infer.gateway.http1.lanes import Handover, Lane, lane_of
from atomr_infer.gateway.http1.reader import RequestReader

if TYPE_CHECKING:
    from atomr_infer.gateway.http1.head import RequestHead
    from atomr_infer.gateway.http1.poller import Poller

log = logging.getLogger(__name__)

Handler = Callable[[Http1Exchange], Awaitable[None]]

# What a client still sends of a request that was refused is read and dropped,
# or the kernel would reset the connection and the refusal might not be seen.
_LINGER_S = 2.0
_LINGER_BYTES = 4 << 20

# The protocols that hypercorn knows; another upgrade is ignored, as it may be.
_UPGRADES = frozenset({b"websocket", b"h2c"})


@attrs.frozen(kw_only=True)
class Http1Settings:
    """How long a connection is waited for.

    Attributes:
        keep_alive_s: longest silence between two requests.  Coding agents keep
            a connection between turns; 5 s would cost a handshake.
        head_s: longest time that a head may take, from its first byte.
        write_timeout_s: longest time that a client may leave an answer unread.
        head: how large a head may be.
        hypercorn_prefix: paths that begin so are hypercorn's to serve; "": none.
    """

    keep_alive_s: float = 75.0
    head_s: float = 30.0
    write_timeout_s: float = 60.0
    head: HeadLimits = attrs.field(factory=HeadLimits)
    hypercorn_prefix: str = ""


class _End(enum.Enum):
    """Why the scope was cancelled."""

    LOST = "the client left or does not read"
    INTERRUPTED = "the server stops"
    LATE = "no request came in time"
    CLOSED = "closed from here"


class Connection:
    """A connection that speaks HTTP/1.1.

    Attributes:
        socket: the client's.
        reader: what was read of it.
        working: the client's leaving, or an interrupt, cancels.
        last: no other request is taken.
        due_at: when the next request is late.
        clear_text: False refuses whoever does not begin with TLS.
    """

    def __init__(
        self,
        sock: stdlib.socket,
        poller: Poller,
        handler: Handler,
        settings: Http1Settings,
    ) -> None:
        self.socket = ClientSocket(
            sock, write_timeout_s=settings.write_timeout_s, lost=self._lost
        )
        self.reader = RequestReader(settings.head)
        self.working = False
        self.last = False
        self.due_at = math.inf
        self.clear_text = True
        self._sock = sock
        self._poller = poller
        self._handler = handler
        self._settings = settings
        self._scope = trio.CancelScope()
        self._end: _End | None = None
        self._idle = True
        self._exchange: Http1Exchange | None = None

    @property
    def date(self) -> bytes:
        """The date field."""
        return self._poller.date

    async def run(self) -> Handover | None:
        """Serve until the socket is to be closed, or served by another lane.

        Neither is done here.

        Cancellation: the client is told nothing.
        """
        with self._scope:
            try:
                return await self._serve()
            except BadRequestError as error:
                await self._refuse(error)
        with trio.CancelScope() as self._scope:
            if self._end is _End.INTERRUPTED:
                await self._tell_stopped()
            elif self._end is _End.LATE and not self._idle:
                problem = "the head did not arrive in time"
                await self._refuse(BadRequestError(408, problem))
        return None

    # --- what happens to it ---------------------------------------------------

    def wake(self, *, ended: bool) -> None:
        """Take note that there is something to read."""
        self.socket.wake(ended=ended)
        if ended and self.working:
            exchange = self._exchange
            if exchange is not None and not exchange.ended:
                self._lost()

    def expire(self) -> None:
        """Take note that no request came in time."""
        self._cancel(_End.LATE)

    def interrupt(self) -> None:
        """Cancel the work of the request; its client is told."""
        self._cancel(_End.INTERRUPTED)

    def close(self) -> None:
        """End it at once, whatever it is doing."""
        self._end = _End.CLOSED
        self._scope.cancel()

    def retire(self) -> None:
        """End it after the answer that is under way, at once when there is none."""
        self.last = True
        if self._idle:
            self._cancel(_End.CLOSED)

    def _lost(self) -> None:
        self._cancel(_End.LOST)

    def _cancel(self, end: _End) -> None:
        self._end = self._end or end
        self._scope.cancel()

    # --- its requests ---------------------------------------------------------

    async def _serve(self) -> Handover | None:
        lane = await self._first_lane()
        if lane not in {Lane.TLS, None} and not self.clear_text:
            raise BadRequestError(400, "this port takes TLS only: use https")
        if lane is not Lane.HTTP1:
            return Handover(lane, self.reader.unread) if lane else None
        while (head := await self._next_head()) is not None:
            if self._is_hypercorns(head) and not self.last:
                return Handover(Lane.HYPERCORN, self.reader.from_head)
            exchange = self._exchange = Http1Exchange(self, head)
            await self._answer(exchange)
            if not (exchange.ended and exchange.keep and self._skip_body()):
                await self._linger()
                return None
        return None

    def _is_hypercorns(self, head: RequestHead) -> bool:
        prefix = self._settings.hypercorn_prefix
        return head.upgrade in _UPGRADES or (
            prefix != "" and head.path.startswith(prefix)
        )

    async def _first_lane(self) -> Lane | None:
        """Read until it is clear who serves; None when nobody has to."""
        self._wait_for(self._settings.keep_alive_s)
        while (lane := lane_of(self.reader.unread)) is None:
            data = b"" if self._idle and self.last else await self.socket.receive()
            if not data:
                return None
            self._idle = False
            self.reader.feed(data)
        return lane

    async def _next_head(self) -> RequestHead | None:
        """Wait for the next request; None when none will come."""
        reader = self.reader
        started = not reader.is_empty
        if started:  # pipelined, mostly
            head = reader.next_head()
            if head is not None:
                return self._found(head)
        self._idle = not started
        if self._idle and self.last:
            return None
        settings = self._settings
        self._wait_for(settings.head_s if started else settings.keep_alive_s)
        while data := await self.socket.receive():
            reader.feed(data)
            head = reader.next_head()
            if head is not None:
                return self._found(head)
            if not started:
                started, self._idle = True, False
                self._wait_for(settings.head_s)
        return None

    def _found(self, head: RequestHead) -> RequestHead:
        self._idle = False
        self.due_at = math.inf
        return head

    def _wait_for(self, wait_s: float) -> None:
        self.due_at = self._poller.now + wait_s

    async def _answer(self, exchange: Http1Exchange) -> None:
        try:
            await self._handler(exchange)
        except ClientGoneError:
            exchange.keep = False
        except BadRequestError:
            exchange.keep = False
            if not exchange.started:
                raise
        except Exception:
            # The boundary of one connection: the others must not feel it.
            log.exception("%s %s: internal error", exchange.method, exchange.path)
            exchange.keep = False
            if not exchange.started:
                await exchange.answer(500, b"")

    def _skip_body(self) -> bool:
        """Pass over what the handler did not read; False: it is not all here."""
        reader = self.reader
        try:
            while reader.head is not None:
                if reader.next_piece() == b"":
                    return False
        except BadRequestError:
            return False  # its answer is given; there is no second one
        return True

    # --- how it ends ------------------------------------------------------------

    async def _refuse(self, error: BadRequestError) -> None:
        refusing = REFUSING[dialect_of(error.target, {})]
        body = refusing.plain(error.status, error.message, "").body
        head = answer_head(
            error.status,
            [JSON, (b"content-length", b"%d" % len(body))],
            date=self.date,
            http10=False,
            bodiless=False,
            close=True,
        )
        await self.socket.send(head.data + body)
        await self._linger()

    async def _tell_stopped(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.stopped is not None:
            if not exchange.ended:
                await exchange.stopped()
            await self._linger()

    async def _linger(self) -> None:
        """Let the client read its answer while it may still be sending."""
        if self.reader.head is None and self.reader.is_empty:
            return
        self._sock.shutdown(stdlib.SHUT_WR)
        left = _LINGER_BYTES
        with trio.move_on_after(_LINGER_S):
            while left > 0 and (data := await self.socket.receive()):
                left -= len(data)
