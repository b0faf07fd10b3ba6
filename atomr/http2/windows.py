"""Flow control: how much each side may send, stream by stream and in all.

A window that we opened shrinks as bytes come and opens again when half of it was
read: few WINDOW_UPDATE frames, and a sender that never waits for one while its reader
keeps up.

Pure.

Source: RFC 9113, 5.2 and 6.9.
"""

from __future__ import annotations

LARGEST = 0x7FFF_FFFF


class WindowError(Exception):
    """The peer does not keep to its windows, or opens ours too far."""


class InWindow:
    """What the peer may send us.

    Attributes:
        limit_bytes: how much when nothing is unread.
    """

    __slots__ = ("_left", "_read", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._left = limit_bytes
        self._read = 0

    def take(self, size: int) -> None:
        """Note that bytes came.

        Raises:
            WindowError: more than may.
        """
        self._left -= size
        if self._left < 0:
            raise WindowError("it sends more than its window")

    def read(self, size: int) -> int:
        """Note that bytes were read; return by how much the window opens now.

        >>> window = InWindow(100)
        >>> window.take(80)
        >>> window.read(40), window.read(20), window.read(20)
        (0, 60, 0)
        """
        self._read += size
        if self._read * 2 <= self.limit_bytes:
            return 0
        increment, self._read = self._read, 0
        self._left += increment
        return increment


class OutWindow:
    """What we may send.

    Attributes:
        left: in bytes; below 0 where the peer has made it smaller.
    """

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def widen(self, increment: int) -> None:
        """Note that the peer opens it, or by its settings closes it somewhat.

        Raises:
            WindowError: beyond what can be.
        """
        self.left += increment
        if self.left > LARGEST:
            raise WindowError("it opens a window beyond 2**31 - 1")
