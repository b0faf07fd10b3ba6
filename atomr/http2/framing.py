"""Frames of HTTP/2, cut out of the bytes and put into them.

All that a link carries is in DATA frames, and the WINDOW_UPDATE frames go with them.
These two are ours: h2 would copy and print each of them, at ten times the cost
(decision 22).  All others go to h2 as they are, in their order.

Pure: the caller passes ``now_s``.

Source: RFC 9113, 4.1, 6.1 and 6.9.
"""

from __future__ import annotations

import attrs

from atomr.http2.guard import (
    MAX_HTTP2_FRAME_BYTES,
    FrameGuard,
    GuardError,
    Kind,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

END_STREAM = 0x1
_PADDED = 0x8
_HEAD_BYTES = 9
_NUMBER = 0x7FFF_FFFF


@attrs.frozen
class Data:
    """A DATA frame.

    Attributes:
        stream_id: its stream.
        payload: its bytes, without padding.
        size: what it takes of the windows.
        ends: the stream ends with it.
    """

    stream_id: int
    payload: bytes
    size: int
    ends: bool


@attrs.frozen
class Widened:
    """A WINDOW_UPDATE frame.

    Attributes:
        stream_id: its stream; 0 for the connection.
        increment: in bytes.
    """

    stream_id: int
    increment: int


def frame_of(kind: int, *, stream_id: int = 0, flags: int = 0, payload: bytes) -> bytes:
    """Return one frame.

    >>> frame_of(Kind.PING, payload=b"12345678")[:9].hex()
    '000008060000000000'
    """
    size = len(payload)
    return b"%c%c%c%c%c%b%b" % (
        size >> 16,
        size >> 8 & 0xFF,
        size & 0xFF,
        kind,
        flags,
        stream_id.to_bytes(4, "big"),
        payload,
    )


class FrameCutter:
    """Parts what a connection reads into DATA, WINDOW_UPDATE and the rest."""

    def __init__(self, *, preface: bool, now_s: float) -> None:
        """Begin at the first byte.

        Args:
            preface: the peer dialed, so its first bytes are the preface.
            now_s: monotonic seconds.
        """
        self._held = bytearray()
        self._needed = len(PREFACE) if preface else _HEAD_BYTES
        self._preface = preface
        self._guard = FrameGuard(now_s=now_s)

    def feed(self, data: bytes, *, now_s: float) -> list[Data | Widened | bytes]:
        """Return the frames that are complete now; bytes are for h2.

        Raises:
            GuardError: the connection must be closed.
        """
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return []
            data = bytes(held)
            held.clear()
        elif len(data) < self._needed:
            held += data
            return []
        out: list[Data | Widened | bytes] = []
        at = self._begin(data, out) if self._preface else 0
        at = self._cut(data, at, out, now_s)
        held += data[at:]
        return out

    def _begin(self, data: bytes, out: list[Data | Widened | bytes]) -> int:
        # h2 says what is wrong with it.
        out.append(data[: len(PREFACE)])
        self._preface = False
        return len(PREFACE)

    def _cut(
        self, data: bytes, at: int, out: list[Data | Widened | bytes], now_s: float
    ) -> int:
        end = len(data)
        self._needed = _HEAD_BYTES
        while end - at >= _HEAD_BYTES:
            start = at + _HEAD_BYTES
            size = int.from_bytes(data[at : at + 3], "big")
            kind, flags = data[at + 3], data[at + 4]
            if size > MAX_HTTP2_FRAME_BYTES:
                raise GuardError(
                    f"it sent a frame beyond {MAX_HTTP2_FRAME_BYTES} bytes", flood=False
                )
            after = start + size
            if after > end:
                self._needed = after - at
                break
            if kind != Kind.DATA or not size or self._guard.in_block:
                self._guard.count(kind, flags, size=size, now_s=now_s)
            out.append(self._made(kind, flags, data, (at, start, after)))
            at = after
        return at

    def _made(
        self, kind: int, flags: int, data: bytes, where: tuple[int, int, int]
    ) -> Data | Widened | bytes:
        at, start, after = where
        if kind == Kind.DATA:
            stream_id = int.from_bytes(data[at + 5 : start], "big") & _NUMBER
            payload = data[start:after]
            if flags & _PADDED:
                payload = _unpadded(payload)
            return Data(stream_id, payload, after - start, bool(flags & END_STREAM))
        if kind == Kind.WINDOW_UPDATE and after - start == 4:
            stream_id = int.from_bytes(data[at + 5 : start], "big") & _NUMBER
            return Widened(
                stream_id, int.from_bytes(data[start:after], "big") & _NUMBER
            )
        return data[at:after]


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise GuardError("it sent a frame that is all padding", flood=False)
    return payload[1 : len(payload) - payload[0]]
