"""A connection's last head, and whether the next one says the same.

What a client sends over one connection differs in its bodies, so its heads differ
in the digits of their length, if at all.  A head that is the last one but for these
digits is read without being read: whatever else it says was found to be good.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr_infer.gateway.http1.head import RequestHead

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})\r\n", re.IGNORECASE)

# Where it is longer, remembering costs more than reading.
_MAX_BYTES = 8192


class LastHead:
    """The bytes of a head that was read, and what they say."""

    __slots__ = ("_after", "_before", "_data", "_head", "_rest_bytes")

    def __init__(self, data: bytes, head: RequestHead) -> None:
        """Remember a head.

        Args:
            data: without the empty line.
            head: what they say.
        """
        self._head = head
        self._data = data if len(data) <= _MAX_BYTES else b""
        length = _LENGTH.search(self._data)
        self._before = self._after = b""
        if length is not None:
            self._before, self._after = data[: length.start(1)], data[length.end(1) :]
        self._rest_bytes = len(self._before) + len(self._after)

    def again(self, data: bytes) -> RequestHead | None:
        """Return what a head says when it says the same; None: it is to be read.

        Args:
            data: without the empty line.
        """
        if data == self._data:
            return self._head
        if (
            not self._rest_bytes < len(data) <= self._rest_bytes + 18
            or not data.startswith(self._before)
            or not data.endswith(self._after)
        ):
            return None
        digits = data[len(self._before) : len(data) - len(self._after)]
        if not self._before or not digits.isdigit():
            return None
        return self._head.with_length(digits)
