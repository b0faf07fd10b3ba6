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
        self.exchanges = 0
        self.answered = False
        self.at_eof = False

    async def send(self, request: h11.Request, body: bytes) -> None:
        """Send a request in one write.

        A peer that stops reading may have answered first (413, 429), so a
        broken write is not an error yet: :meth:`receive_head` tells.
        """
        self.answered = False
        head = self._h11.send(request) or b""
        data = self._h11.send(h11.Data(data=body)) or b""
        end = self._h11.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.send_all(head + data + end)
        except trio.BrokenResourceError:
            self._broken = True

    async def receive_head(self) -> h11.Response:
        """Wait for the final status line and headers; 1xx are passed over.

        Raises:
            PeerClosedError: the peer ended the connection instead.
        """
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA and not await self._read():
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
