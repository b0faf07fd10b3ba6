"""Heads of one connection are read as each would be on a connection of its own."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.gateway.http1.head import BadRequestError, HeadLimits, RequestHead
from atomr_infer.gateway.http1.reader import RequestReader

PARTS = st.sampled_from(
    [
        b"Content-Length: 2",
        b"Content-Length: 12",
        b"content-length:2",
        b"Content-Length: 2 ",
        b"Content-Length: +2",
        b"Content-Length: 2, 2",
        b"Content-Length: ",
        b"Content-Length: 9999999999999999999",
        b"Transfer-Encoding: chunked",
        b"X-Content-Length: 2",
        b"X: \tcontent-length: 2",
        b"X: 1",
        b"X: 2",
        b"Y: 1",
        b"Connection: close",
    ]
)
LINES = st.sampled_from([b"POST /a HTTP/1.1", b"POST /b HTTP/1.1"])
HEADS = st.builds(
    lambda line, parts: b"\r\n".join([line, b"Host: x", *parts]) + b"\r\n\r\n",
    LINES,
    st.lists(PARTS, max_size=3),
)


def next_of(reader: RequestReader, data: bytes) -> object:
    """What a reader makes of one more head, whose body it passes over."""
    reader.feed(data)
    try:
        head = reader.next_head()
        assert head is not None
        if not head.length or head.length > 100:
            end = b"0\r\n\r\n" if head.length is None else b""
        else:
            end = b"x" * head.length
        reader.feed(end)
        while reader.head is not None and reader.next_piece():
            pass
    except BadRequestError as error:
        return error.status, error.message
    return told(head)


def told(head: RequestHead) -> dict[str, object]:
    return attrs.asdict(head, filter=lambda field, _: field.name != "notes")


@given(st.lists(HEADS, min_size=2, max_size=6))
def test_a_head_is_read_as_if_it_were_the_first(heads: list[bytes]) -> None:
    reader = RequestReader(HeadLimits())
    for data in heads:
        alone = next_of(RequestReader(HeadLimits()), data)
        assert next_of(reader, data) == alone
        if isinstance(alone, tuple) or reader.head is not None:
            return  # nothing is read behind a refusal, or before a body's end


def test_heads_that_differ_in_their_length_share_their_notes() -> None:
    reader = RequestReader(HeadLimits())
    form = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX: y\r\n\r\n%s"
    heads = []
    for size in (3, 3, 5, 1234):
        reader.feed(form % (size, b"x" * size))
        heads.append(reader.next_head())
        while reader.next_piece() is not None:
            pass
    assert [head and head.length for head in heads] == [3, 3, 5, 1234]
    assert len({id(head and head.notes) for head in heads}) == 1
    assert heads[3] is not None
    assert told(heads[3])["headers"] == [
        (b"host", b"x"),
        (b"content-length", b"1234"),
        (b"x", b"y"),
    ]


@pytest.mark.parametrize(
    "form",
    [
        b"Authorization: %b\r\nContent-Length: 0\r\n\r\n",
        b"Content-Length: 0\r\nAuthorization: %b\r\n\r\n",
        b"Authorization: %b\r\n\r\n",
    ],
)
def test_another_head_has_notes_of_its_own(form: bytes) -> None:
    reader = RequestReader(HeadLimits())
    for name in (b"x", b"y"):
        reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\n" + form % name)
        head = reader.next_head()
        assert head is not None
        assert head.notes.known is None
        head.notes.known = name
        assert reader.next_piece() is None
