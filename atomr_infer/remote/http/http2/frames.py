"""What is looked at in the frames of HTTP/2 before h2 sees them.

Two things that h2 does not do.  It takes a GOAWAY for the end of everything,
while the streams that the peer still answers go on (RFC 9113, 6.8): so that
frame is taken out of the bytes.  And it answers what floods it: so the frames
that carry nothing for us are counted.

Pure.

Source: RFC 9113, 4.1, 6.8 and 10.5.
"""

from __future__ import annotations

import attrs

from atomr_infer.remote.http.http1 import FramingError

MAX_IDLE_FRAMES = 1000
"""Frames in a row that carry neither headers nor data of an answer."""

_HEADER_BYTES = 9
_DATA, _HEADERS, _SETTINGS, _GOAWAY = 0, 1, 4, 7
_END_STREAM = 1

MAX_FRAME_BYTES = 16384
"""What we allow, by not saying otherwise."""


class Http2Error(FramingError):
    """The peer's bytes are no HTTP/2; the text quotes none of them."""

    protocol = "HTTP/2"


@attrs.frozen
class GoAway:
    """The peer takes no further streams.

    Attributes:
        last_stream_id: what is above it was not processed.
        code: why; 0 is a graceful shutdown.
    """

    last_stream_id: int
    code: int


class FrameGate:
    """Parts what a connection reads into GOAWAY frames and the rest."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self._idle_frames = 0
        self._begun = False

    def progressed(self) -> None:
        """Note that we sent something, which the peer may answer with frames."""
        self._idle_frames = 0

    def feed(self, data: bytes) -> tuple[bytes, list[GoAway]]:
        """Return what is for h2, and the GOAWAY frames that were in it.

        Raises:
            Http2Error: the peer floods us, or its GOAWAY is malformed.
        """
        if self._held:
            data, self._held = self._held + data, b""
        goaways: list[GoAway] = []
        rest: list[bytes] = []
        start = at = 0
        at += min(self._left, len(data))
        self._left -= at
        while len(data) - at >= _HEADER_BYTES:
            size = int.from_bytes(data[at : at + 3], "big")
            if not self._begun:
                self._begin(data[at + 3])
            if size > MAX_FRAME_BYTES:
                raise Http2Error(f"it sent a frame beyond {MAX_FRAME_BYTES} bytes")
            if data[at + 3] != _GOAWAY:
                self._count(data[at + 3], size, ends=bool(data[at + 4] & _END_STREAM))
                whole = _HEADER_BYTES + size
                step = min(whole, len(data) - at)
                self._left = whole - step
                at += step
                continue
            end = at + _HEADER_BYTES + size
            if end > len(data):
                break
            goaways.append(_goaway(data[at + _HEADER_BYTES : end]))
            rest.append(data[start:at])
            start = at = end
        if at < len(data):
            self._held = data[at:]
        rest.append(data[start:at])
        return b"".join(rest), goaways

    def _begin(self, kind: int) -> None:
        if kind != _SETTINGS:
            raise Http2Error("its first bytes are not those of HTTP/2")
        self._begun = True

    def _count(self, kind: int, size: int, *, ends: bool) -> None:
        if kind == _HEADERS or (kind == _DATA and (size or ends)):
            self._idle_frames = 0
            return
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise Http2Error(f"it sent {MAX_IDLE_FRAMES} frames that carry nothing")


def _goaway(payload: bytes) -> GoAway:
    if len(payload) < 8:
        raise Http2Error("its GOAWAY is too short")
    last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
    return GoAway(last, int.from_bytes(payload[4:8], "big"))
