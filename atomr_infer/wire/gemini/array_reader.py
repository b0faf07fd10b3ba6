r"""A JSON array, cut into its items as the network cuts its bytes.

Without ``alt=sse`` Google answers a stream as one array, and a proxy may strip
the query (S9).  The items end where their brackets balance outside of strings;
no item is decoded here.

>>> reader = ArrayReader()
>>> reader.feed(b'[{"a": "}"'), reader.feed(b'},\n{"b":[1]}]')
([], [b'{"a": "}"}', b'{"b":[1]}'])

Pure.
"""

from __future__ import annotations

import re

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.wire.sse import MAX_EVENT_BYTES

_OPENING, _CLOSING = b"{[", b"}]"
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
_BETWEEN = b" \t\r\n,\xef\xbb\xbf"


class ArrayReader:
    """Bytes in, items out.

    Attributes:
        ended: True once the array's end was seen.
    """

    def __init__(self, *, max_item_bytes: int = MAX_EVENT_BYTES) -> None:
        """Start at the beginning of a body."""
        self._max_item_bytes = max_item_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._begun = False
        self.ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the body; return the items they complete.

        Raises:
            UpstreamProtocolError: it is no array of objects, or an item is
                beyond its cap.
        """
        self._buffer += data
        items = []
        while not self.ended and (item := self._next()) is not None:
            items.append(item)
        if len(self._buffer) > self._max_item_bytes:
            raise UpstreamProtocolError(
                f"a streamed item is longer than {self._max_item_bytes} bytes",
                code="event_too_long",
            )
        return items

    def _next(self) -> bytes | None:
        if not self._depth and not self._open_item():
            return None
        while (found := self._scan()) is not None:
            if self._depth == 0:
                item = bytes(self._buffer[:found])
                del self._buffer[:found]
                self._scanned = 0
                return item
        return None

    def _open_item(self) -> bool:
        """Skip to an item's first byte; False when there is none yet."""
        rest = self._buffer.lstrip(_BETWEEN)
        if not self._begun and rest.startswith(b"["):
            self._begun = True
            rest = rest[1:].lstrip(_BETWEEN)
        self._buffer = bytearray(rest)
        if not rest:
            return False
        if rest.startswith(b"]"):
            self.ended = True
            return False
        if not rest.startswith(b"{"):
            raise UpstreamProtocolError(
                "the upstream's stream is neither events nor an array of objects",
                code="malformed_body",
            )
        return True

    def _scan(self) -> int | None:
        """Go past one bracket or quote; return where, None at the buffer's end."""
        if self._in_string:
            return self._scan_string()
        match = _OUTSIDE.search(self._buffer, self._scanned)
        if match is None:
            self._scanned = len(self._buffer)
            return None
        self._scanned = match.end()
        byte = match[0]
        if byte == b'"':
            self._in_string = True
            return self._scanned
        self._depth += 1 if byte in _OPENING else -1
        return self._scanned

    def _scan_string(self) -> int | None:
        match = _INSIDE.search(self._buffer, self._scanned)
        if match is None:
            self._scanned = len(self._buffer)
            return None
        if match[0] == b'"':
            self._in_string = False
            self._scanned = match.end()
            return self._scanned
        if match.end() == len(self._buffer):
            # What is escaped has not come yet: look again from the backslash.
            self._scanned = match.start()
            return None
        self._scanned = match.end() + 1
        return self._scanned
