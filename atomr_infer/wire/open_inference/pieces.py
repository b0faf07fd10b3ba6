"""A long list of JSON in pieces, so that not all of it becomes Python's objects.

A number of three bytes is an object of 32 and a pointer to it; a list in a list is
ninety bytes more.  What is cut here holds numbers, true, false and lists of them, and
is JSON: a comma is between two elements, and a bracket is one.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 256 * 1024
"""About so long is a piece; what is shorter is not cut."""

_COMMA = re.compile(rb",")
_NEXT = rb"\][ \t\r\n]*"


@attrs.frozen
class Span:
    """A part of a text.

    Attributes:
        begin: where it begins.
        end: where it ends.
        is_one: whether it is one long element, and not some, with commas between.
    """

    begin: int
    end: int
    is_one: bool = False


def cut(
    text: bytes, whole: Span, depth: int, *, piece_bytes: int = PIECE_BYTES
) -> Iterator[Span]:
    """Give the elements of a list in parts that are not long, if they are not.

    Where lists are not ``depth`` deep, what is given is not always JSON.

    Args:
        text: what the list is in.
        whole: where it is, with its brackets.
        depth: how deep lists are in it, itself counted.
        piece_bytes: how long a part is to be.

    >>> text = b"[1,2,3]"
    >>> [text[s.begin:s.end] for s in cut(text, Span(0, 7), 1, piece_bytes=2)]
    [b'1,2', b'3']
    >>> text = b"[[1],[2,3]]"
    >>> [s.is_one for s in cut(text, Span(0, 11), 2, piece_bytes=2)]
    [False, True]
    """
    at, end = text.find(b"[", whole.begin, whole.end), text.rfind(b"]", 0, whole.end)
    if not whole.begin <= at < end:
        yield whole
        return
    border = _COMMA if depth == 1 else re.compile(rb"(?:%b){%d}," % (_NEXT, depth - 1))
    at += 1
    while at < end:
        span = _next(text, Span(at, end), border, piece_bytes)
        yield span
        at = span.end + 1


def _next(text: bytes, left: Span, border: re.Pattern[bytes], piece_bytes: int) -> Span:
    at, end = left.begin, left.end
    if end - at <= piece_bytes:
        return left
    # Within a window: what is looked at in vain is looked at again.
    window = min(end, at + 2 * piece_bytes)
    for begin in (at + piece_bytes, at):
        found = border.search(text, begin, window)
        if found is not None:
            return Span(at, found.end() - 1)
    found = border.search(text, at, end)
    return Span(at, end if found is None else found.end() - 1, is_one=True)
