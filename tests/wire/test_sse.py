from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.wire.sse import KEEPALIVE, SseEvent, SseReader, encode_event
from tests.testing_kit.goldens import EVENT_NAMES, golden

GOLDEN = {
    "openai": (
        b'data: {"a":1}\n\ndata: {"b":"\xe2\x80\xa8\xc2\x85\xf0\x9f\x98\x80"}\n\n'
        b"data: [DONE]\n\n",
        [
            SseEvent(b'{"a":1}'),
            SseEvent(b'{"b":"\xe2\x80\xa8\xc2\x85\xf0\x9f\x98\x80"}'),
            SseEvent(b"[DONE]"),
        ],
    ),
    "carriage returns": (
        b"data: 1\r\rdata: 2\r\n\r\ndata: 3\n\r\ndata: 4\r\n\n",
        [SseEvent(b"1"), SseEvent(b"2"), SseEvent(b"3"), SseEvent(b"4")],
    ),
    "byte order mark": (b"\xef\xbb\xbfdata: x\n\n", [SseEvent(b"x")]),
    "second mark is text": (
        b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\ndata: y\n\n",
        [SseEvent(b"y")],
    ),
    "no space": (b"data:x\n\ndata:  y\n\n", [SseEvent(b"x"), SseEvent(b" y")]),
    "several lines": (b"data: a\ndata: b\ndata\n\n", [SseEvent(b"a\nb\n")]),
    "names": (
        b"event: error\ndata: x\n\ndata: y\n\nevent: alone\n\ndata: z\n\n",
        [SseEvent(b"x", "error"), SseEvent(b"y"), SseEvent(b"z")],
    ),
    "comments and unknown fields": (
        KEEPALIVE + b":\n:data: no\nid: 7\nretry: 10\nnonsense\n\ndata: x\n\n",
        [SseEvent(b"x")],
    ),
    "empty data": (b"data:\n\ndata\n\n", [SseEvent(b""), SseEvent(b"")]),
}


def _read(*pieces: bytes) -> list[SseEvent]:
    reader = SseReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    last = reader.close()
    return events if last is None else [*events, last]


@pytest.mark.parametrize("name", GOLDEN)
def test_s2_plain_stream_survives_every_split_point(name: str) -> None:
    data, events = GOLDEN[name]
    for at in range(len(data) + 1):
        assert _read(data[:at], data[at:]) == events


@pytest.mark.parametrize("name", GOLDEN)
def test_s2_plain_stream_survives_byte_by_byte(name: str) -> None:
    data, events = GOLDEN[name]
    assert _read(*_bytes_of(data)) == events


# The streams of all dialects, with each kind of line end.
STREAMS = {
    f"{name} {end_name}": golden(name).replace(b"\r\n", b"\n").replace(b"\n", end)
    for name in EVENT_NAMES
    for end_name, end in (("LF", b"\n"), ("CRLF", b"\r\n"), ("CR", b"\r"))
}


@pytest.mark.parametrize("name", STREAMS)
def test_s2_dialects_stream_survives_every_split_point(name: str) -> None:
    body = STREAMS[name]
    events = _by_the_book(body.decode())
    blocks = re.findall(rb"(?s).+?(?:\r\n\r\n|\n\n|\r\r)", body)
    assert b"".join(blocks) == body
    # What is read of an event does not depend on the one before, so a reader
    # for each event's points is as good as one for each of the whole stream's.
    for block, event in zip(blocks, events, strict=True):
        for at in range(len(block) + 1):
            reader = SseReader()
            assert reader.feed(block[:at]) + reader.feed(block[at:]) == [event]


@pytest.mark.parametrize("name", STREAMS)
def test_s2_dialects_stream_survives_byte_by_byte(name: str) -> None:
    body = STREAMS[name]
    assert _read(*_bytes_of(body)) == _by_the_book(body.decode())


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [2, 3, 7, 100, 1000, 100_000])
def test_s2_dialects_stream_survives_reads_of_any_size(name: str, size: int) -> None:
    body = STREAMS[name]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert _read(*pieces) == _by_the_book(body.decode())


def _bytes_of(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_s1_splits_lines_only_at_lf_cr_crlf() -> None:
    # What str.splitlines() would take for the end of a line as well.
    others = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    data = f'{{"text":"{others}"}}'.encode()
    lines = b"data: %b\ndata: 2\rdata: 3\r\n\n" % data
    assert _read(lines) == [SseEvent(data + b"\n2\n3")]


def test_s1_strips_one_byte_order_mark_at_the_start() -> None:
    mark = b"\xef\xbb\xbf"
    assert _read(mark + b"data: x\n\n") == [SseEvent(b"x")]
    assert _read(b"data: x\n\n" + mark + b"data: y\n\n") == [SseEvent(b"x")]
    assert _read(b"data: x\n\n", mark + b"data: y\n\n") == [SseEvent(b"x")]


def test_s1_carriage_return_at_the_end_of_a_read_waits_for_its_line_feed() -> None:
    reader = SseReader()
    assert reader.feed(b"data: 1\r") == []
    # It belongs to the CR: no empty line, so the event is still open.
    assert reader.feed(b"\n") == []
    assert reader.feed(b"data: 2\r") == []
    assert reader.feed(b"\n\r") == [SseEvent(b"1\n2")]
    assert reader.feed(b"\n") == []


def test_s3_data_with_or_without_its_space_joins_with_lf() -> None:
    assert _read(b"data: a\ndata:b\ndata:  c\ndata\n\n") == [SseEvent(b"a\nb\n c\n")]


def test_s3_event_that_began_in_one_read_goes_on_in_the_next() -> None:
    whole = [SseEvent(b"a\nb", "e")]
    assert _read(b"data: a\n", b"event: e\ndata: b\n\n") == whole
    assert _read(b"event: e\n", b"data: a\n", b"data: b\n\n") == whole


def test_s3_unknown_fields_and_comments_are_ignored_and_the_name_is_kept() -> None:
    body = b": c\nid: 1\nretry: 2\nevent: ping\nfoo: bar\ndata: {}\n\ndata: x\n\n"
    assert _read(body) == [SseEvent(b"{}", "ping"), SseEvent(b"x")]


def _by_the_book(text: str) -> list[SseEvent]:
    """The WHATWG algorithm, word for word, on the whole text."""
    events, data, name = [], "", ""
    lines = re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))
    for line in lines[:-1]:
        if not line:
            if data:
                events.append(SseEvent(data.removesuffix("\n").encode(), name))
            data, name = "", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
    return events


