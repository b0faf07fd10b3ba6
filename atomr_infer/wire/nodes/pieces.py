"""Long values over a link that carries messages of a megabyte.

Each message is a byte that says whether more follows, and a piece of the value.

Pure.
"""

from __future__ import annotations

from atomr_infer.wire.nodes.frames import MAX_VALUE_BYTES, FrameError

PIECE_BYTES = 256 * 1024
"""A piece; short enough that other streams have their turn in between."""

_LAST = b"\x00"
_MORE = b"\x01"


def cut(data: bytes) -> list[bytes]:
    r"""Return the messages that carry a value.

    >>> cut(b"value")
    [b'\x00value']
    """
    if len(data) <= PIECE_BYTES:
        return [_LAST + data]
    ends = range(PIECE_BYTES, len(data) + PIECE_BYTES, PIECE_BYTES)
    return [
        (_MORE if end < len(data) else _LAST) + data[end - PIECE_BYTES : end]
        for end in ends
    ]


class Joiner:
    """Puts the pieces of one side of a stream together again."""

    def __init__(self, *, max_bytes: int = MAX_VALUE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def is_within(self) -> bool:
        """Whether a value has begun and is not whole."""
        return bool(self._pieces)

    def take(self, message: bytes) -> bytes | None:
        """Return the value that a message completes; None: more follows.

        Raises:
            FrameError: it is no piece, or the value is too long.
        """
        mark = message[:1]
        if mark == _LAST and not self._pieces:
            return message[1:]
        if mark not in (_LAST, _MORE) or len(message) == 1:
            raise FrameError("a message that is no piece of a value")
        self._size += len(message) - 1
        if self._size > self._max_bytes:
            raise FrameError(f"a value of more than {self._max_bytes} bytes")
        self._pieces.append(message[1:])
        if mark == _MORE:
            return None
        value = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return value
