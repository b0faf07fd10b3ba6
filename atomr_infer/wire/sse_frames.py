r"""Cut a stream into the bytes of its events, so that they can be passed on.

>>> frames = FrameReader()
>>> frames.feed(b'data: {"a"')
[]
>>> frames.feed(b':1}\n\ndata')
[b'data: {"a":1}\n\n']

Pure.
"""

from __future__ import annotations

import re

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.wire.sse import MAX_EVENT_BYTES

# The end of a line and an empty line.
_BORDER_BYTES = 4
_BORDER = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")


class FrameReader:
    """Bytes in, frames out: each is one event with the empty line behind it."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        """Start at the beginning of a body.

        Args:
            max_event_bytes: longest frame.
        """
        self._max_event_bytes = max_event_bytes
        self._rest = bytearray()

    @property
    def pending(self) -> bool:
        """True when the body so far ends inside a frame."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the body; return the frames they complete.

        Raises:
            UpstreamProtocolError: ``event_too_long``; a frame is beyond the cap.
        """
        if not self._rest and self._is_plain(data):
            if data.find(b"\n\n") == len(data) - 2:
                return [data]
            return [frame + b"\n\n" for frame in data[:-2].split(b"\n\n")]
        # A border may have begun in the rest; what is before it was looked at.
        looked_at = max(0, len(self._rest) - _BORDER_BYTES + 1)
        self._rest += data
        frames = []
        start = 0
        for border in _BORDER.finditer(self._rest, looked_at):
            frames.append(bytes(self._rest[start : border.end()]))
            start = border.end()
        if start:
            del self._rest[:start]
        if len(self._rest) > self._max_event_bytes:
            raise UpstreamProtocolError(
                f"a streamed event is longer than {self._max_event_bytes} bytes",
                code="event_too_long",
            )
        return frames

    def _is_plain(self, data: bytes) -> bool:
        """Whether a read holds whole frames only, and no other border than LF LF."""
        return (
            data.endswith(b"\n\n")
            and b"\r" not in data
            and len(data) <= self._max_event_bytes
        )

    def close(self) -> bytes:
        """Return what is left at the end of the body."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest
