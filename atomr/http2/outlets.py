"""What waits to be sent, stream by stream, and who is next.

``ctl`` goes first, always; then ``msg``; then ``bulk`` and the streams of their own,
one frame each in turn.  The last of a connection's window is kept for ``ctl``: bulk
that fills the window must not hold up a probe.

Pure.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from atomr.http2 import frames
from atomr.http2.events import Lane
from atomr.http2.problems import LaneFullError

if TYPE_CHECKING:
    from atomr.http2.frames import Frame

QUEUE_BYTES = 4 * 1024 * 1024
"""What waits for one peer on all lanes, at most; the lanes' limits add up to it."""

LIMITS = {
    Lane.CTL: 256 * 1024,
    Lane.MSG: 2816 * 1024,
    Lane.BULK: 1024 * 1024,
}

CTL_RESERVE_BYTES = 32 * 1024


class Outlet:
    """The bytes that wait on one stream.

    Attributes:
        stream_id: its number.
        buffer: the bytes.
        ending: the stream ends behind them.
        reserve_bytes: what it leaves of the connection's window.
    """

    __slots__ = ("buffer", "ending", "reserve_bytes", "stream_id")

    def __init__(self, stream_id: int, *, reserve_bytes: int) -> None:
        self.stream_id = stream_id
        self.buffer = bytearray()
        self.ending = False
        self.reserve_bytes = reserve_bytes

    @property
    def waits(self) -> bool:
        """True when there is something to send."""
        return bool(self.buffer) or self.ending

    def take(self, count: int) -> bytes:
        """Take the first bytes."""
        buffer = self.buffer
        if count >= len(buffer):
            data = bytes(buffer)
            buffer.clear()
            return data
        data = bytes(memoryview(buffer)[:count])
        del buffer[:count]
        return data


class Outlets:
    """All outlets of a link.

    Attributes:
        lanes: the three that are always there.
        own: those of streams of their own, by number.
    """

    def __init__(self) -> None:
        self.lanes = {
            lane: Outlet(
                lane, reserve_bytes=0 if lane is Lane.CTL else CTL_RESERVE_BYTES
            )
            for lane in Lane
        }
        # Looked at for each message.
        self._ctl = self.lanes[Lane.CTL].buffer
        self._msg = self.lanes[Lane.MSG].buffer
        self._bulk = self.lanes[Lane.BULK].buffer
        self.own: dict[int, Outlet] = {}
        self._first = (self.lanes[Lane.CTL], self.lanes[Lane.MSG])
        self._turns: deque[Outlet] = deque((self.lanes[Lane.BULK],))

    @property
    def queued_bytes(self) -> int:
        """What waits on the lanes."""
        return len(self._ctl) + len(self._msg) + len(self._bulk)

    @property
    def wait(self) -> bool:
        """True when there is something to send."""
        return self.queued_bytes > 0 or any(o.waits for o in self.own.values())

    def put(self, lane: Lane, frame: Frame) -> int:
        """Queue a message of ours; it is not refused below the hard bound.

        Returns:
            The bytes that it takes with its length.

        Raises:
            LaneFullError: twice the limit of all lanes waits; nothing was queued.
            TypeError: its body cannot be encoded; nothing was queued.
        """
        queued = self.queued_bytes
        if queued > 2 * QUEUE_BYTES:
            raise LaneFullError(queued, QUEUE_BYTES)
        return _append(self.lanes[lane].buffer, frame)

    def offer(self, lane: Lane, frame: Frame) -> int:
        """Queue a message where there is room.

        Raises:
            LaneFullError: too much waits; nothing was queued.
            TypeError: its body cannot be encoded; nothing was queued.
        """
        buffer, limit = self.lanes[lane].buffer, LIMITS[lane]
        if len(buffer) >= limit:
            raise LaneFullError(len(buffer), limit)
        return _append(buffer, frame)

    def withdraw(self, lane: Lane, count: int) -> None:
        """Take the message back that was queued last, before anything else is."""
        buffer = self.lanes[lane].buffer
        del buffer[len(buffer) - count :]

    def add(self, stream_id: int) -> Outlet:
        """Begin a stream of its own."""
        outlet = Outlet(stream_id, reserve_bytes=CTL_RESERVE_BYTES)
        self.own[stream_id] = outlet
        self._turns.append(outlet)
        return outlet

    def drop(self, stream_id: int) -> None:
        """Forget a stream, and what waits on it."""
        outlet = self.own.pop(stream_id, None)
        if outlet is not None:
            self._turns.remove(outlet)

    def urgent(self) -> tuple[Outlet, ...]:
        """Return those that are sent whole, in this order."""
        return self._first

    def turn(self) -> tuple[Outlet, ...]:
        """Return the others, and begin with another one the next time."""
        order = tuple(self._turns)
        self._turns.rotate(-1)
        return order


def _append(buffer: bytearray, frame: Frame) -> int:
    start = len(buffer)
    try:
        return frames.append(buffer, frame)
    except BaseException:
        del buffer[start:]
        raise
