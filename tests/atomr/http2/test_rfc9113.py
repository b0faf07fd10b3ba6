"""What RFC 9113 asks of an endpoint, rule by rule, where a link depends on it.

The peer is bytes, written by hand: no library keeps it from what is forbidden.  Each
rule is a case that has its section as a name, and is listed in
``docs/reference/http2-rules.md``.

As h2spec does, a violation counts as noticed when the connection ends, or where the
RFC asks only for the stream to end, when that does.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import hpack
import pytest

from atomr.http2 import Lane, frames
from atomr.http2.events import Event, StreamData, StreamEnded, StreamOpened
from atomr.http2.framing import END_STREAM, PREFACE, frame_of
from atomr.http2.guard import Kind
from atomr.http2.problems import PeerError
from atomr.http2.protocol import LinkProtocol

PAGE = Path(__file__).parents[3] / "docs/reference/http2-rules.md"

ACK, END_HEADERS, PADDED = 0x1, 0x4, 0x8
OWN = 7
"""The first stream behind the lanes."""

Fields: TypeAlias = list[tuple[bytes, bytes]]
HEAD: Fields = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"node"),
    (b":path", b"/atomr/1/stream"),
]


class Peer:
    """A node that was dialed, and what it says to bytes."""

    def __init__(self, *, begun: bool = True) -> None:
        self.node = LinkProtocol(dialed=False, now_s=0.0)
        self.encoder = hpack.Encoder()
        self.heard: list[Event] = []
        self.answers = bytearray()
        if begun:
            self.send(PREFACE + frame(Kind.SETTINGS))
            for lane in Lane:
                path = f"/atomr/1/{lane.name.lower()}".encode()
                self.send(self.opening(lane, [*HEAD[:3], (b":path", path)]))
            self.answers.clear()

    def opening(self, stream_id: int, fields: Fields = HEAD, flags: int = 0) -> bytes:
        block = self.encoder.encode(fields)
        return frame(Kind.HEADERS, stream_id, block, END_HEADERS | flags)

    def send(self, data: bytes) -> None:
        self.heard += self.node.receive(data, now_s=0.0)
        self.answers += self.node.data_to_send(1 << 20)

    def said(self) -> list[tuple[int, int, int, bytes]]:
        """Return the frames that came back: kind, flags, stream and payload."""
        found, data = [], bytes(self.answers)
        while data:
            size = int.from_bytes(data[:3], "big")
            stream_id = int.from_bytes(data[5:9], "big")
            found.append((data[3], data[4], stream_id, data[9 : 9 + size]))
            data = data[9 + size :]
        return found

    def kinds(self) -> list[int]:
        return [kind for kind, *_ in self.said()]


def frame(kind: int, stream_id: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """Return a frame."""
    return frame_of(kind, stream_id=stream_id, flags=flags, payload=payload)


def in_three(block: bytes) -> bytes:
    """Return a block of headers in one frame and two that continue it."""
    return (
        frame(Kind.HEADERS, OWN, block[:5])
        + frame(Kind.CONTINUATION, OWN, block[5:9])
        + frame(Kind.CONTINUATION, OWN, block[9:], END_HEADERS)
    )


def setting(code: int, value: int) -> bytes:
    return frame(Kind.SETTINGS, payload=struct.pack(">HI", code, value))


def tell(text: str = "x") -> bytes:
    buffer = bytearray()
    frames.append(buffer, frames.Tell("s", frames.raw(text)))
    return bytes(buffer)


Make: TypeAlias = Callable[[Peer], bytes]

# --- what ends the connection --------------------------------------------------------

CONNECTION_ERRORS: dict[str, Make] = {
    "4.2 a frame is longer than SETTINGS_MAX_FRAME_SIZE": lambda _: frame(
        Kind.DATA, Lane.MSG, b"x" * 16_385
    ),
    "4.3 a block of headers cannot be decoded": lambda _: frame(
        Kind.HEADERS, OWN, b"\xff\xff\xff\xff\xff\xff", END_HEADERS
    ),
    "4.3 another frame comes within a block of headers": lambda p: (
        frame(Kind.HEADERS, OWN, p.encoder.encode(HEAD)) + frame(Kind.PING, 0, b"8" * 8)
    ),
    "4.3 data comes within a block of headers": lambda p: (
        frame(Kind.HEADERS, OWN, p.encoder.encode(HEAD))
        + frame(Kind.DATA, Lane.MSG, tell())
    ),
    "5.1 data comes for a stream that was never opened": lambda _: frame(
        Kind.DATA, OWN, b"x"
    ),
    "5.1 a window is opened of a stream that was never opened": lambda _: frame(
        Kind.WINDOW_UPDATE, OWN, b"\0\0\0\1"
    ),
    "5.1.1 a client opens a stream with an even number": lambda p: p.opening(8),
    "5.1.1 a stream has a number below one that was opened": lambda p: (
        p.opening(11) + p.opening(9)
    ),
    "5.1.2 more streams are open than SETTINGS_MAX_CONCURRENT_STREAMS": lambda p: (
        b"".join(p.opening(OWN + 2 * n) for n in range(513))
    ),
    "6.1 data comes for the connection": lambda _: frame(Kind.DATA, 0, b"x"),
    "6.1 padding is as long as its data": lambda _: frame(
        Kind.DATA, Lane.MSG, b"\x05abcd", PADDED
    ),
    "6.1 data is padded and has no length of its padding": lambda _: frame(
        Kind.DATA, Lane.MSG, b"", PADDED
    ),
    "6.2 headers come for the connection": lambda p: p.opening(0),
    "6.2 padding is as long as its headers": lambda p: frame(
        Kind.HEADERS, OWN, b"\xff" + p.encoder.encode(HEAD), END_HEADERS | PADDED
    ),
    "6.3 a priority is for the connection": lambda _: frame(
        Kind.PRIORITY, 0, b"\0\0\0\1\1"
    ),
    "6.4 the connection is reset as a stream": lambda _: frame(
        Kind.RST_STREAM, 0, b"\0\0\0\x08"
    ),
    "6.4 a reset is not four bytes": lambda _: frame(Kind.RST_STREAM, OWN, b"\0\0\0"),
    "6.5 settings are for a stream": lambda _: frame(Kind.SETTINGS, Lane.MSG),
    "6.5 settings are not a multiple of six bytes": lambda _: frame(
        Kind.SETTINGS, 0, b"\0\0\0"
    ),
    "6.5 an acknowledgement of settings has a payload": lambda _: frame(
        Kind.SETTINGS, 0, b"\0" * 6, ACK
    ),
    "6.5.2 SETTINGS_ENABLE_PUSH is neither 0 nor 1": lambda _: setting(2, 2),
    "6.5.2 SETTINGS_INITIAL_WINDOW_SIZE is beyond 2**31 - 1": lambda _: setting(
        4, 1 << 31
    ),
    "6.5.2 SETTINGS_MAX_FRAME_SIZE is below 16,384": lambda _: setting(5, 16_383),
    "6.5.2 SETTINGS_MAX_FRAME_SIZE is beyond 2**24 - 1": lambda _: setting(5, 1 << 24),
    "6.6 a client pushes": lambda _: frame(
        Kind.PUSH_PROMISE, Lane.MSG, b"\0\0\0\2\x82", END_HEADERS
    ),
    "6.7 a ping is for a stream": lambda _: frame(Kind.PING, Lane.MSG, b"12345678"),
    "6.7 a ping is not eight bytes": lambda _: frame(Kind.PING, 0, b"1234567"),
    "6.8 a goodbye is for a stream": lambda _: frame(Kind.GOAWAY, Lane.MSG, b"\0" * 8),
    "6.9 the connection's window is opened by nothing": lambda _: frame(
        Kind.WINDOW_UPDATE, 0, b"\0\0\0\0"
    ),
    "6.9 a window's update is not four bytes": lambda _: frame(
        Kind.WINDOW_UPDATE, 0, b"\0\0\1"
    ),
    "6.9.1 the connection's window is opened beyond 2**31 - 1": lambda _: frame(
        Kind.WINDOW_UPDATE, 0, b"\x7f\xff\xff\xff"
    ),
    "6.9.1 more data comes than a stream's window allows": lambda p: (
        p.opening(OWN) + frame(Kind.DATA, OWN, b"x" * 16_384) * 65
    ),
    "6.9.2 settings open a window beyond 2**31 - 1": lambda p: (
        p.opening(OWN)
        + frame(Kind.WINDOW_UPDATE, OWN, b"\x7f\xf0\x00\x00")
        + setting(4, 0x7FFF_FFFF)
    ),
    "6.10 a continuation continues nothing": lambda _: frame(
        Kind.CONTINUATION, OWN, b"\x82", END_HEADERS
    ),
    "6.10 a continuation is of another stream": lambda p: (
        frame(Kind.HEADERS, OWN, p.encoder.encode(HEAD))
        + frame(Kind.CONTINUATION, OWN + 2, b"", END_HEADERS)
    ),
}


FIRST_BYTES: dict[str, bytes] = {
    "3.4 the preface is another one": b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "3.4 the preface is cut short by a frame": PREFACE[:-2] + frame(Kind.SETTINGS),
    "3.4 the first frame is not SETTINGS": PREFACE + frame(Kind.PING, 0, b"12345678"),
}

MALFORMED: dict[str, Fields] = {
    "8.2.1 a name has upper case": [*HEAD, (b"X-Name", b"x")],
    "8.2.1 a name has a colon inside": [*HEAD, (b"x:y", b"x")],
    "8.2.1 a value has a line's end": [*HEAD, (b"x", b"a\r\nb: c")],
    "8.2.2 a field belongs to a connection": [*HEAD, (b"connection", b"close")],
    "8.2.2 the body is said to be chunked": [*HEAD, (b"transfer-encoding", b"chunked")],
    "8.3 a field comes before :path": [*HEAD[:3], (b"x", b"y"), HEAD[3]],
    "8.3 a pseudo-field is not known": [*HEAD, (b":node", b"x")],
    "8.3 a pseudo-field is an answer's": [*HEAD, (b":status", b"200")],
    "8.3.1 :method comes twice": [HEAD[0], *HEAD],
    "8.3.1 :path is missing": HEAD[:3],
    "8.3.1 :path is empty": [*HEAD[:3], (b":path", b"")],
}


@pytest.mark.parametrize("rule", CONNECTION_ERRORS)
def test_a_violation_ends_the_connection(rule: str) -> None:
    peer = Peer()
    data = CONNECTION_ERRORS[rule](peer)
    with pytest.raises(PeerError) as caught:
        peer.send(data)

    assert caught.value.flood == rule.startswith("6.6")  # none at all is allowed


@pytest.mark.parametrize("rule", FIRST_BYTES)
def test_first_bytes_that_are_not_those_of_a_client_end_the_connection(
    rule: str,
) -> None:
    with pytest.raises(PeerError):
        Peer(begun=False).send(FIRST_BYTES[rule])


@pytest.mark.parametrize("rule", MALFORMED)
def test_a_malformed_request_ends_the_connection(rule: str) -> None:
    peer = Peer()
    data = peer.opening(OWN, MALFORMED[rule])
    with pytest.raises(PeerError):
        peer.send(data)


def test_5_4_1_a_goodbye_says_why_before_the_connection_closes() -> None:
    peer = Peer()
    with pytest.raises(PeerError):
        peer.send(frame(Kind.PING, Lane.MSG, b"12345678"))
    peer.node.leave(said="malformed", fault=True)
    peer.answers += peer.node.data_to_send(1 << 20)

    kind, _, stream_id, payload = peer.said()[-1]
    assert (kind, stream_id) == (Kind.GOAWAY, 0)
    assert int.from_bytes(payload[4:8], "big") != 0


# --- what ends a stream --------------------------------------------------------------

STREAM_ERRORS: dict[str, Make] = {
    "5.1 data comes behind the end of a stream": lambda p: (
        p.opening(OWN)
        + frame(Kind.DATA, OWN, b"x", END_STREAM)
        + frame(Kind.DATA, OWN, b"y")
    ),
    "5.1 headers come behind the end of a stream": lambda p: (
        p.opening(OWN, flags=END_STREAM) + p.opening(OWN)
    ),
    "5.3.1 a stream depends on itself": lambda _: frame(
        Kind.PRIORITY, OWN, b"\0\0\0\x07\1"
    ),
    "6.3 a priority is not five bytes": lambda _: frame(Kind.PRIORITY, OWN, b"\0\0\0"),
    "6.9 a stream's window is opened by nothing": lambda p: (
        p.opening(OWN) + frame(Kind.WINDOW_UPDATE, OWN, b"\0\0\0\0")
    ),
    "6.9.1 a stream's window is opened beyond 2**31 - 1": lambda p: (
        p.opening(OWN) + frame(Kind.WINDOW_UPDATE, OWN, b"\x7f\xff\xff\xff")
    ),
    "8.1 trailers do not end the stream": lambda p: (
        p.opening(OWN) + p.opening(OWN, [(b"x", b"y")])
    ),
    "8.1.1 the body has another length than was said": lambda p: (
        p.opening(OWN, [*HEAD, (b"content-length", b"3")])
        + frame(Kind.DATA, OWN, b"12345", END_STREAM)
    ),
}


@pytest.mark.parametrize("rule", STREAM_ERRORS)
def test_a_violation_ends_its_stream_at_least(rule: str) -> None:
    peer = Peer()
    data = STREAM_ERRORS[rule](peer)
    try:
        peer.send(data)
    except PeerError:
        return

    assert Kind.RST_STREAM in peer.kinds()


# --- what is a flood -----------------------------------------------------------------

FLOODS: dict[str, Make] = {
    "10.5 pings": lambda _: frame(Kind.PING, 0, b"12345678") * 200,
    "10.5 settings": lambda _: frame(Kind.SETTINGS) * 200,
    "10.5 streams that are reset at once": lambda p: b"".join(
        p.opening(OWN + 2 * n) + frame(Kind.RST_STREAM, OWN + 2 * n, b"\0\0\0\x08")
        for n in range(1_200)
    ),
    "10.5 data without bytes": lambda _: frame(Kind.DATA, Lane.MSG) * 2_000,
    "10.5 priorities": lambda _: frame(Kind.PRIORITY, OWN, b"\0\0\0\1\1") * 200,
    "10.5 windows that open by one byte": lambda _: (
        frame(Kind.WINDOW_UPDATE, 0, b"\0\0\0\1") * 5_000
    ),
    "10.5 frames of kinds that are not known": lambda _: frame(0xBE) * 200,
    "10.5.1 continuations without an end": lambda p: (
        frame(Kind.HEADERS, OWN, p.encoder.encode(HEAD))
        + frame(Kind.CONTINUATION, OWN) * 200
    ),
    "10.5.1 a list of headers beyond 8 KiB": lambda p: p.opening(
        OWN, [*HEAD, *((b"x-%d" % n, b"y" * 1_000) for n in range(12))]
    ),
}


@pytest.mark.parametrize("rule", FLOODS)
def test_a_flood_ends_the_connection(rule: str) -> None:
    peer = Peer()
    data = FLOODS[rule](peer)
    with pytest.raises(PeerError):
        peer.send(data)

    assert len(peer.answers) < 65_536


# --- what has to be taken ------------------------------------------------------------

TAKEN: dict[str, Make] = {
    "4.1 a frame of an unknown kind": lambda _: frame(0xBE, 0, b"x" * 100),
    "4.1 flags that are not known": lambda _: frame(
        Kind.PING, 0, b"12345678", flags=0xFE
    ),
    "4.1 the reserved bit of a stream's number": lambda _: frame(
        Kind.DATA, Lane.MSG | 1 << 31, tell()
    ),
    "4.2 a frame as long as may be": lambda _: frame(
        Kind.DATA, Lane.MSG, tell("x" * 16_373)
    ),
    "5.1 a reset of a stream that was never opened": lambda _: frame(
        Kind.RST_STREAM, OWN, b"\0\0\0\x08"
    ),
    "5.1 a reset of a stream that is closed": lambda p: (
        p.opening(OWN) + frame(Kind.RST_STREAM, OWN, b"\0\0\0\x08") * 2
    ),
    "5.1 a window of a stream that is closed": lambda p: (
        p.opening(OWN)
        + frame(Kind.RST_STREAM, OWN, b"\0\0\0\x08")
        + frame(Kind.WINDOW_UPDATE, OWN, b"\0\0\0\1")
    ),
    "5.3 a priority of a stream that was never opened": lambda _: frame(
        Kind.PRIORITY, 99, b"\0\0\0\1\1"
    ),
    "6.1 data with padding": lambda _: frame(
        Kind.DATA, Lane.MSG, b"\x0a" + tell() + b"\0" * 10, PADDED
    ),
    "6.2 headers with padding and a priority": lambda p: frame(
        Kind.HEADERS,
        OWN,
        b"\x03" + b"\0\0\0\0\x10" + p.encoder.encode(HEAD) + b"\0" * 3,
        END_HEADERS | PADDED | 0x20,
    ),
    "6.5.2 a setting that is not known": lambda _: setting(0x99, 7),
    "6.10 headers in several frames": lambda p: in_three(p.encoder.encode(HEAD)),
    "8.1 trailers": lambda p: (
        p.opening(OWN) + p.opening(OWN, [(b"x", b"y")], flags=END_STREAM)
    ),
}


@pytest.mark.parametrize("rule", TAKEN)
def test_what_is_allowed_is_taken_and_the_link_goes_on(rule: str) -> None:
    peer = Peer()
    peer.send(TAKEN[rule](peer))
    heard = len(peer.heard)
    peer.send(frame(Kind.DATA, Lane.MSG, tell("on")))

    assert peer.heard[heard:] == [frames.Tell("s", frames.raw("on"))]
    assert Kind.GOAWAY not in peer.kinds()


# --- what has to be answered ---------------------------------------------------------


def test_6_5_3_settings_are_acknowledged() -> None:
    peer = Peer()
    peer.send(setting(3, 100))

    assert peer.said() == [(Kind.SETTINGS, ACK, 0, b"")]


def test_6_7_a_ping_is_answered_with_its_bytes_and_an_answer_is_not() -> None:
    peer = Peer()
    peer.send(frame(Kind.PING, 0, b"12345678"))
    assert peer.said() == [(Kind.PING, ACK, 0, b"12345678")]
    peer.answers.clear()
    peer.send(frame(Kind.PING, 0, b"12345678", ACK))

    assert peer.said() == []


def test_6_9_1_no_more_is_sent_than_the_windows_allow() -> None:
    peer = Peer()
    peer.send(setting(4, 100) + peer.opening(OWN))
    peer.answers.clear()
    peer.node.outlets.own[OWN].buffer += b"y" * 1_000
    peer.send(b"")
    peer.send(frame(Kind.WINDOW_UPDATE, OWN, b"\0\0\0\x32"))

    assert [len(payload) for *_, payload in peer.said()] == [100, 50]


def test_6_9_2_a_window_may_be_made_smaller_than_what_was_sent() -> None:
    peer = Peer()
    peer.send(setting(4, 100) + peer.opening(OWN))
    peer.answers.clear()
    peer.node.outlets.own[OWN].buffer += b"y" * 1_000
    peer.send(b"")  # 100 are on their way, and then there is room for 40
    peer.send(setting(4, 40))
    peer.send(frame(Kind.WINDOW_UPDATE, OWN, b"\0\0\0\x3c"))
    assert [len(x) for k, *_, x in peer.said() if k == Kind.DATA] == [100]
    peer.send(frame(Kind.WINDOW_UPDATE, OWN, b"\0\0\0\1"))

    assert [len(x) for k, *_, x in peer.said() if k == Kind.DATA] == [100, 1]


def test_6_9_windows_are_opened_again_as_bytes_are_read() -> None:
    peer = Peer()
    sent = 0
    for _ in range(200):
        peer.send(frame(Kind.DATA, Lane.MSG, tell("x" * 16_000)))
        sent += len(tell("x" * 16_000))
    opened = {Lane.MSG: 0, 0: 0}
    for kind, _, stream_id, payload in peer.said():
        if kind == Kind.WINDOW_UPDATE:
            opened[stream_id] += int.from_bytes(payload, "big")

    assert sent - (1 << 19) <= opened[Lane.MSG] <= sent
    assert opened[0] <= sent


def test_8_1_the_end_of_a_request_is_the_end_of_its_stream() -> None:
    peer = Peer()
    peer.send(peer.opening(OWN) + frame(Kind.DATA, OWN, b"x", END_STREAM))

    assert peer.heard[-3:] == [
        StreamOpened(OWN),
        StreamData(OWN, b"x", 1),
        StreamEnded(OWN),
    ]


# --- the page ------------------------------------------------------------------------

OTHERS = {
    "5.4.1 a goodbye says why before the connection closes",
    "6.5.3 settings are acknowledged",
    "6.7 a ping is answered with its bytes and an answer is not",
    "6.9 windows are opened again as bytes are read",
    "6.9.1 no more is sent than the windows allow",
    "6.9.2 a window may be made smaller than what was sent",
    "8.1 the end of a request is the end of its stream",
}


def test_the_page_has_each_of_these_rules() -> None:
    page = PAGE.read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+(?:\.\d+)+) \| ([^|]+?) \| ", page, re.MULTILINE)
    tables = CONNECTION_ERRORS, FIRST_BYTES, MALFORMED, STREAM_ERRORS, FLOODS, TAKEN
    rules = {rule for table in tables for rule in table} | OTHERS

    assert {" ".join(row) for row in listed} == rules
