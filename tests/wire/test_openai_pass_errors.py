"""An error inside a stream that is passed on becomes an error, whatever its shape."""

from __future__ import annotations

import pytest

from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.wire.openai.upstream_pass import ChatPass

BATCH = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"no","type":"server_error"}}\n\n',
        b'data: {"error":{}}\n\n',
        b'data: {"error":"no"}\n\n',
        b'data: {"object":"error","message":"no","code":400}\n\n',
        b"event: error\ndata: no\n\n",
        b'event: error\ndata: {"message":"no"}\n\n',
    ],
)
def test_s7_error_in_a_stream_is_raised_and_not_passed_on(event: bytes) -> None:
    with pytest.raises(InferenceError):
        ChatPass(BATCH).feed(event)


def test_s7_chunk_with_no_error_is_passed_on() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"error":null}\n\n'
    (chunk,) = ChatPass(BATCH).feed(event)
    assert chunk.data == event
