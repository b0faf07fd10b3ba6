"""An answer in the form that was not asked for is not passed on as it is.

A client that asked for one object gets one body: of several events it would see the
last.  One that asked for events would see none in an object.
"""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.model.batch import ExecuteBatch, FinishReason, Message, Role
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.usage import Usage
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


STREAMED = attrs.evolve(BATCH, stream=True)


def test_a_whole_chat_for_a_client_that_asked_for_events_becomes_events() -> None:
    body = (
        b'{"model":"up","choices":[{"index":0,"message":{"content":"hi"},'
        b'"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    )
    (chunk,) = ChatPass(STREAMED, show_usage=False).whole(body)
    assert chunk.content_type == "text/event-stream; charset=utf-8"
    assert chunk.usage == Usage(input_uncached=3, output_text=1)
    (again,) = ChatPass(STREAMED, show_usage=False).feed(chunk.data)
    assert again.data == chunk.data
    assert again.finish_reason is FinishReason.LENGTH
    assert b'"content":"hi"' in chunk.data
    assert b"usage" not in chunk.data


def test_a_whole_text_for_a_client_that_asked_for_events_becomes_events() -> None:
    body = b'{"model":"up","choices":[{"index":0,"text":"hi","finish_reason":"stop"}]}'
    batch = attrs.evolve(STREAMED, dialect=Dialect.OPENAI_COMPLETIONS)
    (chunk,) = ChatPass(batch).whole(body)
    assert b'"text":"hi"' in chunk.data
    assert chunk.data.endswith(b"data: [DONE]\n\n")


def test_a_whole_response_for_a_client_that_asked_for_events_is_refused() -> None:
    body = b'{"object":"response","id":"resp_1","status":"completed","output":[]}'
    with pytest.raises(UpstreamProtocolError) as caught:
        ResponsePass(STREAMED).whole(body)
    assert caught.value.code == "unasked_whole"
    (chunk,) = ResponsePass(BATCH).whole(body)
    assert chunk.data == body


def test_every_reader_that_passes_bytes_on_is_tried() -> None:
    passing = {each for each in BreaksOff.__subclasses__() if _passes_on(each)}
    assert passing == {MessagePass, RawAnswer, ResponsePass, ChatPass}


def _passes_on(reader: type[BreaksOff]) -> bool:
    feed = reader.__dict__.get("feed")
    return feed is not None and "RawChunk" in feed.__annotations__["return"]
