"""A link as HTTP/2 speaks it: h2 keeps the rules, this keeps lanes and windows.

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
from atomr.http2.guard import MAX_HTTP2_FRAME_BYTES, FrameGuard, GuardError
from atomr.http2.outlets import LIMITS, QUEUE_BYTES, Outlet, Outlets
from atomr.http2.setup import (
    ANSWER,
    CONNECTION_WINDOW_BYTES,
    LANE_WINDOW_BYTES,
    MAX_STREAMS,
    STREAM_WINDOW_BYTES,
    connection_of,
    request_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.http2.frames import Frame

_PATHS = {f"/atomr/1/{lane.name.lower()}".encode(): lane for lane in Lane}
_OWN_PATH = b"/atomr/1/stream"


class PeerError(Exception):
    """The peer broke the protocol; the text quotes none of its bytes.

    Attributes:
        flood: it kept to the rules, and does too much.
    """

    def __init__(self, problem: str, *, flood: bool = False) -> None:
        self.flood = flood
        super().__init__(problem)


class LaneFullError(Exception):
    """Too much waits on a lane.

    Attributes:
        queued_bytes: what waits.
        limit_bytes: what may.
    """

    def __init__(self, queued_bytes: int, limit_bytes: int) -> None:
        self.queued_bytes = queued_bytes
        self.limit_bytes = limit_bytes
        super().__init__(queued_bytes, limit_bytes)


class NoStreamError(Exception):
    """No further stream can be opened now."""


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
        self._guard = FrameGuard(preface=not dialed, now_s=now_s)
        self._events: list[Event] = []
        self._readers = {int(lane): frames.MessageReader() for lane in Lane}
        self._unacked: dict[int, int] = dict.fromkeys(self._readers, 0)
        self._unacked_in_all = 0
        self._lanes_open: set[int] = set()
        self._handlers: dict[type, Callable[[Any], None]] = {
            h2.events.DataReceived: self._on_data,
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
                self._widen(lane)

    # --- sending ----------------------------------------------------------------

    def put(self, lane: Lane, frame: Frame) -> int:
        """Queue a message of ours; it is not refused below the hard bound.

        Returns:
            The bytes that it takes with its length.

        Raises:
            LaneFullError: twice the limit of all lanes waits; nothing was queued.
            TypeError: its body cannot be encoded; nothing was queued.
        """
        queued = self.outlets.queued_bytes
        if queued > 2 * QUEUE_BYTES:
            raise LaneFullError(queued, QUEUE_BYTES)
        return self._append(self.outlets.lanes[lane], frame)

    def offer(self, lane: Lane, frame: Frame) -> int:
        """Queue a message where there is room.

        Raises:
            LaneFullError: too much waits; nothing was queued.
            TypeError: its body cannot be encoded; nothing was queued.
        """
        outlet = self.outlets.lanes[lane]
        queued, limit = len(outlet.buffer), LIMITS[lane]
        if queued >= limit:
            raise LaneFullError(queued, limit)
        return self._append(outlet, frame)

    def withdraw(self, lane: Lane, count: int) -> None:
        """Take the message back that was queued last, before anything else is."""
        buffer = self.outlets.lanes[lane].buffer
        del buffer[len(buffer) - count :]

    def _append(self, outlet: Outlet, frame: Frame) -> int:
        start = len(outlet.buffer)
        try:
            return frames.append(outlet.buffer, frame)
        except BaseException:
            del outlet.buffer[start:]
            raise

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
        self._unacked[stream_id] = 0
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
        self._unacked.pop(stream_id, None)

    def consumed(self, stream_id: int, window_bytes: int) -> None:
        """Note that so much of a stream was read; its window opens at half."""
        unacked = self._unacked.get(stream_id)
        if unacked is None:
            return
        unacked += window_bytes
        if unacked >= self._half(stream_id):
            with suppress(h2.exceptions.StreamClosedError):
                self._h2.increment_flow_control_window(unacked, stream_id)
            unacked = 0
        self._unacked[stream_id] = unacked

    def ping(self, number: int) -> None:
        """Ask the peer's machine whether it is there."""
        self._h2.ping(number.to_bytes(8, "big"))

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

    @property
    def pending(self) -> bool:
        """True when something may be there to be written."""
        outlets = self.outlets
        return bool(
            self._h2._data_to_send  # noqa: SLF001 - it has no way to look
            or any(outlet.buffer for outlet in outlets.lanes.values())
            or any(outlet.waits for outlet in outlets.own.values())
        )

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
        return self._h2.data_to_send()

    def _pump(self, outlet: Outlet, limit_bytes: int) -> int:
        """Move what the windows let through to h2; return how much that was."""
        moved = 0
        while outlet.waits and moved < limit_bytes:
            size = min(self._room(outlet), len(outlet.buffer), limit_bytes - moved)
            if size <= 0 and outlet.buffer:
                break
            data = outlet.take(size)
            ends = outlet.ending and not outlet.buffer
            self._h2.send_data(outlet.stream_id, data, end_stream=ends)
            if ends:
                outlet.ending = False
            moved += len(data)
        return moved

    def _room(self, outlet: Outlet) -> int:
        connection = self._h2.outbound_flow_control_window - outlet.reserve_bytes
        stream = self._h2.local_flow_control_window(outlet.stream_id)
        return min(connection, stream, self._h2.max_outbound_frame_size)

    # --- receiving --------------------------------------------------------------

    def receive(self, data: bytes, *, now_s: float) -> list[Event]:
        """Take what was read, and return what happened.

        Raises:
            PeerError: the connection must be closed.
        """
        self._events = []
        try:
            self._guard.check(data, now_s=now_s)
            for event in self._h2.receive_data(data):
                handle = self._handlers.get(type(event))
                if handle is not None:
                    handle(event)
        except GuardError as error:
            raise PeerError(str(error), flood=error.flood) from error
        except frames.FrameError as error:
            raise PeerError(str(error)) from error
        except (h2.exceptions.H2Error, ValueError, LookupError) as error:
            raise PeerError(_named(error)) from error
        if self._unacked_in_all >= CONNECTION_WINDOW_BYTES // 2 and not self.left:
            self._h2.increment_flow_control_window(self._unacked_in_all)
            self._unacked_in_all = 0
        return self._events

    def _on_data(self, event: h2.events.DataReceived) -> None:
        stream_id = event.stream_id or 0
        size = event.flow_controlled_length or 0
        self._unacked_in_all += size
        reader = self._readers.get(stream_id)
        if reader is not None:
            for message in reader.feed(event.data or b""):
                self._events.append(frames.decode(message))
            self.consumed(stream_id, size)
        elif event.data and stream_id in self._unacked:
            self._events.append(StreamData(stream_id, event.data, size))

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id or 0
        path = dict(event.headers or ()).get(b":path", b"")
        lane = _PATHS.get(path)
        if lane is not None and lane == stream_id:
            self._lanes_open.add(stream_id)
            self._h2.send_headers(stream_id, ANSWER)
            self._widen(lane)
        elif path == _OWN_PATH and len(self._lanes_open) == len(Lane):
            self._h2.send_headers(stream_id, ANSWER)
            self._unacked[stream_id] = 0
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
        self._on_over(stream_id, StreamReset(stream_id, _code(event.error_code)))

    def _on_over(self, stream_id: int, event: Event) -> None:
        if stream_id in self._readers:
            raise frames.FrameError("it ended a lane")
        if stream_id in self._unacked:
            self._events.append(event)

    def _on_pong(self, event: h2.events.PingAckReceived) -> None:
        self._events.append(Ponged(int.from_bytes(event.ping_data or b"", "big")))

    def _on_goaway(self, event: h2.events.ConnectionTerminated) -> None:
        self.left = True
        said = (event.additional_data or b"")[:256].decode("ascii", "replace")
        self._events.append(PeerLeft(int(event.error_code or 0), said))

    def _widen(self, lane: Lane) -> None:
        more = LANE_WINDOW_BYTES[lane] - STREAM_WINDOW_BYTES
        self._h2.increment_flow_control_window(more, lane)

    def _half(self, stream_id: int) -> int:
        lane = stream_id in self._readers
        window = LANE_WINDOW_BYTES[Lane(stream_id)] if lane else STREAM_WINDOW_BYTES
        return window // 2


def _code(code: object) -> str:
    return code.name if isinstance(code, ErrorCodes) else "an unknown code"


def _named(error: Exception) -> str:
    """Name what is wrong without a word of h2's, which may quote the peer."""
    code = getattr(error, "error_code", None)
    return "its frames are malformed" + (f" ({_code(code)})" if code else "")
