"""Requests out of bytes: whole, byte by byte, and with the next one behind."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.gateway.http1.head import BadRequestError, HeadLimits
from atomr_infer.gateway.http1.reader import RequestReader

LIMITS = HeadLimits()

Seen = list[tuple[str, str, bytes]]
"""Method, path and body of each request."""

LENGTH = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /chunked HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    b'3\r\nhel\r\nA;name="value" ; b\r\nlo, world!\r\n0\r\nx-sum: 1\r\n\r\n'
)
NOTHING = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"
ALL = CHUNKED + NOTHING + LENGTH + b"\r\n" + NOTHING
SEEN: Seen = [
    ("POST", "/chunked", b"hello, world!"),
    ("GET", "/nothing", b""),
    ("POST", "/length", b"hello"),
    ("GET", "/nothing", b""),
]


def read(*pieces: bytes, limits: HeadLimits = LIMITS) -> Seen:
    """What a reader makes of pieces; it must not need another one."""
    reader = RequestReader(limits)
    seen: Seen = []
    bodies: list[bytes] = []
    for piece in pieces:
        reader.feed(piece)
        while True:
            if (head := reader.head) is None:
                if (head := reader.next_head()) is None:
                    break
                bodies.clear()
            body = reader.next_piece()
            if body is None:
                seen.append((head.method, head.path, b"".join(bodies)))
            elif body:
                bodies.append(body)
            else:
                break
    return seen


def test_requests_are_read_whole() -> None:
    assert read(ALL) == SEEN


def test_requests_are_read_byte_by_byte() -> None:
    assert read(*(ALL[at : at + 1] for at in range(len(ALL)))) == SEEN


@settings(deadline=None)
@given(st.lists(st.integers(0, len(ALL)), max_size=8))
def test_requests_are_read_wherever_they_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ALL)]
    pieces = [ALL[a:b] for a, b in pairwise(edges) if a < b]
    assert read(*pieces) == SEEN


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", CHUNKED[:-64]]))
def test_whatever_comes_is_a_request_or_refused(data: bytes, start: bytes) -> None:
    # Nothing but the one error may come out, and nothing may be made up.
    with suppress(BadRequestError):
        size = sum(len(body) for _, _, body in read(start + data))
        assert size <= len(start + data)


def test_what_follows_a_request_is_not_read_ahead() -> None:
    reader = RequestReader(LIMITS)
    reader.feed(LENGTH + b"\x00garbage\r\n\r\n")
    assert reader.next_head() is not None
    assert (reader.next_piece(), reader.next_piece()) == (b"hello", None)
    assert reader.unread == b"\x00garbage\r\n\r\n"
    assert reader.from_head == LENGTH + b"\x00garbage\r\n\r\n"
    with pytest.raises(BadRequestError):
        reader.next_head()


def test_a_head_over_its_limit_is_refused_whether_it_ends_or_not() -> None:
    limits = HeadLimits(max_head_bytes=200)
    for end in (b"", b"\r\n\r\n"):
        with pytest.raises(BadRequestError) as caught:
            read(NOTHING[:-2] + b"x: " + b"a" * 200 + end, limits=limits)
        assert caught.value.status == 431


def chunked(rest: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + rest


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (b"5;" + b"a" * 2000, "a line between chunks is too long"),
        (b"1;" + b"a" * 900 + b"\r\nx\r\n", "too much is written between the chunks"),
        (b"0\r\nx: " + b"a" * 2000, "a line between chunks is too long"),
    ],
)
def test_what_is_between_the_chunks_is_bounded(rest: bytes, message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(chunked(rest * 20))
    assert (caught.value.status, caught.value.message) == (400, message)


def test_a_trailer_is_bounded() -> None:
    with pytest.raises(BadRequestError) as caught:
        read(chunked(b"0\r\n" + b"x: %b\r\n" % (b"a" * 900) * 20))
    assert caught.value.message == "too much is written between the chunks"
