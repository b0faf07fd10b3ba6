"""One exchange on a stream of an HTTP/2 connection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from atomr.waking import Wakeup
from atomr_infer.remote.http.http2.protocol import RefusedError
from atomr_infer.remote.http.limited import Limited
from atomr_infer.remote.http.phases import TRANSPORT_ERRORS, Phase

if TYPE_CHECKING:
    from atomr_infer.remote.http.exchange import Call
    from atomr_infer.remote.http.http1 import ResponseHead
    from atomr_infer.remote.http.http2.connection import Http2Connection
    from atomr_infer.remote.http.http2.protocol import Answer
    from atomr_infer.remote.http.origin import Origin
    from atomr_infer.remote.http.watchdog import Watchdog


class Http2Stream(Limited):
    """See ``Exchange``; it has a stream to itself and shares the connection.

    Attributes:
        answer: what has come.
        wakeup: set when something has changed.
        head: status and headers.
    """

    __slots__ = ("_connection", "_overdue", "answer", "head", "started_at", "wakeup")

    head: ResponseHead

    def __init__(
        self,
        connection: Http2Connection,
        answer: Answer,
        call: Call,
        *,
        origin: Origin,
        watchdog: Watchdog,
    ) -> None:
        super().__init__(origin=origin, watchdog=watchdog)
        self._connection = connection
        self._call = call
        self._overdue = False
        self.answer = answer
        self.wakeup = Wakeup()
        self.started_at = trio.current_time()
        watchdog.watched.add(self)

    @property
    def kept(self) -> bool:
        """True when the connection had carried an exchange before."""
        return self._connection.exchanges > 0

    async def start(self) -> None:
        """Send the rest of the body and wait for the head.

        Raises:
            RefusedError: the peer has not processed the request.
            Exception: one of ``TRANSPORT_ERRORS``; :meth:`fault` translates it.
        """
        answer = self.answer
        try:
            if answer.unsent:
                self._limit(Phase.WRITE, self._call.timeouts.write_s)
                while answer.unsent and answer.head is None and not answer.over:
                    self._connection.push(self)
                    if answer.unsent:
                        await self._wait()
            self._limit(Phase.HEAD, self._call.timeouts.head_s)
            while answer.head is None:
                if answer.error is not None:
                    raise answer.error
                await self._wait()
        except trio.TooSlowError:
            if self._connection.read_at < self.started_at:
                # A connection on which nothing comes may be no connection.
                self._connection.retire()
            raise
        finally:
            self.due_at = math.inf
        self.head = answer.head

    async def receive(self) -> bytes | None:
        """Return the next piece of the body; None when it is complete.

        Raises:
            InferenceError: as ``HttpResponse.receive``.
        """
        try:
            piece = self._connection.take(self)
            if piece == b"":
                self._limit(Phase.BODY, self._call.timeouts.idle_s)
                while piece == b"":
                    await self._wait()
                    piece = self._connection.take(self)
        except (*TRANSPORT_ERRORS, RefusedError) as error:
            self._phase = Phase.BODY
            raise self.fault(error) from error
        finally:
            self.due_at = math.inf
        return piece

    async def expire(self) -> None:
        """End the wait under way: its time is over."""
        self._overdue = True
        self.wakeup.set()

    def finish(self) -> None:
        """End the exchange; the peer sees it at once when it was not over."""
        self._watchdog.watched.discard(self)
        self._connection.close_stream(self, well=self.answer.ended)

    async def _wait(self) -> None:
        await self.wakeup.wait()
        if self._overdue:
            raise trio.TooSlowError
