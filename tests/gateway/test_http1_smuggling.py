"""Requests that two servers could read as two different things are refused.

Each case is a known way of hiding a request in another one's body, or of
making a body end elsewhere than a neighbour thinks.  Not one of them may be
answered as a request, and none may leave a second request to be read.

Source: RFC 9112, 11.2; Linhart et al., "HTTP Request Smuggling" (2005);
Kettle, "HTTP Desync Attacks" (2019).
"""

from __future__ import annotations

import pytest

from atomr_infer.gateway.http1.head import BadRequestError, HeadLimits
from tests.gateway.test_http1_reader import read

HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"


def post(*fields: bytes, body: bytes = HIDDEN) -> bytes:
    lines = [b"POST / HTTP/1.1", b"host: x", *fields, b"", b""]
    return b"\r\n".join(lines) + body


CASES = {
    "CL.TE": post(b"content-length: 4", b"transfer-encoding: chunked"),
    "TE.CL": post(b"transfer-encoding: chunked", b"content-length: 4"),
    "CL.CL, unlike": post(b"content-length: 0", b"content-length: 36"),
    "CL.CL, alike": post(b"content-length: 36", b"content-length: 36"),
    "CL list": post(b"content-length: 36, 36"),
    "CL negative": post(b"content-length: -1"),
    "CL plus": post(b"content-length: +36"),
    "CL hexadecimal": post(b"content-length: 0x24"),
    "CL with a space inside": post(b"content-length: 3 6"),
    "CL empty": post(b"content-length:"),
    "CL with underscores": post(b"content-length: 3_6"),
    "CL in other digits": post("content-length: \u0663\u0666".encode()),
    "CL too large": post(b"content-length: 99999999999999999999"),
    "CL with a tab in front of the colon": post(b"content-length\t: 36"),
    "CL with a space in front of the colon": post(b"content-length : 36"),
    "CL with a NUL": post(b"content-length: 36\x00"),
    "CL with a vertical tab": post(b"content-length: \x0b36"),
    "TE twice": post(b"transfer-encoding: chunked", b"transfer-encoding: identity"),
    "TE twice, alike": post(*[b"transfer-encoding: chunked"] * 2),
    "TE xchunked": post(b"transfer-encoding: xchunked"),
    "TE quoted": post(b'transfer-encoding: "chunked"'),
    "TE with a parameter": post(b"transfer-encoding: chunked;q=1"),
    "TE chunked, then identity": post(b"transfer-encoding: chunked, identity"),
    "TE identity": post(b"transfer-encoding: identity"),
    "TE gzip, then chunked": post(b"transfer-encoding: gzip, chunked"),
    "TE chunked twice in one": post(b"transfer-encoding: chunked, chunked"),
    "TE empty": post(b"transfer-encoding:"),
    "TE with a vertical tab": post(b"transfer-encoding: \x0bchunked"),
    "TE with a form feed": post(b"transfer-encoding: chunked\x0c"),
    "TE with a space in front of the colon": post(b"transfer-encoding : chunked"),
    "TE with a space in front": post(b" transfer-encoding: chunked"),
    "TE folded": post(b"transfer-encoding:\r\n chunked"),
    "TE behind a bare CR": post(b"x: y\rtransfer-encoding: chunked"),
    "TE behind a bare LF": post(b"x: y\ntransfer-encoding: chunked"),
    "TE in HTTP/1.0": post(b"transfer-encoding: chunked").replace(b"/1.1", b"/1.0", 1),
    "a field without a colon": post(b"content-length 36"),
    "a field without a name": post(b": 36"),
    "a field with a NUL in its name": post(b"x\x00: 1"),
    "a field with a NUL in its value": post(b"x: a\x00b"),
    "a field with DEL in its value": post(b"x: a\x7fb"),
    "a field with a letter that is not ASCII in its name": post("é: 1".encode()),
    "lines that end with LF": post().replace(b"\r\n", b"\n"),
    "an end that is LF CR LF": post(b"x: 1").replace(b"1\r\n\r\n", b"1\n\r\n"),
    "an end that is CR LF LF": post(b"x: 1").replace(b"1\r\n\r\n", b"1\r\n\n"),
    "an end that is CR CR LF": post(b"x: 1").replace(b"1\r\n\r\n", b"1\r\r\n\r\n"),
    "a field in front of the request line": b"x: 1\r\n" + post(),
}  # fmt: skip


def chunks(body: bytes) -> bytes:
    return post(b"transfer-encoding: chunked", body=body + HIDDEN)


CHUNK_CASES = {
    "negative": chunks(b"-1\r\n"),
    "plus": chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "0x": chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "empty": chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "no number": chunks(b"five\r\nhello\r\n0\r\n\r\n"),
    "with an underscore": chunks(b"1_0\r\nhello\r\n0\r\n\r\n"),
    "a space in front": chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "a space behind": chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "sixteen digits": chunks(b"0000000000000005\r\nhello\r\n0\r\n\r\n"),
    "over 64 bits": chunks(b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "LF behind the size": chunks(b"5\nhello\r\n0\r\n\r\n"),
    "CR CR LF behind the size": chunks(b"5\r\r\nhello\r\n0\r\n\r\n"),
    "LF behind the data": chunks(b"5\r\nhello\n0\r\n\r\n"),
    "data longer than its size": chunks(b"5\r\nhello, world\r\n0\r\n\r\n"),
    "data shorter than its size": chunks(b"7\r\nhello\r\n0\r\n\r\n"),
    "LF in an extension": chunks(b"5;a\nhello\r\n0\r\n\r\n"),
    "CR in an extension": chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "NUL in an extension": chunks(b"5;\x00\r\nhello\r\n0\r\n\r\n"),
    "LF behind the last size": chunks(b"0\n\r\n"),
    "LF at the end": chunks(b"0\r\n\n"),
    "a trailer without a colon": chunks(b"0\r\nx\r\n\r\n"),
    "a folded trailer": chunks(b"0\r\nx: 1\r\n y\r\n\r\n"),
    "a trailer with a bare LF": chunks(b"0\r\nx: 1\n\r\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_ambiguous_head_is_refused(case: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(CASES[case])
    assert caught.value.status in {400, 501}


@pytest.mark.parametrize("case", CHUNK_CASES)
def test_an_ambiguous_chunk_is_refused(case: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(CHUNK_CASES[case])
    assert caught.value.status == 400


@pytest.mark.parametrize("case", [*CASES, *CHUNK_CASES])
def test_it_is_refused_when_it_comes_byte_by_byte_as_well(case: str) -> None:
    data = (CASES | CHUNK_CASES)[case]
    with pytest.raises(BadRequestError):
        read(*(data[at : at + 1] for at in range(len(data))))


def test_a_body_without_a_length_is_the_next_request() -> None:
    # CL.0: who says 0 has no body, and what follows is read as what it is.
    assert read(post(b"content-length: 0")) == [
        ("POST", "/", b""),
        ("GET", "/hidden", b""),
    ]


def test_a_request_inside_a_body_stays_a_body() -> None:
    sized = post(b"content-length: %d" % len(HIDDEN))
    in_chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    for data in (sized, post(b"transfer-encoding: chunked", body=in_chunk)):
        assert read(data) == [("POST", "/", HIDDEN)]


def test_limits_do_not_open_a_way_around() -> None:
    tight = HeadLimits(max_head_bytes=60)
    with pytest.raises(BadRequestError):
        read(post(b"content-length: 4", b"transfer-encoding: chunked"), limits=tight)
