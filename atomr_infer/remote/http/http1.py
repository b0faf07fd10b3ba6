"""The reader of HTTP/1.1 answers: bytes in, a head and pieces of a body out.

Two rules make it small.  What a read brought is relayed as it is: the chunks
of one read are one piece.  And what two readers could take for two different
things is refused, because behind a proxy the other reader exists:

- ``transfer-encoding`` beside ``content-length``, two lengths that differ, any
  coding but ``chunked``, and any coding from an HTTP/1.0 peer;
- a bare CR or LF, a folded line, a space before the colon;
- a size of a chunk that is not hexadecimal digits, data without its line end;
- 101, since nothing was asked to be upgraded.

Three outcomes, for the head as for a piece: there it is; more must be fed
first (None for the head, ``b""`` for a piece); or an error, and then the same
error again however often it is asked.

Pure.

Source: RFC 9112, 4 to 7 and 11.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache

import attrs

MAX_HEAD_BYTES = 65536
"""Status line and headers together, and those of interim answers before them;
nginx and Node refuse far less (8-16 KiB)."""

MAX_CHUNK_LINE_BYTES = 1024
"""The size of a chunk and its extensions, which nobody uses."""

_STATUS_LINE = re.compile(
    r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\n-\x1f\x7f]*)?\r\n"
)
_NEVER_IN_A_HEAD = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\n-\x1f\x7f]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")

_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL = 200
_NEVER_A_BODY = frozenset({204, 304})


class FramingError(Exception):
    """The peer's bytes are no HTTP/1.1 answer; the text quotes none of them."""

    protocol = "HTTP/1.1"


class PeerClosedError(Exception):
    """The peer ended the connection before its answer was whole."""


@attrs.frozen
class ResponseHead:
    """The status line and headers of a final answer.

    Attributes:
        status: 200 to 599.
        headers: by lower-case name; repeated ones are joined with a comma.
        keeps: True when the peer will take another request on the connection.
    """

    status: int
    headers: Mapping[str, str]
    keeps: bool = True


class _State(Enum):
    HEAD = "head"
    LENGTH = "length"
    CHUNKS = "chunks"
    TRAILERS = "trailers"
    UNTIL_END = "until_end"
    DONE = "done"


# An enumeration's members cost a descriptor each time, these a global.
_IN_HEAD, _IN_LENGTH, _IN_CHUNKS, _IN_TRAILERS, _UNTIL_END, _DONE = _State


