"""Passing frames on whole, without reading them.

A relay says what became of an engine in a frame of its own; behind half a frame of a
child that died, the parent could not read it.

Pure.
"""

from __future__ import annotations

import struct

import msgspec

from atomr_infer.bridge.protocol.frames import MAX_FRAME_BYTES, FrameError

_LENGTH = struct.Struct(">I")
# A frame of one field: an array of its tag and that.
_READY = b"\x92" + msgspec.msgpack.encode("Ready")


class WholeFrames:
    """Holds back the beginning of a frame until its end is there.

    Attributes:
        ready: whether the child has said that its runner is open.
    """

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self.ready = False
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def receive(self, received: bytes) -> bytes:
        """Return the frames that are whole now, as they came.

        Raises:
            FrameError: one announces more than the bridge carries.
        """
        self._buffer += received
        start = 0
        while (end := self._end(start)) <= len(self._buffer):
            body = start + _LENGTH.size
            self.ready = self.ready or self._buffer.startswith(_READY, body)
            start = end
        whole = bytes(self._buffer[:start])
        del self._buffer[:start]
        return whole

    def _end(self, start: int) -> int:
        """Where the frame at ``start`` ends, or its length where that is not there."""
        body = start + _LENGTH.size
        if len(self._buffer) < body:
            return body
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        if length > self._max_bytes:
            raise FrameError(
                f"a frame of {length} bytes is announced; {self._max_bytes} is the most"
            )
        return body + int(length)
