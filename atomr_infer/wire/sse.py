r"""Server-sent events, read and written as bytes.

The reader takes bytes as the network cuts them and gives whole events.  It
never decodes text, so a character that is split over two reads is no case of
its own, and U+2028, U+2029 or U+0085 inside a JSON string is not mistaken for
the end of a line: lines end at LF, CR and CRLF and nowhere else.

A line that ends in CR is taken at once, and an LF that opens the next read is
then known to belong to it.

As a rule a read holds whole events of one line each: then each event is one
slice of it, and no line is looked at.  Whatever is not that simple, a cut or a
CR above all, is taken line by line.

>>> reader = SseReader()
>>> reader.feed(b'data: {"a"')
[]
>>> reader.feed(b':1}\n\n')
[SseEvent(data=b'{"a":1}', event='')]

Pure.

Source: WHATWG HTML, 9.2 "Server-sent events".
"""

from __future__ import annotations

import re

import attrs
import msgspec

from atomr_infer.errors import UpstreamProtocolError

DONE = b"[DONE]"
"""The data of the event that ends a stream in OpenAI's dialect."""

KEEPALIVE = b": keepalive\n\n"
"""A comment: keeps proxies from closing a silent stream, seen by no client."""

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Default cap of one event; a streamed image or a whole tool call fits."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")


@attrs.frozen
class SseEvent:
    """One event.

    Attributes:
        data: the data lines, joined with LF.
        event: its ``event`` field; "" when it had none.
    """

    data: bytes
    event: str = ""


class SseReader:
    """Bytes in, events out.

    Attributes:
        truncated: True when, after :meth:`close`, the body ended inside an
            event that could not be taken.
    """

    def __init__(
        self,
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_line_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        """Start at the beginning of a body.

        Args:
            max_event_bytes: most data in one event, and the longest line.
            max_line_bytes: the longest line, where that is less; of any field,
                a comment too.
        """
        self._max_event_bytes = max_event_bytes
        self._max_line_bytes = max_line_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._at_start = True
        self._after_cr = False
        self.truncated = False

    @property
    def pending(self) -> bool:
        """True when the body so far ends inside an event."""
        return bool(self._line or self._data or self._event or self._after_cr)

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes of the body; return the events they complete.

        Raises:
            UpstreamProtocolError: ``event_too_long`` or ``line_too_long``; an
                event or a line is beyond its cap.
        """
        if not self._line and not self._data and (events := self._take_whole(data)):
            return events
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            pieces = _LINE_END.split(data)
        else:
            pieces = data.split(b"\n")
        return self._take(pieces)

    def close(self) -> SseEvent | None:
        """Take the end of the body; return the event that it completes, if any.

        Some servers leave out the last line's end.  An event that is still
        open is accepted when its data is a whole JSON object or array, or
        :data:`DONE`; anything else may be the front part of something longer,
        and sets ``truncated``.
        """
        if self._line:
            self._field(bytes(self._line))
            self._line.clear()
        if not self._data:
            return None
        event = self._dispatch()
        if event is None or not _is_whole(event.data):
            self.truncated = True
            return None
        return event

    def _take_whole(self, data: bytes) -> list[SseEvent]:
        """Return the events of a read that holds nothing but whole plain ones."""
        if not data.endswith(b"\n\n") or self._event or b"\r" in data:
            return []
        # A read within the cap holds no line beyond it.
        capped = len(data) > min(self._max_event_bytes, self._max_line_bytes)
        events = []
        for block in data[:-2].split(b"\n\n"):
            name = ""
            if block.startswith(b"event: "):
                head, _, block = block.partition(b"\n")  # noqa: PLW2901
                if capped:
                    self._check_line(len(head))
                name = head[7:].decode("utf-8", "replace")
            if not block.startswith(b"data: ") or b"\n" in block:
                return []
            if capped:
                self._check_line(len(block))
            events.append(SseEvent(block[6:], name))
        self._at_start = False
        return events

    def _take(self, pieces: list[bytes]) -> list[SseEvent]:
        events = []
        for piece in pieces[:-1]:
            line = piece
            if self._line:
                line = bytes(self._line) + piece
                self._line.clear()
            if line:
                self._check_line(len(line))
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
            self._at_start = False
        self._grow(pieces[-1])
        return events

    def _grow(self, piece: bytes) -> None:
        self._line += piece
        self._check_line(len(self._line))

    def _field(self, line: bytes) -> None:
        if self._at_start:
            line = line.removeprefix(_BOM)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value) + 1
            self._check_event(self._data_bytes)
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        # A comment has an empty name; id, retry and unknown fields say nothing
        # to a reader that does not reconnect.

    def _dispatch(self) -> SseEvent | None:
        data, self._data = self._data, []
        name, self._event = self._event, ""
        self._data_bytes = 0
        if not data:
            return None
        return SseEvent(data[0] if len(data) == 1 else b"\n".join(data), name)

    def _check_line(self, size: int) -> None:
        self._check_event(size)
        if size > self._max_line_bytes:
            raise UpstreamProtocolError(
                f"a streamed line is longer than {self._max_line_bytes} bytes",
                code="line_too_long",
            )

    def _check_event(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise UpstreamProtocolError(
                f"a streamed event is longer than {self._max_event_bytes} bytes",
                code="event_too_long",
            )


def encode_event(data: bytes, event: str | None = None) -> bytes:
    r"""Return the bytes of one event.

    Args:
        data: its data; each line of it becomes a ``data`` line.
        event: its name; None leaves it out.

    Raises:
        ValueError: the name holds a line end, which would forge a field.

    >>> encode_event(b"{}", "ping")
    b'event: ping\ndata: {}\n\n'
    """
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    if event is None:
        return b"data: %b\n\n" % data
    if "\n" in event or "\r" in event:
        raise ValueError(f"{event!r} is not the name of an event: it has a line end")
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


def _is_whole(data: bytes) -> bool:
    if data == DONE:
        return True
    # A number could go on, so only what has a closing bracket counts.
    if not data.lstrip().startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