_PIECES = "data|event|:| |\n|\r|\r\n|{|\u2028|\x85|é|x|data: x\n\n|event: e\n|\n\n"
_TEXT = st.lists(st.sampled_from(_PIECES.split("|"))).map("".join)


@given(_TEXT, st.data())
@example("\ufeffdata: 1\r", None)
def test_reader_agrees_with_the_standard_however_the_bytes_are_cut(
    text: str, data: st.DataObject | None
) -> None:
    body = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)))) if data else [3, 9]
    edges = [0, *sorted(cuts), len(body)]
    reader = SseReader()
    events = [
        event
        for start, end in pairwise(edges)
        for event in reader.feed(body[start:end])
    ]
    assert events == _by_the_book(text)


def test_event_is_given_as_soon_as_a_carriage_return_ends_it() -> None:
    reader = SseReader()
    assert reader.feed(b"data: 1\r\r") == [SseEvent(b"1")]
    assert reader.feed(b"\ndata: 2\r\n\r\n") == [SseEvent(b"2")]


@pytest.mark.parametrize(
    ("rest", "event", "truncated"),
    [
        (b"", None, False),
        (b'data: {"a":1}', SseEvent(b'{"a":1}'), False),
        (b'data: {"a":1}\n', SseEvent(b'{"a":1}'), False),
        (b"event: error\ndata: {}", SseEvent(b"{}", "error"), False),
        (b"data: [DONE]", SseEvent(b"[DONE]"), False),
        (b"data: [1]", SseEvent(b"[1]"), False),
        (b'data: {"a":1', None, True),
        (b"data: [DONE", None, True),
        (b"data: 12", None, True),
        (b'data: {"a":"\xff"}', None, True),
        (b"data: " + b"[" * 100_000, None, True),
        (b": comment", None, False),
        (b"event: x\n", None, False),
    ],
)
def test_s4_end_of_body_accepts_a_pending_event_only_when_it_is_whole(
    rest: bytes, event: SseEvent | None, truncated: bool
) -> None:
    reader = SseReader()
    assert reader.feed(b"data: 0\n\n" + rest) == [SseEvent(b"0")]
    assert (reader.close(), reader.truncated) == (event, truncated)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 100],
        [b"x" * 60, b"x" * 60],
        [b"data: " + b"x" * 120 + b"\n\n"],
        [b"data: xxxxxxxxx\n"] * 20,
        [b":" + b"x" * 120 + b"\n"],
    ],
)
def test_s10_line_or_event_beyond_the_cap_is_an_error(pieces: list[bytes]) -> None:
    reader = SseReader(max_event_bytes=100)
    with pytest.raises(UpstreamProtocolError) as caught:
        for piece in pieces:
            reader.feed(piece)
    assert caught.value.code == "event_too_long"


@pytest.mark.parametrize(
    "piece", [b"x" * 51, b":" + b"x" * 50 + b"\n\n", b"data: " + b"x" * 45 + b"\n\n"]
)
def test_s10_line_beyond_its_own_cap_is_an_error(piece: bytes) -> None:
    reader = SseReader(max_event_bytes=100, max_line_bytes=50)
    assert reader.feed(b"data: " + b"x" * 44 + b"\n\n") == [SseEvent(b"x" * 44)]
    with pytest.raises(UpstreamProtocolError) as caught:
        reader.feed(piece)
    assert caught.value.code == "line_too_long"


def test_s10_event_up_to_the_cap_passes() -> None:
    reader = SseReader(max_event_bytes=100)
    data = b"x" * 94
    assert reader.feed(b"data: " + data + b"\n\n") == [SseEvent(data)]


def test_a_drip_of_single_bytes_costs_linear_time() -> None:
    reader = SseReader()
    body = b"data: " + b"x" * 200_000 + b"\n\n"
    events = [e for i in range(len(body)) for e in reader.feed(body[i : i + 1])]
    assert events == [SseEvent(b"x" * 200_000)]


@given(st.dictionaries(st.text(), st.text()), st.none() | st.just("ping"))
def test_what_is_written_is_read_back(value: dict[str, str], name: str | None) -> None:
    data = json.dumps(value, ensure_ascii=False).encode()
    assert _read(encode_event(data, name)) == [SseEvent(data, name or "")]


def test_w2_writer_writes_exactly_one_space_and_one_blank_line() -> None:
    assert encode_event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert encode_event(b"{}", "error") == b"event: error\ndata: {}\n\n"


def test_w2_writer_keeps_line_ends_of_the_data_from_forging_fields() -> None:
    assert encode_event(b"a\nevent: x\r\nb\rc") == (
        b"data: a\ndata: event: x\ndata: b\ndata: c\n\n"
    )
    with pytest.raises(ValueError, match="line end"):
        encode_event(b"", "x\ndata: forged")


def test_w3_keepalive_is_a_comment_that_no_reader_sees() -> None:
    assert KEEPALIVE.startswith(b": ")
    assert _read(KEEPALIVE, KEEPALIVE) == []