class ResponseReader:
    """Reads one answer after another off a connection.

    Attributes:
        at_eof: True once the peer has ended its side.
    """

    __slots__ = (
        "_buffer",
        "_chunk_ends",
        "_error",
        "_head_bytes",
        "_left",
        "_no_body",
        "_searched",
        "_state",
        "at_eof",
    )

    def __init__(self) -> None:
        self._buffer = b""
        self._state = _DONE
        self._left = 0
        self._chunk_ends = False
        self._no_body = False
        self._head_bytes = 0
        self._searched = 0
        self._error: FramingError | None = None
        self.at_eof = False

    @property
    def done(self) -> bool:
        """True when the answer is complete."""
        return self._state is _DONE

    @property
    def clean(self) -> bool:
        """True between two answers, with nothing behind the last one."""
        return self._state is _DONE and not self._buffer and not self.at_eof

    def expect(self, method: str) -> None:
        """Expect the answer to a request of that method."""
        self._state = _IN_HEAD
        self._no_body = method == "HEAD"
        self._head_bytes = 0
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take what was read; ``b""`` is the peer's end."""
        if not data:
            self.at_eof = True
        elif self._buffer:
            self._buffer += data
        else:
            self._buffer = data

    def head(self) -> ResponseHead | None:
        """Return the final head, None when it is not whole yet.

        Raises:
            FramingError: it is no head of HTTP/1.1, or it is too long.
            PeerClosedError: it will never be whole.
        """
        if self._error is not None:
            raise self._error
        while (text := self._head_text()) is not None:
            head = self._parse_head(text)
            if head is not None:
                return head
        if self.at_eof:
            raise PeerClosedError("the connection ended before an answer")
        if not b"HTTP/1.".startswith(self._buffer[:7]):
            # Spares waiting for the end of something else.
            raise self._failed("is malformed")
        return None

    def piece(self) -> bytes | None:
        """Return what is here of the body, ``b""`` for nothing yet, None at its end.

        Raises:
            FramingError: the framing is broken.
            PeerClosedError: the connection ended inside the body.
        """
        if self._state is _DONE:
            return None
        if self._error is not None:
            raise self._error
        if self._state is _UNTIL_END:
            return self._until_end()
        piece = self._of_length() if self._state is _IN_LENGTH else self._of_chunks()
        if not piece:
            if self.done:
                return None
            if self.at_eof:
                raise PeerClosedError("the connection ended inside it")
        return piece

    # --- the head ---------------------------------------------------------------

    def _head_text(self) -> str | None:
        """Take the lines up to the empty one, which stays out."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", self._searched)
        size = len(buffer) if end < 0 else end + 4
        if self._head_bytes + size > MAX_HEAD_BYTES:
            raise self._failed(f"has a part beyond {MAX_HEAD_BYTES} bytes")
        if end >= 0:
            self._head_bytes += size
            self._searched = 0
            self._buffer = buffer[size:]
            return buffer[: end + 2].decode("latin-1")
        if buffer.find(b"\n\n", self._searched) >= 0:
            raise self._failed("is malformed")
        # A head that drips is not searched again from its start.
        self._searched = max(0, len(buffer) - 3)
        return None

    def _parse_head(self, text: str) -> ResponseHead | None:
        """Return the head, None for that of an interim answer."""
        line = _STATUS_LINE.match(text)
        fields = None if line is None else _fields(text, line.end())
        if line is None or fields is None:
            raise self._failed("is malformed")
        minor, code = line.groups()
        status = int(code)
        if status < _FIRST_FINAL:
            if status == _SWITCHING_PROTOCOLS:
                raise self._failed("switches to a protocol that nobody asked for")
            return None
        keeps = minor == "1"
        self._frame(fields, status=status, http_1_1=keeps)
        if self._state is _UNTIL_END or "connection" in fields:
            keeps = keeps and self._keeps(fields)
        return ResponseHead(status, fields, keeps)

    def _frame(self, fields: Mapping[str, str], *, status: int, http_1_1: bool) -> None:
        """Decide how the body ends."""
        coding = fields.get("transfer-encoding")
        length = fields.get("content-length")
        if coding is not None and (
            length is not None or not http_1_1 or coding.lower() != "chunked"
        ):
            raise self._failed("says in two ways where the body ends")
        if length is not None:
            self._left = self._length(length)
            self._state = _IN_LENGTH if self._left else _DONE
        elif coding is not None:
            self._left, self._chunk_ends = 0, False
            self._state = _IN_CHUNKS
        else:
            self._state = _UNTIL_END
        if self._no_body or status in _NEVER_A_BODY:
            self._state = _DONE

    def _keeps(self, fields: Mapping[str, str]) -> bool:
        options = fields.get("connection", "").lower().split(",")
        closes = "close" in [option.strip() for option in options]
        return not closes and self._state is not _UNTIL_END

    def _length(self, text: str) -> int:
        if _LENGTH.fullmatch(text) is not None:
            return int(text)
        # A repeated header was joined with a comma.
        values = {value.strip(" \t") for value in text.split(",")}
        value = values.pop()
        if values or _LENGTH.fullmatch(value) is None:
            raise self._failed("has a malformed content-length")
        return int(value)

    # --- the body ---------------------------------------------------------------

    def _until_end(self) -> bytes | None:
        piece, self._buffer = self._buffer, b""
        if not piece and self.at_eof:
            self._state = _DONE
            return None
        return piece

    def _of_length(self) -> bytes:
        piece = self._buffer
        if len(piece) > self._left:
            piece = piece[: self._left]
        self._buffer = self._buffer[len(piece) :]
        self._left -= len(piece)
        if not self._left:
            self._state = _DONE
        return piece

    def _of_chunks(self) -> bytes:
        """Take all the chunks that are here, as one piece."""
        piece = self._whole_chunk()
        if piece:
            return piece
        pieces: list[bytes] = []
        try:
            self._step_over_chunks(pieces)
        except FramingError:
            # What came before it is good; the next call raises it again.
            if not pieces:
                raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _whole_chunk(self) -> bytes:
        """Take one chunk that is all there is, as of a stream mostly; else b""."""
        buffer = self._buffer
        at_line = self._state is _IN_CHUNKS and not (self._left or self._chunk_ends)
        if not (at_line and buffer.endswith(b"\r\n")):
            return b""
        start = buffer.find(b"\r\n") + 2
        line = _CHUNK_LINE.fullmatch(buffer, 0, start - 2)
        if line is None or start > MAX_CHUNK_LINE_BYTES:
            return b""
        end = start + int(line[1], 16)
        if end == start or len(buffer) != end + 2:
            return b""
        self._buffer = b""
        return buffer[start:end]

    def _step_over_chunks(self, pieces: list[bytes]) -> None:
        buffer, at = self._buffer, 0
        while self._state is _IN_CHUNKS:
            if self._left:
                piece = buffer[at : at + self._left]
                after = at + len(piece)
                self._left -= len(piece)
                self._chunk_ends = not self._left
                if piece:
                    pieces.append(piece)
            else:
                after = self._chunk_line(buffer, at)
            if after == at:
                break
            at = after
        self._buffer = buffer[at:]
        if self._state is _IN_TRAILERS:
            self._trailers()

    def _chunk_line(self, buffer: bytes, at: int) -> int:
        """Step over the line end of a chunk, or over the line before the next.

        Returns:
            The position behind it; ``at`` when it is not whole yet.
        """
        if self._chunk_ends:
            line_end = buffer[at : at + 2]
            if not b"\r\n".startswith(line_end):
                raise self._failed("has a chunk that is longer than it says")
            self._chunk_ends = line_end != b"\r\n"
            return at if self._chunk_ends else at + 2
        end = buffer.find(b"\r\n", at)
        if (len(buffer) if end < 0 else end) - at > MAX_CHUNK_LINE_BYTES:
            raise self._failed(
                f"has a line beyond {MAX_CHUNK_LINE_BYTES} bytes before a chunk"
            )
        if end < 0:
            return at
        line = _CHUNK_LINE.fullmatch(buffer, at, end)
        if line is None:
            raise self._failed("has a malformed size of a chunk")
        self._left = int(line[1], 16)
        if not self._left:
            self._state, self._head_bytes, self._searched = _IN_TRAILERS, 0, 0
        return end + 2

    def _trailers(self) -> None:
        """Step over the trailer fields, which change nothing any more."""
        if self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer[2:]
            self._state = _DONE
            return
        text = self._head_text()
        if text is not None:
            if _fields(text, 0) is None:
                raise self._failed("has a malformed trailer")
            self._state = _DONE

    def _failed(self, problem: str) -> FramingError:
        part = "head" if self._state is _IN_HEAD else "body"
        self._error = FramingError(f"the {part} of its answer {problem}")
        return self._error


def _fields(text: str, at: int) -> dict[str, str] | None:
    """Return the header fields from ``at`` on; None: they are malformed."""
    fields: dict[str, str] = {}
    if at == len(text):
        return fields
    lines = text[at:-2].split("\r\n")
    # A bare CR or LF could hide a line from one of two readers.
    if not text.count("\r", at) == text.count("\n", at) == len(lines):
        return None
    if _NEVER_IN_A_HEAD.search(text, at) is not None:
        return None
    for line in lines:
        name, colon, raw_value = line.partition(":")
        key = _key(name)
        if key is None or not colon:
            return None
        value = raw_value.strip(" \t")
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


@lru_cache(maxsize=128)
def _key(name: str) -> str | None:
    """Return the name of a header in lower case; None when it is none."""
    return name.lower() if _TOKEN.fullmatch(name) is not None else None
