"""A piece of text crosses the bridge as text, and everything else as a whole chunk."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.bridge.child.server import _frame_of
from atomr_infer.bridge.protocol.frames import Chunk, Text
from atomr_infer.bridge.protocol.streams import ParentStream
from atomr_infer.bridge.protocol.values import chunk_to_wire
from atomr_infer.model.batch import (
    FinishReason,
    ReasoningDelta,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature

# One value for each field but text and index, none of them what it is without.
BESIDE = {
    "finish_reason": FinishReason.STOP,
    "usage": Usage(),
    "reasoning": ReasoningDelta(),
    "tool_calls": (ToolCallDelta(),),
    "refusal": "no",
    "logprobs": b"{}",
    "text_signature": Signature("s", Dialect.GEMINI),
    "native_finish": "end",
    "stop_sequence": "s",
    "extra": {"a": b"1"},
    "choice_extra": {"a": b"1"},
    "model": "m",
    "warnings": ("w",),
}


@pytest.mark.parametrize(
    "chunk", [TokenChunk(), TokenChunk(text="a"), TokenChunk(text="a", index=2)]
)
async def test_text_arrives_as_the_chunk_that_it_was(chunk: TokenChunk) -> None:
    frame = _frame_of(7, chunk)
    assert frame == Text(7, chunk.text, chunk.index)
    stream = ParentStream(7, window=1, send=lambda _: None)
    stream.take(frame)
    assert await anext(stream) == chunk


@pytest.mark.parametrize("name", BESIDE)
def test_nothing_beside_text_is_lost(name: str) -> None:
    chunk = TokenChunk(text="a", **{name: BESIDE[name]})  # type: ignore[arg-type] # of any field
    assert _frame_of(7, chunk) == Chunk(7, chunk_to_wire(chunk))


def test_every_field_is_looked_at_here() -> None:
    fields = {field.name for field in attrs.fields(TokenChunk)}
    assert fields == {"text", "index", *BESIDE}
