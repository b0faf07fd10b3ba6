"""The streams that are kept are those that the fakes write."""

from __future__ import annotations

import pytest

from atomr_infer.wire.gemini.array_reader import ArrayReader
from atomr_infer.wire.sse import SseReader
from tests.testing_kit.goldens import NAMES, golden, rendered


@pytest.mark.parametrize("name", NAMES)
def test_fake_writes_the_stream_that_is_kept(name: str) -> None:
    assert rendered(name) == golden(name)


def test_s9_array_has_the_chunks_of_the_events_however_it_is_cut() -> None:
    array, reader = golden("gemini-array"), SseReader()
    chunks = [event.data for event in reader.feed(golden("gemini-events"))]
    for size in (1, 2, 3, 100, len(array)):
        items = ArrayReader()
        pieces = [array[at : at + size] for at in range(0, len(array), size)]
        assert [item for piece in pieces for item in items.feed(piece)] == chunks
        assert items.ended
