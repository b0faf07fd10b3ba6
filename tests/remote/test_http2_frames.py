"""GOAWAY frames are taken out of the bytes wherever a read was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.remote.http.http2.frames import (
    MAX_FRAME_BYTES,
    MAX_IDLE_FRAMES,
    FrameGate,
    GoAway,
    Http2Error,
)


def _frame(kind: int, payload: bytes, *, stream_id: int = 0, flags: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream_id.to_bytes(4, "big") + payload


SETTINGS = _frame(4, b"")
PING = _frame(6, b"12345678")


def _goaway(last: int, code: int, text: bytes = b"") -> bytes:
    return _frame(7, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text)


_OTHERS = st.builds(
    _frame,
    st.sampled_from([0, 1, 3, 4, 6, 8, 9, 99]),
    st.binary(max_size=40),
    stream_id=st.integers(0, 9),
    flags=st.integers(0, 255),
)
_GOAWAYS = st.tuples(
    st.integers(0, 2**31 - 1), st.integers(0, 99), st.binary(max_size=30)
)


@given(
    frames=st.lists(st.one_of(_OTHERS, _GOAWAYS), max_size=8),
    cuts=st.lists(st.integers(1, 25), min_size=1, max_size=9),
)
def test_frames_and_goaways_are_the_same_however_they_are_read(
    frames: list[bytes | tuple[int, int, bytes]], cuts: list[int]
) -> None:
    data = SETTINGS + b"".join(
        frame if isinstance(frame, bytes) else _goaway(*frame) for frame in frames
    )
    gate = FrameGate()
    passed, goaways, position = b"", [], 0
    while data:
        cut = cuts[position % len(cuts)]
        piece, data = data[:cut], data[cut:]
        position += 1
        rest, found = gate.feed(piece)
        passed += rest
        goaways += found
    assert passed == SETTINGS + b"".join(f for f in frames if isinstance(f, bytes))
    assert goaways == [GoAway(f[0], f[1]) for f in frames if isinstance(f, tuple)]


def test_frames_that_carry_nothing_are_counted_until_one_carries_something() -> None:
    gate = FrameGate()
    gate.feed(SETTINGS)
    for useful in [
        _frame(1, b"\x88", stream_id=1),
        _frame(0, b"x", stream_id=1),
        _frame(0, b"", stream_id=1, flags=1),
    ]:
        gate.feed(PING * (MAX_IDLE_FRAMES - 1))
        gate.feed(useful)
    gate.feed(PING * MAX_IDLE_FRAMES)
    gate.progressed()
    gate.feed(PING * MAX_IDLE_FRAMES)
    with pytest.raises(Http2Error, match="frames that carry nothing"):
        gate.feed(PING)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (PING, "first bytes"),
        (b"HTTP/1.1 400 ", "first bytes"),
        (SETTINGS + _frame(7, b"1234567"), "too short"),
        (SETTINGS + (MAX_FRAME_BYTES + 1).to_bytes(3, "big") + bytes(6), "beyond"),
    ],
)
def test_bytes_that_are_no_frames_of_ours_are_refused(
    data: bytes, problem: str
) -> None:
    for size in (1, len(data)):
        gate = FrameGate()
        with pytest.raises(Http2Error, match=problem):
            for start in range(0, len(data), size):
                gate.feed(data[start : start + size])
