"""Frames are cut at the same places, however their bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.wire.sse_frames import FrameReader

PIECES = st.lists(st.sampled_from([b"data: a", b"event: b", b"\n", b"\r", b": c"]))


def without_blank(frames: list[bytes]) -> list[bytes]:
    """What the frames hold: an empty line more behind one says nothing."""
    return [frame.strip(b"\r\n") for frame in frames if frame.strip(b"\r\n")]


@settings(deadline=None)
@given(PIECES)
def test_a_read_is_cut_as_its_bytes_are(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    whole, bytewise = FrameReader(), FrameReader()
    at_once = whole.feed(data)
    one_by_one = [
        frame for at in range(len(data)) for frame in bytewise.feed(data[at : at + 1])
    ]
    # Nothing is lost, and nothing is in another event than it was.
    assert b"".join(at_once) + whole.close() == data
    assert b"".join(one_by_one) + bytewise.close() == data
    assert without_blank(at_once) == without_blank(one_by_one)


def test_a_read_beyond_the_cap_is_refused_though_its_frames_are_whole() -> None:
    reader = FrameReader(max_event_bytes=10)
    assert reader.feed(b"data: a\n\ndata: b\n\n") == [b"data: a\n\n", b"data: b\n\n"]
    with pytest.raises(UpstreamProtocolError):
        reader.feed(b"data: a long one")
