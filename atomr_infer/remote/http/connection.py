"""One HTTP/1.1 connection to an upstream, in the task of whoever uses it.

An exchange is :meth:`Http1Connection.ask`, then
:meth:`~Http1Connection.receive` until it returns None.  After that,
:meth:`~Http1Connection.recycle` says whether the connection can take another.

There is one time limit at a time, ``due_at``; the client's watchdog closes the
connection when it has passed, and the wait then ends with ``TooSlowError``.

Source: RFC 9112.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from atomr_infer.remote.http.http1 import (
    FramingError,
    PeerClosedError,
    ResponseHead,
    ResponseReader,
)
from atomr_infer.remote.http.limited import Limited
from atomr_infer.remote.http.phases import TRANSPORT_ERRORS, Phase

if TYPE_CHECKING:
    from atomr_infer.remote.http.exchange import Call
    from atomr_infer.remote.http.origin import Origin
    from atomr_infer.remote.http.pipe import Pipe
    from atomr_infer.remote.http.watchdog import Watchdog

PIECE_BYTES = 16384
"""What is written at once: the smallest send buffer of Linux, and a TLS record."""


_WRITING = Phase.WRITE
_BEFORE_HEAD = Phase.HEAD
_IN_BODY = Phase.BODY


class UntouchedError(Exception):
    """A kept connection was gone before a byte of the request was written."""


class Http1Connection(Limited):
    """A connection over any byte stream; one exchange at a time.

    Attributes:
        opened_at: when it was opened.
        exchanges: exchanges that ended well.
        answered: True once a byte of the current answer has arrived.
        head: that of the current answer.
    """

    __slots__ = (
        "_clean",
        "_early_head",
        "_overdue",
        "_pipe",
        "_reader",
        "answered",
        "exchanges",
        "head",
        "opened_at",
    )

    head: ResponseHead

    def __init__(self, pipe: Pipe, *, origin: Origin, watchdog: Watchdog) -> None:
        super().__init__(origin=origin, watchdog=watchdog)
        self._pipe = pipe
        self._reader = ResponseReader()
        self._clean = True
        self._overdue = False
        self._early_head: ResponseHead | None = None
        self.opened_at = trio.current_time()
        self.exchanges = 0
        self.answered = False
        watchdog.watched.add(self)

    async def ask(self, call: Call) -> None:
        """Send a request and wait for the final head; 1xx are passed over.

        Raises:
            UntouchedError: nothing was written, and nothing ever will be.
            Exception: one of ``TRANSPORT_ERRORS``; :meth:`fault` translates it.
        """
        self._call = call
        self._phase = _WRITING
        self._early_head = head = None
        self.answered = False
        self._reader.expect(call.method)
        try:
            rest = self._send_nowait(call.head, call.body)
            if rest:
                head = await self._send_rest(rest)
            self._limit(_BEFORE_HEAD, call.timeouts.head_s)
            while head is None:
                await self._read()
                head = self._reader.head()
        finally:
            self.due_at = math.inf
        self.head = head

    async def receive(self) -> bytes | None:
        """Return the next piece of the body; None when it is complete.

        Raises:
            InferenceError: as ``HttpResponse.receive``.
        """
        reader = self._reader
        try:
            piece = reader.piece()
            if piece == b"":
                self._limit(_IN_BODY, self._call.timeouts.idle_s)
                while piece == b"":
                    await self._read()
                    piece = reader.piece()
        except TRANSPORT_ERRORS as error:
            self._phase = _IN_BODY
            raise self.fault(error) from error
        finally:
            self.due_at = math.inf
        return piece

    def recycle(self) -> bool:
        """Make ready for the next exchange; False when that cannot be.

        What is here already of the answer's end is read, so that who stops at
        the last event of a stream does not lose the connection.
        """
        if not (self.head.keeps and self._clean) or self._overdue:
            return False
        if not self._reader.done and not self._is_last():
            return False
        self.exchanges += 1
        return self._reader.clean

    def is_stale(self) -> bool:
        """True when an idle connection has something to read: its end, mostly.

        Only sockets can be asked; for other streams the answer is False, and
        the failing exchange tells.
        """
        return self._pipe.is_readable()

    async def expire(self) -> None:
        """End the wait under way: its time is over."""
        self._overdue = True
        await self._pipe.close()

    async def close(self) -> None:
        """Close at once, without farewell; safe to call in a cancelled scope."""
        self._watchdog.watched.discard(self)
        await self._pipe.close()

    def _is_last(self) -> bool:
        try:
            return self._reader.piece() is None
        except (FramingError, PeerClosedError):
            # Whoever left did not want the rest; the connection is closed.
            return False

    async def _read(self) -> None:
        try:
            data = await self._pipe.receive()
        except trio.ClosedResourceError as error:
            if self._overdue:
                raise trio.TooSlowError from error
            raise
        if data:
            self.answered = True
        self._reader.feed(data)

    # --- sending ----------------------------------------------------------------

    def _send_nowait(self, head: bytes, body: bytes) -> list[memoryview]:
        """Write what the socket takes; return the rest."""
        # A big body is not copied: what is behind the first piece goes apart.
        first = head + body if len(body) <= PIECE_BYTES else head + body[:PIECE_BYTES]
        parts = [memoryview(first)]
        if len(body) > PIECE_BYTES:
            parts.append(memoryview(body)[PIECE_BYTES:])
        try:
            while parts:
                sent = self._pipe.send_nowait(parts[0])
                if sent < len(parts[0]):
                    parts[0] = parts[0][sent:]
                    return parts
                del parts[0]
        except OSError as error:
            # Behind the first byte a broken write is not an error yet: the
            # peer may have answered, and the reading tells.
            if self.exchanges and len(parts[0]) == len(first):
                raise UntouchedError from error
            self._clean = False
        return []

    async def _send_rest(self, parts: list[memoryview]) -> ResponseHead | None:
        """Send what the socket did not take, and look out for an early answer.

        A peer may answer before it has read everything (413, 429) and read no
        further.  So its final head, or its end, ends the sending (RFC 9112,
        9.5), and the connection takes no other request.
        """
        self._limit(_WRITING, self._call.timeouts.write_s)
        if sum(map(len, parts)) <= PIECE_BYTES:
            # What fits the send buffer needs no reader, so it cannot be stuck.
            sent = await self._send_pieces(parts)
        else:
            sent = await self._send_watched(parts)
        if self._overdue:
            raise trio.TooSlowError
        self._clean = self._clean and sent
        return self._early_head or self._reader.head()

    async def _send_watched(self, parts: list[memoryview]) -> bool:
        """Send until all is sent or the answer is here; True when all is."""
        sent = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            sent = await self._send_pieces(parts)
            nursery.cancel_scope.cancel()
        return sent

    async def _send_pieces(self, parts: list[memoryview]) -> bool:
        """Send all; False when the peer takes no more."""
        try:
            for part in parts:
                for start in range(0, len(part), PIECE_BYTES):
                    # The waiting is done here and not inside the write: a write
                    # that is cancelled would leave a TLS stream unreadable.
                    await self._pipe.wait_writable()
                    await self._pipe.send(part[start : start + PIECE_BYTES])
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return False
        return True

    async def _watch(self, sending: trio.CancelScope) -> None:
        # Whatever goes wrong, the next read meets it again and says so.
        with suppress(*TRANSPORT_ERRORS):
            while self._early_head is None:
                await self._read()
                self._early_head = self._reader.head()
        sending.cancel()
