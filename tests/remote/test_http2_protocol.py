"""HTTP/2 without a socket: h2's server at the other end, and bytes gone wrong."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.remote.http.http1 import PeerClosedError, ResponseHead
from atomr_infer.remote.http.http2.frames import Http2Error
from atomr_infer.remote.http.http2.protocol import (
    WINDOW_BYTES,
    Answer,
    Http2Protocol,
    RefusedError,
    ResetError,
)

FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"h"),
    (b":path", b"/"),
]


class Pair:
    """A client and h2's server; what one writes, the other reads."""

    def __init__(self) -> None:
        self.client = Http2Protocol()
        self.server = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False)
        )
        self.server.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.to_client(self.server.data_to_send())
        self.to_server()

    def to_server(self) -> None:
        self.events += self.server.receive_data(self.client.to_send())

    def to_client(self, data: bytes, cuts: tuple[int, ...] = (65536,)) -> None:
        number = 0
        while data:
            cut = cuts[number % len(cuts)]
            self.client.receive(data[:cut])
            data = data[cut:]
            number += 1

    def ask(self, body: bytes = b"") -> Answer:
        answer = self.client.open(FIELDS, body)
        self.to_server()
        return answer

    def headers(self, answer: Answer) -> None:
        self.server.send_headers(answer.stream_id, [(":status", "200"), ("a", "b")])


def _body(pair: Pair, answer: Answer) -> bytes:
    body = b""
    while piece := pair.client.take(answer):
        body += piece
    assert piece is None
    return body


@given(
    bodies=st.lists(
        st.lists(st.binary(max_size=300), max_size=5), min_size=1, max_size=5
    ),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=9),
)
def test_answers_are_whole_however_frames_are_mixed_and_cut(
    bodies: list[list[bytes]], cuts: list[int]
) -> None:
    pair = Pair()
    answers = [pair.ask() for _ in bodies]
    for answer in answers:
        pair.headers(answer)
    for turn in range(max(map(len, bodies))):
        for answer, pieces in zip(answers, bodies, strict=True):
            if turn < len(pieces):
                pair.server.send_data(answer.stream_id, pieces[turn])
    for answer in answers:
        pair.server.end_stream(answer.stream_id)
    pair.to_client(pair.server.data_to_send(), tuple(cuts))
    for answer, pieces in zip(answers, bodies, strict=True):
        assert answer.head == ResponseHead(200, {"a": "b"})
        assert _body(pair, answer) == b"".join(pieces)
        pair.client.close(answer)
    assert pair.client.streams == {}
    pair.to_server()
    assert not any(isinstance(e, h2.events.StreamReset) for e in pair.events)


def test_window_of_a_stream_opens_when_half_of_it_was_read() -> None:
    pair = Pair()
    answer = pair.ask()
    pair.headers(answer)
    for _ in range(WINDOW_BYTES // 16384):
        pair.server.send_data(answer.stream_id, bytes(16384))
    pair.to_client(pair.server.data_to_send())
    pair.to_server()
    assert pair.server.local_flow_control_window(answer.stream_id) == 0
    assert len(pair.client.take(answer) or b"") == WINDOW_BYTES
    pair.to_server()
    assert pair.server.local_flow_control_window(answer.stream_id) == WINDOW_BYTES


def test_window_of_the_connection_opens_whether_anybody_reads_or_not() -> None:
    pair = Pair()
    for _ in range(80):
        answer = pair.ask()
        pair.headers(answer)
        for _ in range(WINDOW_BYTES // 16384):
            pair.server.send_data(answer.stream_id, bytes(16384))
        pair.to_client(pair.server.data_to_send())
        pair.client.close(answer)
        pair.to_server()
    assert pair.server.outbound_flow_control_window > 4 * 1024 * 1024


def test_many_small_pieces_are_kept_as_few() -> None:
    pair = Pair()
    answer = pair.ask()
    pair.headers(answer)
    for _ in range(5000):
        pair.server.send_data(answer.stream_id, b"x")
    pair.to_client(pair.server.data_to_send())
    assert len(answer.pieces) < 1100
    assert pair.client.take(answer) == b"x" * 5000


def test_stream_above_the_last_of_a_goaway_was_not_processed() -> None:
    pair = Pair()
    kept, refused = pair.ask(), pair.ask()
    pair.to_client(bytes.fromhex("0000080700000000000000000100000000"))
    assert kept.error is None
    assert isinstance(refused.error, RefusedError)
    assert pair.client.room == 0
    pair.headers(kept)
    pair.server.send_data(kept.stream_id, b"late", end_stream=True)
    pair.to_client(pair.server.data_to_send())
    assert _body(pair, kept) == b"late"


def test_what_came_before_a_reset_is_read_before_it_is_raised() -> None:
    pair = Pair()
    answer = pair.ask()
    pair.headers(answer)
    pair.server.send_data(answer.stream_id, b"half")
    pair.server.reset_stream(answer.stream_id, 2)
    pair.to_client(pair.server.data_to_send())
    assert pair.client.take(answer) == b"half"
    for _ in range(2):
        with pytest.raises(ResetError, match="INTERNAL_ERROR"):
            pair.client.take(answer)
    assert issubclass(ResetError, PeerClosedError)


def test_stream_that_is_left_is_reset_and_what_still_comes_is_dropped() -> None:
    pair = Pair()
    answer = pair.ask()
    pair.headers(answer)
    pair.server.send_data(answer.stream_id, b"half")
    pair.client.close(answer)
    pair.to_client(pair.server.data_to_send())
    pair.to_server()
    assert [e.stream_id for e in pair.events if isinstance(e, h2.events.StreamReset)]
    assert list(answer.pieces) == []
    pair.client.close(answer)


@given(
    position=st.integers(0, 500),
    junk=st.binary(min_size=1, max_size=30),
    replaces=st.booleans(),
)
def test_bytes_gone_wrong_are_an_error_of_the_protocol_and_nothing_else(
    position: int, junk: bytes, replaces: bool
) -> None:
    pair = Pair()
    answers = [pair.ask(b"body"), pair.ask()]
    for answer in answers:
        pair.headers(answer)
        pair.server.send_data(answer.stream_id, b"x" * 100, end_stream=True)
    data = pair.server.data_to_send()
    position %= len(data)
    end = position + len(junk) if replaces else position
    try:
        pair.client.receive(data[:position] + junk + data[end:])
    except Http2Error as error:
        pair.client.fail(error)
    for answer in answers:
        assert answer.error is None or isinstance(
            answer.error, Http2Error | RefusedError | ResetError
        )
