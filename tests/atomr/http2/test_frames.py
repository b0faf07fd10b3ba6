"""Messages and frames, however their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr.http2 import frames
from atomr.http2.framing import PREFACE, Data, FrameCutter, Widened, frame_of
from atomr.http2.guard import GuardError, Kind

BODY = frames.raw({"key": ["value", 1]})

EACH = [
    frames.Hello(1, "prod", "ams-1", 2**64 - 1, b"p" * 32),
    frames.Tell("shelf", BODY),
    frames.Call(7, "shelf", BODY),
    frames.Reply(7, BODY),
    frames.Fail(7, "busy", "too many"),
    frames.Cancel(7),
    frames.Probe(1),
    frames.Probed(1),
    frames.Goodbye("closed"),
    frames.Invite(3),
    frames.Invited(3),
    frames.Open("shelf", BODY),
]


def encoded(frame: frames.Frame) -> bytes:
    buffer = bytearray()
    assert frames.append(buffer, frame) == len(buffer)
    return bytes(buffer)


@pytest.mark.parametrize("frame", EACH, ids=lambda f: type(f).__name__)
def test_a_message_is_what_it_was(frame: frames.Frame) -> None:
    data = encoded(frame)
    [message] = frames.MessageReader().feed(data)
    back = frames.decode(message)
    assert type(back) is type(frame)
    assert encoded(back) == data


@settings(max_examples=50)
@given(st.data())
def test_messages_come_out_whole_however_they_are_cut(data: st.DataObject) -> None:
    bodies = data.draw(st.lists(st.binary(max_size=50), max_size=8))
    whole = b"".join(frames.framed(body) for body in bodies)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12))
    edges = [0, *sorted(cuts), len(whole)]
    reader = frames.MessageReader()
    got = [
        message
        for start, end in pairwise(edges)
        for message in reader.feed(whole[start:end])
    ]
    assert got == bodies
    assert reader.held_bytes == 0


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    reader = frames.MessageReader(limit_bytes=10)
    assert reader.feed(frames.framed(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(frames.FrameError):
        reader.feed(b"\0\0\0\x0b")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        frame = frames.decode(data)
    except frames.FrameError:
        return
    assert isinstance(frame, tuple(type(each) for each in EACH))


def test_the_error_of_a_message_quotes_none_of_it() -> None:
    with pytest.raises(frames.FrameError) as caught:
        frames.decode(msgspec.msgpack.encode([99, "secret"]))
    assert str(caught.value) == "a message is malformed"


SETTINGS = frame_of(Kind.SETTINGS, payload=b"")
HEADERS = frame_of(Kind.HEADERS, stream_id=7, flags=0x4, payload=b"head")
DATA = frame_of(Kind.DATA, stream_id=7, payload=b"some bytes")
PADDED = frame_of(Kind.DATA, stream_id=7, flags=0x9, payload=b"\x03some\0\0\0")
WIDER = frame_of(Kind.WINDOW_UPDATE, stream_id=7, payload=b"\0\0\1\0")

STREAM = PREFACE + SETTINGS + HEADERS + DATA + WIDER + PADDED + SETTINGS
PARTS = [
    PREFACE,
    SETTINGS,
    HEADERS,
    Data(7, b"some bytes", 10, ends=False),
    Widened(7, 256),
    Data(7, b"some", 8, ends=True),
    SETTINGS,
]


@settings(max_examples=50)
@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    cutter = FrameCutter(preface=True, now_s=0.0)
    got = [
        part
        for start, end in pairwise(edges)
        for part in cutter.feed(STREAM[start:end], now_s=0.0)
    ]
    assert got == PARTS


@pytest.mark.parametrize(
    "bad",
    [
        SETTINGS + frame_of(Kind.DATA, stream_id=7, flags=0x8, payload=b"\x08padding"),
        SETTINGS + frame_of(Kind.DATA, stream_id=7, flags=0x8, payload=b""),
        SETTINGS + b"\xff\xff\xff\0\0",
        HEADERS,
        DATA,
        SETTINGS + frame_of(Kind.HEADERS, stream_id=7, payload=b"head") + DATA,
        SETTINGS + frame_of(Kind.HEADERS, stream_id=7, payload=b"head") + WIDER,
    ],
)
def test_frames_that_cannot_be_are_refused(bad: bytes) -> None:
    cutter = FrameCutter(preface=False, now_s=0.0)
    with pytest.raises(GuardError):
        cutter.feed(bad + b"\0" * 9, now_s=0.0)


def test_a_flood_is_a_matter_of_time() -> None:
    ping = frame_of(Kind.PING, payload=b"12345678")
    cutter = FrameCutter(preface=False, now_s=0.0)
    cutter.feed(SETTINGS + ping * 64, now_s=0.0)
    with pytest.raises(GuardError, match="PING"):
        cutter.feed(ping, now_s=0.0)
    # The same number, one each fifth of a second, is none.
    cutter = FrameCutter(preface=False, now_s=0.0)
    cutter.feed(SETTINGS, now_s=0.0)
    for beat in range(1000):
        cutter.feed(ping, now_s=beat * 0.2)
