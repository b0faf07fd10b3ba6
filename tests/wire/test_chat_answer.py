"""Writing chat answers: exact JSON, streamed and whole."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.batch import FinishReason, TokenChunk, Usage
from atomr_infer.wire.openai.chat_answer import ChatAnswerBuilder, ChatStreamEncoder

USAGE = Usage(input_uncached=5, cache_read=2, output_text=3, reasoning=1)
USAGE_JSON = {
    "prompt_tokens": 7,
    "completion_tokens": 4,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def encoder(*, include_usage: bool = False) -> ChatStreamEncoder:
    return ChatStreamEncoder(
        answer_id="chatcmpl-1", created_s=99, model="m", include_usage=include_usage
    )


def stream(chunks: list[TokenChunk], *, include_usage: bool = False) -> list[Any]:
    writer = encoder(include_usage=include_usage)
    events = [event for chunk in chunks for event in writer.encode(chunk)]
    events += writer.end()
    assert events.pop() == b"[DONE]"
    return [json.loads(event) for event in events]


def test_the_exact_bytes_of_a_chunk() -> None:
    writer = encoder()
    role, text = writer.encode(TokenChunk(text='a"\n'))
    head = (
        b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":99,"model":"m"'
    )
    assert role == head + (
        b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
        b'"logprobs":null,"finish_reason":null}]}'
    )
    assert text == head + (
        b',"choices":[{"index":0,"delta":{"content":"a\\"\\n"},'
        b'"logprobs":null,"finish_reason":null}]}'
    )


def test_a_stream_has_one_role_one_finish_and_no_usage_unasked() -> None:
    events = stream(
        [
            TokenChunk(text="Hel"),
            TokenChunk(text="lo"),
            TokenChunk(finish_reason=FinishReason.STOP, usage=USAGE),
            TokenChunk(text="late"),
            TokenChunk(finish_reason=FinishReason.LENGTH),
        ]
    )
    assert [e["choices"][0]["delta"] for e in events] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [e["choices"][0]["finish_reason"] for e in events] == [None] * 3 + ["stop"]
    assert all("usage" not in event for event in events)


def test_usage_when_asked_is_null_until_the_last_chunk() -> None:
    events = stream(
        [TokenChunk(text="x", finish_reason=FinishReason.STOP, usage=USAGE)],
        include_usage=True,
    )
    assert [event["usage"] for event in events] == [None, None, None, USAGE_JSON]
    assert events[-1]["choices"] == []


def test_each_index_opens_and_finishes_on_its_own() -> None:
    events = stream(
        [
            TokenChunk(text="a", index=1),
            TokenChunk(text="b", index=0),
            TokenChunk(index=1, finish_reason=FinishReason.STOP),
            TokenChunk(index=0, finish_reason=FinishReason.LENGTH),
        ]
    )
    seen = [
        (e["choices"][0]["index"], e["choices"][0]["finish_reason"]) for e in events
    ]
    assert seen == [
        (1, None),
        (1, None),
        (0, None),
        (0, None),
        (1, "stop"),
        (0, "length"),
    ]


def test_other_members_pass_as_they_are() -> None:
    calls = b'[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]'
    logprobs = b'{"content":[]}'
    events = stream(
        [
            TokenChunk(
                extra={"tool_calls": calls},
                choice_extra={"logprobs": logprobs},
            )
        ]
    )
    choice = events[1]["choices"][0]
    assert choice["delta"] == {"tool_calls": json.loads(calls)}
    assert choice["logprobs"] == {"content": []}


def build(chunks: list[TokenChunk]) -> Any:
    builder = ChatAnswerBuilder()
    for chunk in chunks:
        builder.add(chunk)
    return json.loads(builder.build(answer_id="chatcmpl-1", created_s=9, model="m"))


def test_a_whole_answer() -> None:
    assert build(
        [
            TokenChunk(text="Hel"),
            TokenChunk(text="lo", finish_reason=FinishReason.STOP),
            TokenChunk(usage=USAGE),
        ]
    ) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 9,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE_JSON,
    }


def test_streamed_tool_calls_come_together() -> None:
    pieces = [
        b'[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]',
        b'[{"index":0,"function":{"arguments":"{\\"a\\""}}]',
        b'[{"index":1,"id":"d","function":{"name":"g","arguments":"{}"}}]',
        b'[{"index":0,"function":{"arguments":":1}"}}]',
    ]
    chunks = [TokenChunk(extra={"tool_calls": piece}) for piece in pieces]
    message = build(chunks)["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {
            "id": "c",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a":1}'},
        },
        {"id": "d", "function": {"name": "g", "arguments": "{}"}},
    ]


@given(st.lists(st.text(max_size=8), max_size=12), st.booleans())
def test_streamed_and_whole_texts_agree(pieces: list[str], usage: bool) -> None:
    chunks = [TokenChunk(text=piece) for piece in pieces]
    chunks.append(TokenChunk(finish_reason=FinishReason.STOP, usage=USAGE))
    deltas = [
        event["choices"][0]["delta"].get("content", "")
        for event in stream(chunks, include_usage=usage)
        if event["choices"]
    ]
    assert "".join(deltas) == "".join(pieces)
    assert build(chunks)["choices"][0]["message"]["content"] == "".join(pieces)
