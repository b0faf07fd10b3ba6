"""The head of an HTTP/1.1 answer, and how its body is framed.

Pure.

Source: RFC 9112, 6.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
}

# RFC 9110, 15.3.5 and 15.4.5: these have no body, whatever their fields say.
_BODILESS = frozenset({204, 304})

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@attrs.define(eq=False)
class AnswerHead:
    """The bytes of an answer's head, and what follows them.

    Attributes:
        data: status line, fields and the empty line.
        chunked: the body is sent in chunks.
        bodiless: it has no body, whatever is written to it.
        left: bytes of body that are due; None when the head does not say.
        close: the connection ends with this answer.
    """

    data: bytes
    chunked: bool
    bodiless: bool
    left: int | None
    close: bool


def answer_head(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    date: bytes,
    http10: bool,
    bodiless: bool,
    close: bool,
) -> AnswerHead:
    r"""Encode a head; the body's framing is chosen by its fields.

    A body without ``content-length`` is chunked, or ended by the connection's
    end for a client of HTTP/1.0.

    Args:
        status: 200 and above.
        headers: names in lower case; ``connection: close`` asks for the end.
        date: the whole date field.
        http10: the request was HTTP/1.0.
        bodiless: the answer has no body, as one to HEAD.
        close: the connection ends with this answer.

    Raises:
        ValueError: a field holds a line break.

    >>> head = answer_head(200, [(b"content-length", b"2")], date=b"",
    ...     http10=False, bodiless=False, close=False)
    >>> head.data, head.chunked, head.left
    (b'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n', False, 2)
    """
    headers = list(headers)
    named = dict(headers)
    length = named.get(b"content-length")
    if b"connection" in named:
        told = [value.lower() for name, value in headers if name == b"connection"]
        close = close or b"close" in told
        headers = [field for field in headers if field[0] != b"connection"]
    lines = [_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, date]
    lines += [b"%b: %b\r\n" % field for field in headers]
    bodiless = bodiless or status in _BODILESS
    framed = bodiless or length is not None
    chunked = not framed and not http10
    close = close or not (framed or chunked)
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    if close:
        lines.append(b"connection: close\r\n")
    elif http10:
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    data = b"".join(lines)
    _refuse_breaks(data, len(lines) - (0 if date else 1))
    left = 0 if bodiless else None if length is None else int(length)
    return AnswerHead(data, chunked, bodiless, left, close)


def chunk(data: bytes) -> bytes:
    r"""Frame a piece of a chunked body.

    >>> chunk(b"hello")
    b'5\r\nhello\r\n'
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


def _refuse_breaks(data: bytes, line_count: int) -> None:
    ends = data.count(b"\r\n")
    if ends == line_count == data.count(b"\n") == data.count(b"\r"):
        return
    raise ValueError("a header field of the answer holds a line break")
