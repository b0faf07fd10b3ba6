"""One HTTP/1.1 connection to an upstream: h11 decides, a trio stream moves.

An exchange is :meth:`HttpConnection.send`, :meth:`~HttpConnection.receive_head`,
then :meth:`~HttpConnection.receive_body` until it returns None.  After that,
:meth:`~HttpConnection.recycle` says whether the connection can take another.

Errors leave here as trio, h11 and ssl raise them; ``atomr_infer.remote.http``
translates them.  No timeouts here either.

Source: RFC 9112.
"""

from __future__ import annotations

import h11
import trio

READ_BYTES = 65536
"""One read.  A whole streamed event fits, and so do many small answers."""

MAX_HEAD_BYTES = 65536
"""Status line and headers together; nginx and Node refuse far less (8-16 KiB)."""


PIECE_BYTES = 16384
"""What is written at once: the smallest send buffer of Linux, and a TLS record."""


class PeerClosedError(Exception):
    """The peer ended the connection before the head of its answer was whole."""


class HttpConnection:
    """A connection over any byte stream; one exchange at a time.

    Attributes:
        exchanges: exchanges that ended well.
        answered: True once a byte of the current answer has arrived.
        at_eof: True once the peer has ended its side.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._broken = False
        self._early_head: h11.Response | None = None
        self.exchanges = 0
        self.answered = False
        self.at_eof = False

    async def send(self, request: h11.Request, body: bytes) -> None:
        """Send a request, the small one in one write.

        A peer may answer before it has read everything (413, 429) and read no
        further.  So the answer is looked out for meanwhile: its final head, or
        the peer's end, ends the sending (RFC 9112, 9.5), and the connection
        takes no other request.  For the same reason a broken write is not an
        error yet: :meth:`receive_head` tells.
        """
        self.answered = False
        self._early_head = None
        head = self._h11.send(request) or b""
        data = self._h11.send(h11.Data(data=body)) or b""
        end = self._h11.send(h11.EndOfMessage()) or b""
        request_bytes = head + data + end
        # What fits the send buffer needs no reader, so it cannot be stuck.
        if len(request_bytes) <= PIECE_BYTES:
            sent = await self._send_pieces(request_bytes)
        else:
            sent = await self._send_watched(request_bytes)
        self._broken = self._broken or not sent

    async def receive_head(self) -> h11.Response:
        """Wait for the final status line and headers; 1xx are passed over.

        Raises:
            PeerClosedError: the peer ended the connection instead.
        """
        if self._early_head is not None:
            return self._early_head
        while not self.at_eof:
            event = self._h11.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                await self._read()
        raise PeerClosedError("the connection ended before an answer")

    async def receive_body(self) -> bytes | None:
        """Wait for the next piece of the body; None when it is complete."""
        while (piece := self.receive_body_nowait()) == b"":
            await self._read()
        return piece

    def receive_body_nowait(self) -> bytes | None:
        """Return what is already here of the body: b"" for nothing yet."""
        if self._h11.their_state is not h11.SEND_BODY:
            self._check_ended()
            return None
        event = self._h11.next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return None if isinstance(event, h11.EndOfMessage) else b""

    def recycle(self) -> bool:
        """Make ready for the next exchange; False when that cannot be."""
        if self._broken or self.at_eof or self._h11.trailing_data[0]:
            return False
        if self._h11.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        self._h11.start_next_cycle()
        self.exchanges += 1
        self.answered = False
        return True

    def is_stale(self) -> bool:
        """True when an idle connection has something to read: its end, mostly.

        Only sockets can be asked; for other streams the answer is False, and
        the failing exchange tells.
        """
        stream: object = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return isinstance(stream, trio.SocketStream) and stream.socket.is_readable()

    async def close(self) -> None:
        """Close at once, without farewell; safe to call in a cancelled scope."""
        await trio.aclose_forcefully(self._stream)

    async def _send_watched(self, data: bytes) -> bool:
        """Send until all is sent or the answer is here; True when all is."""
        sent = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            sent = await self._send_pieces(data)
            nursery.cancel_scope.cancel()
        return sent

    async def _send_pieces(self, data: bytes) -> bool:
        """Send all; False when the peer takes no more."""
        view = memoryview(data)
        try:
            await self._stream.send_all(view[:PIECE_BYTES])
            for start in range(PIECE_BYTES, len(view), PIECE_BYTES):
                # The waiting is done here and not inside the write: a write
                # that is cancelled would leave a TLS stream unreadable.
                await self._stream.wait_send_all_might_not_block()
                await self._stream.send_all(view[start : start + PIECE_BYTES])
        except trio.BrokenResourceError:
            return False
        return True

    async def _watch(self, sending: trio.CancelScope) -> None:
        try:
            self._early_head = await self.receive_head()
        except (h11.RemoteProtocolError, trio.BrokenResourceError, PeerClosedError):
            # Whatever it was, the next receive_head meets it again and says so.
            self._broken = True
        sending.cancel()

    def _check_ended(self) -> None:
        # h11 keeps its ERROR state after a protocol error was raised once.
        if self._h11.their_state is h11.ERROR:
            raise h11.RemoteProtocolError("the answer broke off earlier")

    async def _read(self) -> bool:
        data = bytes(await self._stream.receive_some(READ_BYTES))
        if data:
            self.answered = True
        else:
            self.at_eof = True
        self._h11.receive_data(data)
        return bool(data)
