"""The reader of HTTP/1.1 answers, fed whole, byte by byte and with bytes behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.remote.http.http1 import (
    MAX_HEAD_BYTES,
    FramingError,
    PeerClosedError,
    ResponseHead,
    ResponseReader,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Answer = tuple[ResponseHead, bytes, bool]


def _read(
    pieces: Iterable[bytes], *, method: str = "POST", ends: bool = False
) -> Answer:
    """Read one answer; return its head, its body, and whether all ended clean."""
    reader = ResponseReader()
    reader.expect(method)
    fed = [*pieces, *([b""] if ends else [])]
    fed.reverse()
    while (head := reader.head()) is None:
        reader.feed(fed.pop())
    body = b""
    while (piece := reader.piece()) is not None:
        body += piece
        if not piece:
            reader.feed(fed.pop())
    while fed:
        reader.feed(fed.pop())
    return head, body, reader.clean


def _pieces(data: bytes, size: int) -> list[bytes]:
    size = max(size, len(data) // 500)
    return [data[start : start + size] for start in range(0, len(data), size)]


WHOLE: list[tuple[str, bytes, Answer]] = [
    (
        "POST",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b \t\r\na:c\r\n\r\nhello",
        (
            ResponseHead(200, {"content-length": "5", "a": "b, c"}),
            b"hello",
            True,
        ),
    ),
    (
        "POST",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"4;name=value\r\nhalf\r\n00A \r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n",
        (
            ResponseHead(200, {"transfer-encoding": "Chunked"}),
            b"half0123456789",
            True,
        ),
    ),
    (
        "POST",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 429 \r\ncontent-length: 0, 0\r\n\r\n",
        (ResponseHead(429, {"content-length": "0, 0"}), b"", True),
    ),
    (
        "POST",
        b"HTTP/1.1 204\r\ncontent-length: 3\r\n\r\n",
        (ResponseHead(204, {"content-length": "3"}), b"", True),
    ),
    (
        "GET",
        b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
        (ResponseHead(304, {"transfer-encoding": "chunked"}), b"", True),
    ),
    (
        "HEAD",
        b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n",
        (ResponseHead(200, {"content-length": "999"}), b"", True),
    ),
    (
        "POST",
        b"HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 1\r\n\r\na",
        (
            ResponseHead(
                200, {"connection": "x, Close", "content-length": "1"}, keeps=False
            ),
            b"a",
            True,
        ),
    ),
    (
        "POST",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\nx: \xe9\r\n\r\na",
        (
            ResponseHead(200, {"content-length": "1", "x": "\xe9"}, keeps=False),
            b"a",
            True,
        ),
    ),
]


@pytest.mark.parametrize(("method", "data", "expected"), WHOLE)
def test_answer_is_read_whole_byte_by_byte_and_with_bytes_behind(
    method: str, data: bytes, expected: Answer
) -> None:
    head, body, _ = expected
    assert _read([data], method=method) == expected
    for size in (1, 2, 3, 7):
        assert _read(_pieces(data, size), method=method) == expected
    assert _read([data + b"x"], method=method) == (head, body, False)
    assert _read([data, b"HTTP/1.1 200"], method=method) == (head, body, False)
    assert _read([data], method=method, ends=True) == (head, body, False)


def test_body_without_length_ends_with_the_connection_which_is_not_kept() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    head = ResponseHead(200, {}, keeps=False)
    for size in (1, 5, 1000):
        read = _read(_pieces(data, size), ends=True)
        assert read == (head, b"all of it", False)


def test_chunks_of_one_read_are_one_piece() -> None:
    reader = ResponseReader()
    reader.expect("GET")
    reader.feed(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nb"
    )
    assert reader.head() is not None
    assert [reader.piece(), reader.piece()] == [b"ab", b""]
    reader.feed(b"c\r\n0\r\n\r\n")
    assert [reader.piece(), reader.piece(), reader.piece()] == [b"c", None, None]
    assert reader.clean


OK = b"HTTP/1.1 200 OK\r\n"

BAD_HEADS = [
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 banana\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 600 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\n\r\n",
    b"HTTP/1.1 200 OK\n\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    OK + b"no colon\r\n\r\n",
    OK + b"space : before\r\n\r\n",
    OK + b" a: b\r\n\r\n",
    OK + b"a: folded\r\n line\r\n\r\n",
    OK + b"a: b\nc: d\r\n\r\n",
    OK + b"a: b\rc: d\r\n\r\n",
    OK + b"a: \x00\r\n\r\n",
    OK + b"a: \x7f\r\n\r\n",
    OK + b": b\r\n\r\n",
    OK + b"b@d: c\r\n\r\n",
    OK + b"content-length: -1\r\n\r\n",
    OK + b"content-length: +1\r\n\r\n",
    OK + b"content-length: 1_0\r\n\r\n",
    OK + b"content-length: 0x1\r\n\r\n",
    OK + b"content-length:\r\n\r\n",
    OK + b"content-length: 1,\r\n\r\n",
    OK + b"content-length: 1, 2\r\n\r\n",
    OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
    OK + b"content-length: 9999999999999999999\r\n\r\n",
    OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"transfer-encoding: gzip\r\n\r\n",
    OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
    OK + b"transfer-encoding: chunked, chunked\r\n\r\n",
    OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"transfer-encoding: xchunked\r\n\r\n",
    OK + b"transfer-encoding:\r\n\r\n",
    b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"a: " + b"x" * MAX_HEAD_BYTES,
    b"HTTP/1.1 102 Wait\r\n\r\n" * 4000,
]


@pytest.mark.parametrize("data", BAD_HEADS)
@pytest.mark.parametrize("size", [1000, 1])
def test_head_that_could_be_read_in_two_ways_is_refused_for_good(
    data: bytes, size: int
) -> None:
    reader = ResponseReader()
    reader.expect("POST")
    with pytest.raises(FramingError, match="the head of its answer ") as caught:
        for piece in _pieces(data, size):
            reader.feed(piece)
            reader.head()
    reader.feed(OK + b"\r\n")
    with pytest.raises(FramingError) as again:
        reader.head()
    assert again.value is caught.value
    assert not reader.clean


BAD_CHUNKS = [
    b"ZZ\r\n",
    b"\r\n",
    b"-1\r\n",
    b"0x1\r\na\r\n",
    b"1_0\r\n",
    b" 1\r\na\r\n",
    b"1\na\r\n",
    b"1 2\r\n",
    b"1;\x00\r\n",
    b"1;a=b\nc\r\na\r\n",
    b"1000000000000000\r\n",
    b"1" + b";" * 2000,
    b"1" + b";" * 2000 + b"\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\na: \x01\r\n\r\n",
    b"0\r\n" + b"a: b\r\n" * 20_000,
]


@pytest.mark.parametrize("data", BAD_CHUNKS)
@pytest.mark.parametrize("size", [1000, 1])
def test_broken_chunk_is_refused_behind_what_was_good(data: bytes, size: int) -> None:
    reader = ResponseReader()
    reader.expect("POST")
    reader.feed(OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    assert reader.head() is not None
    pieces = _pieces(data, size)
    reader.feed(pieces[0])
    assert reader.piece() == b"half"
    with pytest.raises(FramingError, match="the body of its answer ") as caught:
        for piece in [*pieces[1:], b"\r\n\r\n\r\n"]:
            reader.piece()
            reader.feed(piece)
    with pytest.raises(FramingError) as again:
        reader.piece()
    assert again.value is caught.value
    assert not reader.clean


@pytest.mark.parametrize("junk", [b"x", b"\n", b"\rx", b"more\r\n"])
def test_chunk_that_is_longer_than_it_says_is_refused(junk: bytes) -> None:
    for size in (1, 1000):
        with pytest.raises(FramingError, match="longer than it says"):
            _read(
                _pieces(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nab" + junk, size)
            )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        OK + b"content-length: 9\r\n\r\nhalf",
        OK + b"transfer-encoding: chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n9\r\nhalf",
        OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf",
        OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ],
)
def test_answer_that_ends_early_is_told_from_one_that_ends(data: bytes) -> None:
    for size in (1, 1000):
        with pytest.raises(PeerClosedError):
            _read(_pieces(data, size), ends=True)


def test_reading_a_head_is_linear_in_its_spaces() -> None:
    value = "a" + " " * 60_000 + "b"
    head, _, _ = _read([b"HTTP/1.1 204\r\na: " + value.encode() + b"\r\n\r\n"])
    assert head.headers == {"a": value}


_NAMES = st.from_regex(rb"\A[a-z-]{1,8}\Z").filter(
    lambda name: name not in {b"content-length", b"transfer-encoding", b"connection"}
)
_VALUES = st.from_regex(rb"\A(?:[!-~](?:[ -~]{0,8}[!-~])?)?\Z")


@given(
    fields=st.lists(st.tuples(_NAMES, _VALUES), max_size=5),
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    chunked=st.booleans(),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=12),
)
def test_reader_agrees_with_h11_at_every_split(
    fields: list[tuple[bytes, bytes]],
    chunks: list[bytes],
    chunked: bool,
    cuts: list[int],
) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % f for f in fields)
    if chunked:
        data += b"transfer-encoding: chunked\r\n\r\n"
        data += b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    else:
        body = b"".join(chunks)
        data += b"content-length: %d\r\n\r\n%b" % (len(body), body)
    pieces, rest = [], data
    for number in range(len(data)):
        if rest:
            cut = cuts[number % len(cuts)]
            pieces.append(rest[:cut])
            rest = rest[cut:]
    head, body, clean = _read(pieces)
    theirs, their_body = _read_h11(data)
    assert (head.status, head.headers) == (theirs.status_code, _joined(theirs))
    assert (body, clean) == (their_body, True)


def _read_h11(data: bytes) -> tuple[h11.Response, bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return head, body


def _joined(head: h11.Response) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode(), value.decode()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


_PARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 404\r\n",
        b"content-length: 3\r\n",
        b"content-length: 0\r\n",
        b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n",
        b"a: b\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"abc",
        b"\x00",
        b" ",
        b":",
    ]
)


@given(st.lists(st.one_of(_PARTS, st.binary(max_size=3)), max_size=14))
def test_any_bytes_mean_the_same_whole_and_byte_by_byte(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert _outcome([data]) == _outcome(_pieces(data, 1))


def _outcome(pieces: list[bytes]) -> tuple[object, bytes, str]:
    """Read as far as it goes: the head, the body so far, and how it ended."""
    reader = ResponseReader()
    reader.expect("GET")
    head, body = None, b""
    fed = [*pieces, b""]
    try:
        for piece in fed:
            reader.feed(piece)
            head = head or reader.head()
            while head is not None and (more := reader.piece()):
                body += more
        end = "done" if reader.done else "open"
    except FramingError:
        end = "framing"
    except PeerClosedError:
        end = "closed"
    return head, body, end


def test_a_trailer_that_looks_like_a_chunk_is_none() -> None:
    reader = ResponseReader()
    reader.expect("POST")
    reader.feed(OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n")
    assert reader.head() is not None
    assert (reader.piece(), reader.piece()) == (b"half", b"")
    reader.feed(b"5\r\nhello\r\n")
    with pytest.raises(FramingError):
        while reader.piece() == b"":
            reader.feed(b"\r\n")
