"""How many frames of each kind a peer may send.

h2 keeps the rules of HTTP/2; a peer that floods us keeps them too.  So each kind of
frame that costs us work and carries nothing has a bucket: so many at once, and so
many a second.  What a link needs is far below; a peer that is above is cut off.

The block of headers of a link's stream is a hundred bytes.  One that needs more than
a frame or two is an attack on whoever collects it (CVE-2024-27316 and its kin).

Pure: the caller passes ``now_s``.

Source: RFC 9113, 4.1 and 10.5; CVE-2019-9512, 9514, 9515, CVE-2023-44487.
"""

from __future__ import annotations

from enum import IntEnum

import attrs

MAX_HTTP2_FRAME_BYTES = 16_384
"""What we allow, by not saying otherwise; larger ones are slower (cluster design)."""

MAX_HEADER_BYTES = 8_192
MAX_CONTINUATIONS = 4

_END_HEADERS = 0x4


class GuardError(Exception):
    """The peer's frames are an attack, or no HTTP/2; quotes none of them.

    Attributes:
        flood: too many of a kind, each of them right.
    """

    def __init__(self, problem: str, *, flood: bool) -> None:
        self.flood = flood
        super().__init__(problem)


class Kind(IntEnum):
    """The frames of HTTP/2 that we know by name."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


@attrs.frozen
class Allowance:
    """How many of a kind a peer may send.

    Attributes:
        burst: at once.
        per_s: after that, in the long run.
    """

    burst: int
    per_s: float


ALLOWANCES = {
    # Empty ones, such as the end of a stream; the windows bound those with bytes.
    Kind.DATA: Allowance(1024, 2000.0),
    # One for each stream, and one for each end of it.
    Kind.HEADERS: Allowance(1024, 2000.0),
    Kind.PRIORITY: Allowance(16, 1.0),
    # One for each stream that is broken off, as when all clients of a node leave.
    Kind.RST_STREAM: Allowance(512, 1000.0),
    Kind.SETTINGS: Allowance(16, 1.0),
    Kind.PUSH_PROMISE: Allowance(0, 0.0),
    Kind.PING: Allowance(64, 20.0),
    Kind.GOAWAY: Allowance(2, 0.1),
    # One for each half of a window, for each stream and for the connection.
    Kind.WINDOW_UPDATE: Allowance(4096, 8000.0),
    Kind.CONTINUATION: Allowance(16, 8.0),
}
_UNKNOWN = Allowance(16, 1.0)


class _Bucket:
    __slots__ = ("_allowance", "_at_s", "_left")

    def __init__(self, allowance: Allowance, now_s: float) -> None:
        self._allowance = allowance
        self._left = float(allowance.burst)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        allowance = self._allowance
        if self._left < 1:
            grown = self._left + (now_s - self._at_s) * allowance.per_s
            self._left = min(grown, float(allowance.burst))
            self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class FrameGuard:
    """Counts the frames of one connection that carry nothing."""

    def __init__(self, *, now_s: float) -> None:
        self._begun = False
        self._block_bytes = 0
        self._continuations = 0
        self._in_block = False
        self._unknown = _Bucket(_UNKNOWN, now_s)
        self._buckets: dict[int, _Bucket] = {
            kind: _Bucket(allowance, now_s) for kind, allowance in ALLOWANCES.items()
        }

    def count(self, kind: int, flags: int, *, size: int, now_s: float) -> None:
        """Look at the head of a frame; of DATA with bytes it need not be called.

        Raises:
            GuardError: the connection must be closed.
        """
        if not self._begun:
            if kind != Kind.SETTINGS:
                raise GuardError("its first bytes are not those of HTTP/2", flood=False)
            self._begun = True
        if not self._buckets.get(kind, self._unknown).take(now_s):
            name = Kind(kind).name if kind in self._buckets else "unknown"
            raise GuardError(f"it floods us with {name} frames", flood=True)
        if self._in_block or kind == Kind.HEADERS:
            self._collect(kind, flags, size)

    @property
    def in_block(self) -> bool:
        """True where the next frame must go on with a block of headers."""
        return self._in_block

    def _collect(self, kind: int, flags: int, size: int) -> None:
        if not self._in_block:
            self._block_bytes = self._continuations = 0
            self._in_block = True
        elif kind != Kind.CONTINUATION:
            raise GuardError("it interrupts a block of headers", flood=False)
        self._block_bytes += size
        self._continuations += kind == Kind.CONTINUATION
        if (
            self._block_bytes > MAX_HEADER_BYTES
            or self._continuations > MAX_CONTINUATIONS
        ):
            raise GuardError(
                f"it sent headers beyond {MAX_HEADER_BYTES} bytes", flood=True
            )
        self._in_block = not flags & _END_HEADERS
