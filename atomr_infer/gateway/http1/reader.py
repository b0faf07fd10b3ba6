"""The requests of one connection, out of its bytes, as they come.

The caller feeds bytes and asks in the order of the messages: a head, then the
pieces of its body until there are no more, then the next head.  Nothing is
read ahead, so a pipelined request stays in the buffer as bytes, and the buffer
is bounded by whoever reads the socket.

Each question has three answers: what was asked for, "not yet", or
:class:`~atomr_infer.gateway.http1.head.BadRequestError`, after which the
connection can only be closed.

Pure.

Source: RFC 9112, 6 and 7.
"""

from __future__ import annotations

import re

from atomr_infer.gateway.http1.head import (
    BadRequestError,
    HeadLimits,
    RequestHead,
    bad_start,
    parse_head,
)
from atomr_infer.gateway.http1.same_head import LastHead

# A size line has its extensions, which nobody uses, and a trailer its fields,
# which nobody here reads; both are bounded over the whole body, or a byte of
# it could cost a kilobyte to send and to read.
_MAX_OVERHEAD_BYTES = 16384
_MAX_LINE_BYTES = 1024

_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n"
)
_TRAILER_LINE = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n"
)


class RequestReader:
    """Cuts a connection's bytes into requests.

    Attributes:
        head: the request whose body is read; None between two requests.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._buffer = b""
        self._at = 0  # where the unread part of the buffer starts
        self._head_at = 0
        self._left: int | None = 0  # of the body, or of its current chunk
        self._chunks: _Chunks | None = None
        self._last: LastHead | None = None
        self.head: RequestHead | None = None

    @property
    def unread(self) -> bytes:
        """What was fed and not yet asked for."""
        return self._buffer[self._at :]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is unread."""
        return self._at >= len(self._buffer)

    @property
    def from_head(self) -> bytes:
        """The last head and what came behind it, for another reader."""
        return self._buffer[self._head_at :]

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        if self._at >= len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def next_head(self) -> RequestHead | None:
        """Return the next request's head; None while it is not all here.

        The body of the one before must have been read to its end.

        Raises:
            BadRequestError: this is no request, or too large a one.
        """
        buffer = self._buffer
        # RFC 9112, 2.2: some clients send an empty line behind a body.
        if buffer.startswith(b"\r\n", self._at):
            self._at += 2
        end = buffer.find(b"\r\n\r\n", self._at)
        if end < 0 or end - self._at > self._limits.max_head_bytes:
            refused = bad_start(self.unread, self._limits)
            if refused is not None:
                raise refused
            return None
        data = buffer[self._at : end + 2]
        head = None if self._last is None else self._last.again(data)
        if head is None:
            head = parse_head(data, self._limits)
            self._last = LastHead(data, head)
        self._head_at = self._at
        self._at = end + 4
        self._left = head.length
        self._chunks = _Chunks() if head.length is None else None
        self.head = head
        return head

    def next_piece(self) -> bytes | None:
        """Return the next piece of the body: b"" for not yet, None at its end.

        Raises:
            BadRequestError: the chunks are malformed.
        """
        if self._left == 0 or self._left is None:
            self._left = self._next_length()
            if self._left is None:
                return b""
            if self._left == 0:
                self.head = None
                return None
        start = self._at
        piece = self._buffer[start : start + self._left]
        self._at = start + len(piece)
        self._left -= len(piece)
        return piece

    def _next_length(self) -> int | None:
        """Length of the next run of body bytes; 0 at the end, None: not yet."""
        if self._chunks is None:
            return 0
        length, self._at = self._chunks.next_chunk(self._buffer, self._at)
        if length == 0:
            self._chunks = None
        return length


class _Chunks:
    """Reads what is between the pieces of a chunked body."""

    def __init__(self) -> None:
        self._overhead = 0
        self._in_chunk = False  # the end of the last chunk's line is due
        self._in_trailer = False

    def next_chunk(self, buffer: bytes, at: int) -> tuple[int | None, int]:
        """Return the next chunk's length, and where in the buffer it starts.

        0 is the end of the body, behind its trailer; None is "not yet".
        """
        if self._in_chunk:
            end = buffer[at : at + 2]
            if end != b"\r\n":
                if b"\r\n".startswith(end):
                    return None, at
                raise BadRequestError(400, "a chunk is longer than its size")
            at += 2
            self._in_chunk = False
        if not self._in_trailer:
            line = self._line(buffer, at)
            if line is None:
                return None, at
            matched = _SIZE_LINE.fullmatch(line)
            if matched is None:
                raise BadRequestError(400, "the size of a chunk is malformed")
            at += len(line)
            self._overhead += len(line) - len(matched[1]) - 2
            size = int(matched[1], 16)
            if size:
                self._in_chunk = True
                return size, at
            self._in_trailer = True
        return self._skip_trailer(buffer, at)

    def _skip_trailer(self, buffer: bytes, at: int) -> tuple[int | None, int]:
        while (line := self._line(buffer, at)) is not None:
            at += len(line)
            if line == b"\r\n":
                return 0, at
            if not _TRAILER_LINE.fullmatch(line):
                raise BadRequestError(400, "a trailer field is malformed")
            self._overhead += len(line)
        return None, at

    def _line(self, buffer: bytes, at: int) -> bytes | None:
        """Return the line at ``at`` with its end; None while it is not all here."""
        end = buffer.find(b"\n", at, at + _MAX_LINE_BYTES)
        if end < 0 and len(buffer) - at >= _MAX_LINE_BYTES:
            raise BadRequestError(400, "a line between chunks is too long")
        if self._overhead > _MAX_OVERHEAD_BYTES:
            raise BadRequestError(400, "too much is written between the chunks")
        return None if end < 0 else buffer[at : end + 1]
