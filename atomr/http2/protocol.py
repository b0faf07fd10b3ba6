"""A link as HTTP/2 speaks it: h2 keeps the rules, this keeps lanes and windows.

What is in DATA and WINDOW_UPDATE frames does not go through h2 (see ``framing``); it
still knows of each stream, of its begin, its end and its reset.

Bytes go in by :meth:`LinkProtocol.receive`, which returns what happened; what is to
be written is :meth:`LinkProtocol.data_to_send`, a piece at a time, so that what is
urgent overtakes what waits.

The side that dialed opens the three lanes at once.  Only that side can open streams
(RFC 9113 leaves servers nothing but push), so the other one asks for one: see
``frames.Invite``.

Flow control.  The connection's window opens as bytes arrive, so that no stream that
is read slowly stops another one.  A lane is taken as it arrives.  A stream of its own
opens its window as its reader reads: that is what slows its sender down.  Windows
open when half of them is used.

Pure: the caller passes ``now_s``.

Source: RFC 9113.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from atomr.http2 import frames
from atomr.http2.events import (
    Event,
    Lane,
    PeerLeft,
    Ponged,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamReset,
)
from atomr.http2.framing import END_STREAM, Data, FrameCutter, Widened, frame_of
from atomr.http2.guard import MAX_HTTP2_FRAME_BYTES, GuardError, Kind
from atomr.http2.outlets import Outlet, Outlets
from atomr.http2.problems import (
    NoStreamError,
    PeerError,
    code_name,
    named,
)
from atomr.http2.setup import (
    ANSWER,
    CONNECTION_WINDOW_BYTES,
    FIRST_WINDOW_BYTES,
    LANE_WINDOW_BYTES,
    MAX_STREAMS,
    STREAM_WINDOW_BYTES,
    connection_of,
    request_for,
)
from atomr.http2.windows import InWindow, OutWindow, WindowError

if TYPE_CHECKING:
    from collections.abc import Callable

_PATHS = {f"/atomr/1/{lane.name.lower()}".encode(): lane for lane in Lane}
_OWN_PATH = b"/atomr/1/stream"


class LinkProtocol:
    """One connection between two nodes.

    Attributes:
        dialed: we opened the connection.
        outlets: what waits to be sent.
        left: the peer has ended the connection.
    """

    def __init__(self, *, dialed: bool, now_s: float) -> None:
        """Begin a connection, and the lanes where we dialed.

        Args:
            dialed: we opened the connection.
            now_s: monotonic seconds.
        """
        self.dialed = dialed
        self.outlets = Outlets()
        self.left = False
        self._h2 = connection_of(dialed=dialed)
        self._cutter = FrameCutter(preface=not dialed, now_s=now_s)
        self._events: list[Event] = []
        self._readers = {int(lane): frames.MessageReader() for lane in Lane}
        self._in: dict[int, InWindow] = {}
        self._in_all = InWindow(CONNECTION_WINDOW_BYTES)
        self._out: dict[int, OutWindow] = {}
        self._out_in_all = OutWindow(FIRST_WINDOW_BYTES)
        self._bytes = bytearray()
        self._lanes_open: set[int] = set()
        self._handlers: dict[type, Callable[[Any], None]] = {
            h2.events.DataReceived: self._on_stray_data,
            h2.events.RemoteSettingsChanged: self._on_settings,
            h2.events.RequestReceived: self._on_request,
            h2.events.ResponseReceived: self._on_response,
            h2.events.StreamEnded: self._on_end,
            h2.events.StreamReset: self._on_reset,
            h2.events.PingAckReceived: self._on_pong,
            h2.events.ConnectionTerminated: self._on_goaway,
        }
        if dialed:
            for path, lane in _PATHS.items():
                self._h2.send_headers(lane, request_for(path))
                self._begin(lane, lane)

    @property
    def waits(self) -> bool:
        """True when there is something to write."""
        return bool(self._bytes) or self.outlets.wait

    # --- sending ----------------------------------------------------------------

    def open(self) -> Outlet:
        """Begin a stream of its own; only where we dialed.

        Raises:
            NoStreamError: the peer takes no further one now.
        """
        most = min(self._h2.remote_settings.max_concurrent_streams, MAX_STREAMS)
        if len(self.outlets.own) >= most:
            raise NoStreamError
        try:
            stream_id = self._h2.get_next_available_stream_id()
        except h2.exceptions.NoAvailableStreamIDError as error:
            raise NoStreamError from error
        self._h2.send_headers(stream_id, request_for(_OWN_PATH))
        self._begin(stream_id)
        return self.outlets.add(stream_id)

    def reset(self, stream_id: int) -> None:
        """Break a stream off, and forget it."""
        self.forget(stream_id)
        with suppress(h2.exceptions.StreamClosedError, h2.exceptions.NoSuchStreamError):
            # Closed: the peer was first.
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)

    def forget(self, stream_id: int) -> None:
        """Let go of a stream that is over in both directions."""
        self.outlets.drop(stream_id)
        self._in.pop(stream_id, None)
        self._out.pop(stream_id, None)

    def consumed(self, stream_id: int, window_bytes: int) -> None:
        """Note that so much of a stream was read; its window opens at half."""
        window = self._in.get(stream_id)
        if window is not None:
            self._open_by(window.read(window_bytes), stream_id)

    def _open_by(self, increment: int, stream_id: int) -> None:
        if increment and not self.left:
            payload = increment.to_bytes(4, "big")
            self._write(Kind.WINDOW_UPDATE, stream_id=stream_id, payload=payload)

    def _write(self, kind: Kind, *, stream_id: int, payload: bytes) -> None:
        # Behind what h2 has to say: the head of the same stream, perhaps.
        self._bytes += self._h2.data_to_send()
        self._bytes += frame_of(kind, stream_id=stream_id, payload=payload)

    def ping(self, number: int) -> None:
        """Ask the peer's machine whether it is there."""
        self._h2.ping(number.to_bytes(8, "big"))
        self._bytes += self._h2.data_to_send()

    def leave(self, *, said: str, fault: bool) -> None:
        """End the connection behind all that was sent.

        Args:
            said: a reason for the peer, shorter than 256 bytes.
            fault: it is the peer's fault.
        """
        code = ErrorCodes.PROTOCOL_ERROR if fault else ErrorCodes.NO_ERROR
        with suppress(h2.exceptions.ProtocolError):
            # It has ended itself where the peer broke its rules.
            self._h2.close_connection(code, additional_data=said.encode())

    def data_to_send(self, limit_bytes: int) -> bytes:
        """Take what is to be written next, at least a frame where one can go.

        Args:
            limit_bytes: about how much; what is urgent overtakes the rest again
                behind it.
        """
        if not self.left:
            for outlet in self.outlets.urgent():
                limit_bytes -= self._pump(outlet, limit_bytes)
            moved = 1
            while limit_bytes > 0 and moved:
                moved = sum(
                    self._pump(outlet, MAX_HTTP2_FRAME_BYTES)
                    for outlet in self.outlets.turn()
                    if outlet.waits
                )
                limit_bytes -= moved
        self._bytes += self._h2.data_to_send()
        data = bytes(self._bytes)
        self._bytes.clear()
        return data

    def _pump(self, outlet: Outlet, limit_bytes: int) -> int:
        """Write what the windows let through; return how much that was."""
        stream_id = outlet.stream_id
        window, in_all = self._out.get(stream_id), self._out_in_all
        if window is None:
            return 0
        moved = 0
        while outlet.buffer and moved < limit_bytes:
            room = min(window.left, in_all.left - outlet.reserve_bytes)
            size = min(room, len(outlet.buffer), MAX_HTTP2_FRAME_BYTES)
            if size <= 0:
                break
            payload = outlet.take(size)
            self._write(Kind.DATA, stream_id=stream_id, payload=payload)
            window.left -= size
            in_all.left -= size
            moved += size
        if outlet.ending and not outlet.buffer:
            outlet.ending = False
            self._h2.end_stream(stream_id)
        return moved

    # --- receiving --------------------------------------------------------------

    def receive(self, data: bytes, *, now_s: float) -> list[Event]:
        """Take what was read, and return what happened.

        Raises:
            PeerError: the connection must be closed.
        """
        self._events = []
        try:
            for piece in self._cutter.feed(data, now_s=now_s):
                if isinstance(piece, Data):
                    self._on_data(piece)
                elif isinstance(piece, Widened):
                    self._on_widened(piece)
                else:
                    self._to_h2(piece)
        except GuardError as error:
            raise PeerError(str(error), flood=error.flood) from error
        except (frames.FrameError, WindowError) as error:
            raise PeerError(str(error)) from error
        except (h2.exceptions.H2Error, ValueError, LookupError) as error:
            raise PeerError(named(error)) from error
        return self._events

    def _to_h2(self, piece: bytes) -> None:
        for event in self._h2.receive_data(piece):
            handle = self._handlers.get(type(event))
            if handle is not None:
                handle(event)
        self._bytes += self._h2.data_to_send()

    def _on_data(self, data: Data) -> None:
        stream_id, size = data.stream_id, data.size
        window = self._in.get(stream_id)
        if window is None:
            # Closed, or never opened: h2 knows what to say, and keeps the count.
            flags = END_STREAM if data.ends else 0
            self._to_h2(
                frame_of(
                    Kind.DATA, stream_id=stream_id, flags=flags, payload=bytes(size)
                )
            )
            return
        window.take(size)
        self._in_all.take(size)
        self._open_by(self._in_all.read(size), 0)
        reader = self._readers.get(stream_id)
        if reader is not None:
            for message in reader.feed(data.payload):
                self._events.append(frames.decode(message))
            self.consumed(stream_id, size)
        elif data.payload:
            self._events.append(StreamData(stream_id, data.payload, size))
        if data.ends:
            self._to_h2(
                frame_of(Kind.DATA, stream_id=stream_id, flags=END_STREAM, payload=b"")
            )

    def _on_widened(self, widened: Widened) -> None:
        stream_id, increment = widened.stream_id, widened.increment
        window = self._out.get(stream_id) if stream_id else self._out_in_all
        if window is not None and increment:
            window.widen(increment)
        else:
            payload = increment.to_bytes(4, "big")
            self._to_h2(
                frame_of(Kind.WINDOW_UPDATE, stream_id=stream_id, payload=payload)
            )

    def _on_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        changed = event.changed_settings.get(SettingCodes.INITIAL_WINDOW_SIZE)
        if changed is not None:
            for window in self._out.values():
                window.widen(changed.new_value - (changed.original_value or 0))

    def _on_stray_data(self, event: h2.events.DataReceived) -> None:
        # On a stream that was answered already: nobody reads it.
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(
                event.flow_controlled_length, event.stream_id
            )

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id or 0
        path = dict(event.headers or ()).get(b":path", b"")
        lane = _PATHS.get(path)
        if lane is not None and lane == stream_id:
            self._lanes_open.add(stream_id)
            self._h2.send_headers(stream_id, ANSWER)
            self._begin(stream_id, lane)
        elif path == _OWN_PATH and len(self._lanes_open) == len(Lane):
            self._h2.send_headers(stream_id, ANSWER)
            self._begin(stream_id)
            self.outlets.add(stream_id)
            self._events.append(StreamOpened(stream_id))
        else:
            self._h2.send_headers(stream_id, [(b":status", b"404")], end_stream=True)

    def _on_response(self, event: h2.events.ResponseReceived) -> None:
        if dict(event.headers or ()).get(b":status") != b"200":
            raise frames.FrameError("it speaks HTTP/2, and is no node")

    def _on_end(self, event: h2.events.StreamEnded) -> None:
        self._on_over(event.stream_id or 0, StreamEnded(event.stream_id or 0))

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        stream_id = event.stream_id or 0
        self._on_over(stream_id, StreamReset(stream_id, code_name(event.error_code)))

    def _on_over(self, stream_id: int, event: Event) -> None:
        if stream_id in self._readers:
            raise frames.FrameError("it ended a lane")
        self._in.pop(stream_id, None)
        if stream_id in self._out:
            self._events.append(event)

    def _on_pong(self, event: h2.events.PingAckReceived) -> None:
        self._events.append(Ponged(int.from_bytes(event.ping_data or b"", "big")))

    def _on_goaway(self, event: h2.events.ConnectionTerminated) -> None:
        self.left = True
        said = (event.additional_data or b"")[:256].decode("ascii", "replace")
        self._events.append(PeerLeft(int(event.error_code or 0), said))

    def _begin(self, stream_id: int, lane: Lane | None = None) -> None:
        """Keep the windows of a stream that was opened."""
        settings = self._h2.remote_settings
        self._out[stream_id] = OutWindow(settings.initial_window_size)
        limit = STREAM_WINDOW_BYTES if lane is None else LANE_WINDOW_BYTES[lane]
        self._in[stream_id] = InWindow(limit)
        self._open_by(limit - STREAM_WINDOW_BYTES, stream_id)
