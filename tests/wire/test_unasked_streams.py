"""Events for a client that asked for one object are not passed on as its answer.

What reaches such a client is one body; of several pieces it would see the last.
"""

from __future__ import annotations

import pytest

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.wire.anthropic.upstream_pass import MessagePass
from atomr_infer.wire.broken_off import BreaksOff
from atomr_infer.wire.gemini.upstream_raw import RawAnswer
from atomr_infer.wire.openai.responses_pass import ResponsePass
from atomr_infer.wire.openai.upstream_pass import ChatPass

Reader = type[MessagePass | RawAnswer | ResponsePass | ChatPass]

BATCH = ExecuteBatch(
    request_id="r", model="m", messages=(Message(Role.USER, "hi"),), stream=False
)


@pytest.mark.parametrize("reader", [MessagePass, RawAnswer, ResponsePass, ChatPass])
def test_events_for_a_client_that_asked_for_a_whole_are_refused(reader: Reader) -> None:
    passing = reader(BATCH)
    with pytest.raises(UpstreamProtocolError) as caught:
        passing.feed(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
    assert caught.value.code == "unasked_stream"


def test_every_reader_that_passes_bytes_on_is_tried() -> None:
    passing = {each for each in BreaksOff.__subclasses__() if _passes_on(each)}
    assert passing == {MessagePass, RawAnswer, ResponsePass, ChatPass}


def _passes_on(reader: type[BreaksOff]) -> bool:
    feed = reader.__dict__.get("feed")
    return feed is not None and "RawChunk" in feed.__annotations__["return"]
