"""What is held until it is whole is bounded, whatever it is made of."""

from __future__ import annotations

import pytest

from atomr_infer.model.batch import (
    RawChunk,
    ReasoningDelta,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.failover import OnCut
from atomr_infer.serving.requests.delivery import Attempt, Delivery
from atomr_infer.serving.requests.report import Report
from tests.serving.conftest import Collected

LONG = "x" * (9 * 1024 * 1024)


@pytest.mark.parametrize(
    "chunk",
    [
        TokenChunk(text=LONG),
        TokenChunk(tool_calls=(ToolCallDelta(arguments=LONG),)),
        TokenChunk(reasoning=ReasoningDelta(text=LONG)),
        TokenChunk(refusal=LONG),
        TokenChunk(extra={"audio": LONG.encode()}),
        RawChunk(data=LONG.encode()),
    ],
    ids=["text", "arguments", "reasoning", "refusal", "extra", "raw"],
)
async def test_what_is_too_long_to_be_held_goes_out_as_it_comes(
    chunk: TokenChunk | RawChunk,
) -> None:
    sink = Collected()
    report = Report("r", "m", "m")
    delivery = Delivery(sink, report, on_cut=OnCut.BUFFER, stream=True)
    attempt = Attempt(deployment="m", model="m")
    await delivery.chunk(chunk, attempt)
    assert sink.chunks == []
    await delivery.chunk(chunk, attempt)
    assert sink.chunks == [chunk, chunk]
