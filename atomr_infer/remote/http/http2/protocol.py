"""HTTP/2 as a client speaks it: h2 keeps the rules, this keeps the answers.

Bytes go in by :meth:`Http2Protocol.receive`, and what happened stands in the
streams afterwards; what is to be written is :meth:`Http2Protocol.to_send`.

Flow control.  Each stream has a window of its own, which opens again as its
reader takes the pieces: a reader that is slow stops its own upstream.  The
window of the connection opens as bytes arrive, so that one slow reader does
not stop the others; at most the windows of all streams are held.

Pure: no trio, no clock, no socket.

Source: RFC 9113.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import h2.config
import h2.events
import h2.exceptions
import h2.settings
from h2.errors import ErrorCodes

from atomr_infer.remote.http.http1 import MAX_HEAD_BYTES, PeerClosedError, ResponseHead
from atomr_infer.remote.http.http2.frames import FrameGate, GoAway, Http2Error
from atomr_infer.remote.http.http2.stream_errors import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# At DEBUG hpack writes every header into the log, keys included.
logging.getLogger("hpack").setLevel(logging.INFO)

WINDOW_BYTES = 262_144
"""What a stream may hold unread: above it a fast upstream has to wait."""

_CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024

MAX_STREAMS = 256
"""Streams at once on one connection, however many the peer would take."""

_BACKLOG_BYTES = 65_536

# A piece of one byte costs forty.
_MAX_PIECES = 1024

_FIRST_FINAL = 200
_LAST = 599


class RefusedError(Exception):
    """The peer has not processed the request: it may be sent again."""


class ResetError(PeerClosedError):
    """The peer broke a stream off."""


class Answer:
    """What has come on one stream.

    Attributes:
        stream_id: its number.
        head: status and headers, once they are here.
        pieces: what is here of the body, not taken yet.
        ended: True when the body is complete.
        error: what broke the stream.
        unsent: what is left of the request's body.
    """

    __slots__ = ("ended", "error", "head", "pieces", "stream_id", "unacked", "unsent")

    def __init__(self, stream_id: int, body: bytes) -> None:
        self.stream_id = stream_id
        self.head: ResponseHead | None = None
        self.pieces: deque[bytes] = deque()
        self.ended = False
        self.error: Exception | None = None
        self.unsent = memoryview(body)
        self.unacked = 0

    @property
    def over(self) -> bool:
        """True when nothing more can come."""
        return self.ended or self.error is not None


class Http2Protocol:
    """One connection's streams.

    Attributes:
        streams: those that are open, by number.
        goaway: what the peer said when it said that it takes no more.
        told: True once the peer's SETTINGS are here.
    """

    def __init__(self) -> None:
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            # Our own headers were checked once, when they were made.
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW_BYTES)
        self._handlers: dict[type, Callable[..., None]] = {
            h2.events.ResponseReceived: self._on_head,
            h2.events.DataReceived: self._on_data,
            h2.events.StreamEnded: self._on_end,
            h2.events.StreamReset: self._on_reset,
            h2.events.WindowUpdated: self._on_window,
            h2.events.RemoteSettingsChanged: self._on_settings,
        }
        self._gate = FrameGate()
        self._unacked = 0
        self.told = False
        self._changed: set[int] = set()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.streams: dict[int, Answer] = {}
        self.goaway: GoAway | None = None

    @property
    def room(self) -> int:
        """How many more streams can be opened now."""
        if self.goaway is not None:
            return 0
        # One need not wait for the peer's SETTINGS; for more it may have none.
        most = self._h2.remote_settings.max_concurrent_streams if self.told else 1
        return min(most, MAX_STREAMS) - len(self.streams)

    def open(self, fields: Iterable[tuple[bytes, bytes]], body: bytes) -> Answer:
        """Begin a request, and write what of its body can be written.

        Raises:
            RefusedError: the peer takes no further stream.
        """
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, fields, end_stream=not body)
        except h2.exceptions.H2Error as error:
            raise RefusedError("no further stream can be opened") from error
        self._gate.progressed()
        answer = Answer(stream_id, body)
        self.streams[stream_id] = answer
        self.push(answer)
        return answer

    def push(self, answer: Answer) -> None:
        """Write what the windows let through of a request's body."""
        rest = answer.unsent
        while rest and not answer.over and self._out_bytes < _BACKLOG_BYTES:
            window = self._h2.local_flow_control_window(answer.stream_id)
            size = min(window, self._h2.max_outbound_frame_size, len(rest))
            if size <= 0:
                break
            piece, rest = rest[:size], rest[size:]
            self._h2.send_data(answer.stream_id, piece, end_stream=not rest)
            self._gate.progressed()
            self._collect()
        answer.unsent = rest

    def take(self, answer: Answer) -> bytes | None:
        """Take what is here of a body: ``b""`` for nothing yet, None at its end.

        Raises:
            Exception: what broke the stream.
        """
        if not answer.pieces:
            if answer.error is not None:
                raise answer.error
            return None if answer.ended else b""
        pieces = answer.pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if answer.unacked >= WINDOW_BYTES // 2 and not answer.over:
            self._h2.increment_flow_control_window(answer.unacked, answer.stream_id)
            answer.unacked = 0
        return piece

    def close(self, answer: Answer) -> None:
        """Forget a stream; tell the peer when it was not over."""
        if self.streams.pop(answer.stream_id, None) is None:
            return
        if answer.error is None and (answer.unsent or not answer.ended):
            with suppress(h2.exceptions.StreamClosedError):
                # Closed: the peer answered early, and reset the rest itself.
                self._h2.reset_stream(answer.stream_id, ErrorCodes.CANCEL)

    def leave(self) -> None:
        """Tell the peer that the connection ends."""
        self._h2.close_connection()

    def receive(self, data: bytes) -> set[int]:
        """Take what was read; return the numbers of the streams that changed.

        Raises:
            Http2Error: the peer does not speak HTTP/2.
        """
        self._changed = set()
        data, goaways = self._gate.feed(data)
        try:
            events = self._h2.receive_data(data) if data else []
        except (h2.exceptions.H2Error, ValueError, LookupError) as error:
            raise Http2Error(_named(error)) from error
        for event in events:
            handle = self._handlers.get(type(event))
            if handle is not None:
                handle(event)
        for goaway in goaways:
            self._go_away(goaway)
        if self._unacked >= _CONNECTION_WINDOW_BYTES // 2:
            self._h2.increment_flow_control_window(self._unacked)
            self._unacked = 0
        return self._changed

    def fail(self, error: Exception) -> None:
        """Break all streams that are not over."""
        for answer in self.streams.values():
            if not answer.over:
                answer.error = error

    @property
    def pending(self) -> bool:
        """True when something is to be written."""
        self._collect()
        return self._out_bytes > 0

    def to_send(self) -> bytes:
        """Take what is to be written."""
        self._collect()
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out, self._out_bytes = [], 0
        return data

    def _collect(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._out.append(data)
            self._out_bytes += len(data)

    # --- what the peer says -----------------------------------------------------

    def _go_away(self, goaway: GoAway) -> None:
        self.goaway = goaway
        for stream_id, answer in self.streams.items():
            if stream_id > goaway.last_stream_id and answer.head is None:
                self._break(answer, RefusedError("the peer is going away"))

    def _on_head(self, event: h2.events.ResponseReceived) -> None:
        answer = self._of(event.stream_id)
        if answer is None:
            return
        try:
            answer.head = _head(event.headers or ())
        except ValueError as error:
            self._break(answer, Http2Error(str(error)))
            self._h2.reset_stream(answer.stream_id, ErrorCodes.PROTOCOL_ERROR)

    def _on_data(self, event: h2.events.DataReceived) -> None:
        size = event.flow_controlled_length or 0
        self._unacked += size
        answer = self._of(event.stream_id)
        if answer is not None:
            answer.unacked += size
            if event.data:
                answer.pieces.append(event.data)
                if len(answer.pieces) > _MAX_PIECES:
                    whole = b"".join(answer.pieces)
                    answer.pieces = deque((whole,))

    def _on_end(self, event: h2.events.StreamEnded) -> None:
        answer = self._of(event.stream_id)
        if answer is not None:
            answer.ended = True

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        answer = self._of(event.stream_id)
        if answer is None:
            return
        if not event.remote_reset:
            self._break(answer, Http2Error(_wrong(event.error_code)))
        elif event.error_code == ErrorCodes.REFUSED_STREAM:
            self._break(answer, RefusedError("the peer refused the stream"))
        else:
            self._break(answer, ResetError(f"stream reset, {_code(event.error_code)}"))

    def _on_window(self, event: h2.events.WindowUpdated) -> None:
        if event.stream_id:
            self._changed.add(event.stream_id)
        else:
            self._changed.update(self.streams)

    def _on_settings(self, _: h2.events.RemoteSettingsChanged) -> None:
        self.told = True
        self._changed.update(self.streams)

    def _of(self, stream_id: int | None) -> Answer | None:
        """Return a stream that is not over; None for one that was left."""
        answer = self.streams.get(stream_id or 0)
        if answer is None or answer.over:
            return None
        self._changed.add(answer.stream_id)
        return answer

    def _break(self, answer: Answer, error: Exception) -> None:
        answer.error = error
        self._changed.add(answer.stream_id)


def _head(raw: Sequence[tuple[bytes, bytes]]) -> ResponseHead:
    fields: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    status = fields.pop(":status", "")
    if not (status.isdecimal() and _FIRST_FINAL <= int(status) <= _LAST):
        raise ValueError("the status of its answer is malformed")
    return ResponseHead(int(status), fields)


def _code(code: object) -> str:
    return code.name if isinstance(code, ErrorCodes) else "an unknown code"


def _named(error: Exception) -> str:
    """Name what is wrong without a word of h2's, which may quote the peer."""
    code = getattr(error, "error_code", None)
    return "its frames are malformed" if code is None else _wrong(code)


def _wrong(code: object) -> str:
    return f"its frames are malformed ({_code(code)})"
