"""An exchange over our own HTTP/1.1.

Nothing is made for a request but this object: no task, no cancel scope, no
lock.  Its work is cancelled by its connection's scope, which the poller's
report of a client that left cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from atomr_infer.gateway.exchanges.exchange import (
    BodyTooLargeError,
    ClientGoneError,
    Exchange,
    Headers,
    Work,
)
from atomr_infer.gateway.http1.answer import (
    CONTINUE,
    LAST_CHUNK,
    AnswerHead,
    answer_head,
    chunk,
)

if TYPE_CHECKING:
    from atomr_infer.gateway.http1.client_socket import ClientSocket
    from atomr_infer.gateway.http1.head import RequestHead
    from atomr_infer.gateway.http1.reader import RequestReader

# A body may be large and its line slow; a byte now and then is no upload.
_BODY_FACTOR = 10


class Holder(Protocol):
    """The connection that an exchange is of.

    Attributes:
        socket: the client's.
        reader: what was read of it.
        working: the client's leaving, or an interrupt, cancels.
        last: no other request is taken.
    """

    socket: ClientSocket
    reader: RequestReader
    working: bool
    last: bool

    @property
    def date(self) -> bytes:
        """The date field."""
        ...

    def interrupt(self) -> None:
        """Cancel the work."""
        ...


class Http1Exchange(Exchange):
    """A request of a connection's, and its answer.

    Attributes:
        head: the request's.
        keep: whether the connection may take another request after this one.
        stopped: tells the client that its work was interrupted.
    """

    __slots__ = ("_answer", "_connection", "_head_data", "head", "keep", "stopped")

    def __init__(self, connection: Holder, head: RequestHead) -> None:
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self.started = False
        self.status = 0
        self.ended = False
        self.extra = ()
        self.notes = head.notes
        self.head = head
        self.keep = head.keep_alive
        self.stopped: Work | None = None
        self._connection = connection
        self._answer: AnswerHead | None = None
        self._head_data = b""

    def header(self, name: bytes) -> bytes | None:
        """Return a request header by its lower-case name; None when absent."""
        return self.head.fields.get(name)

    async def read_body(self, *, limit_bytes: int, timeout_s: float) -> bytes:
        """Return the whole request body; see :class:`Exchange`."""
        length = self.head.length
        if length is not None and length > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        reader = self._connection.reader
        piece = reader.next_piece()
        if piece is None:
            return b""
        if len(piece) == length:  # it came with its head, as most do
            reader.next_piece()
            return piece
        if not piece and self.head.expect_continue:
            await self._connection.socket.send(CONTINUE)
        return await self._read_rest(piece, limit_bytes, timeout_s)

    async def run(self, work: Work, *, stopped: Work) -> None:
        """Do the work; its connection's scope is what cancels it."""
        connection = self._connection
        if connection.socket.ended:
            raise ClientGoneError
        self.stopped = stopped
        connection.working = True
        try:
            await work()
        finally:
            connection.working = False

    def interrupt(self) -> None:
        """Cancel the work; does not wait."""
        # One that sends its last bytes is as good as done.
        if self._connection.working and not self.ended:
            self._connection.interrupt()

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self._start(status, headers)

    def begin(self, status: int, headers: Headers, data: bytes) -> None:
        """Begin the answer and send a first piece of its body; does not wait."""
        self._start(status, headers)
        self._connection.socket.nudge(self._framed(data), needed=True)

    def _start(self, status: int, headers: Headers) -> None:
        assert self._answer is None, "an answer begins once"
        self._answer = answer_head(
            status,
            [*headers, *self.extra] if self.extra else headers,
            date=self._connection.date,
            http10=self.head.http10,
            bodiless=self.method == "HEAD",
            close=self._connection.last or not self.keep,
        )
        self._head_data = self._answer.data
        self.keep = not self._answer.close
        self.started = True
        self.status = status

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        framed = self._framed(data)
        if framed:
            await self._connection.socket.send(framed)

    def nudge(self, data: bytes) -> None:
        """Send a piece of the body now, or not at all."""
        if not self.ended:
            self._connection.socket.nudge(self._framed(data))

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        self.ended = True
        framed = self._framed(data)
        answer = self._answer
        assert answer is not None, "start() comes first"
        if answer.chunked:
            framed += LAST_CHUNK
        elif answer.left:
            self.keep = False  # shorter than it said: only the end shows that
        if framed:
            await self._connection.socket.send(framed)

    def _framed(self, data: bytes) -> bytes:
        answer = self._answer
        assert answer is not None, "start() comes first"
        head, self._head_data = self._head_data, b""
        if not data or answer.bodiless:
            return head
        if answer.chunked:
            return head + chunk(data)
        if answer.left is not None:
            answer.left -= len(data)
            if answer.left < 0:
                raise RuntimeError("the body is longer than its content-length")
        return head + data

    async def _read_rest(
        self, piece: bytes | None, limit_bytes: int, timeout_s: float
    ) -> bytes:
        reader = self._connection.reader
        pieces: list[bytes] = []
        size = 0
        give_up_at = trio.current_time() + _BODY_FACTOR * timeout_s
        while piece is not None:
            size += len(piece)
            if size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            if piece:
                pieces.append(piece)
            else:
                await self._read_more(min(trio.current_time() + timeout_s, give_up_at))
            piece = reader.next_piece()
        return b"".join(pieces)

    async def _read_more(self, deadline: float) -> None:
        with trio.fail_at(deadline):
            data = await self._connection.socket.receive()
        if not data:
            raise ClientGoneError
        self._connection.reader.feed(data)
