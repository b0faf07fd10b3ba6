"""Writing chat answers: exact JSON, streamed and whole."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.errors import StreamCutError
from atomr_infer.model.batch import (
    FinishReason,
    ReasoningDelta,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.wire.ingress import AnswerFacts
from atomr_infer.wire.openai.chat_answer import ChatAnswerBuilder, ChatStreamEncoder

USAGE = Usage(input_uncached=5, cache_read=2, output_text=3, reasoning=1)
USAGE_JSON = {
    "prompt_tokens": 7,
    "completion_tokens": 4,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 1,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


FACTS = AnswerFacts(request_id="1", created_s=99, model="m")


def encoder(*, include_usage: bool = False) -> ChatStreamEncoder:
    return ChatStreamEncoder(FACTS, include_usage=include_usage)


def events_of(data: bytes) -> list[bytes]:
    events = data.split(b"\n\n")
    assert events.pop() == b""
    return [event.removeprefix(b"data: ") for event in events]


def stream(chunks: list[TokenChunk], *, include_usage: bool = False) -> list[Any]:
    writer = encoder(include_usage=include_usage)
    events = events_of(b"".join(map(writer.encode, chunks)) + writer.end())
    assert events.pop() == b"[DONE]"
    return [json.loads(event) for event in events]


def test_the_exact_bytes_of_a_chunk() -> None:
    writer = encoder()
    role, text = events_of(writer.encode(TokenChunk(text='a"\n')))
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


def test_w7_w9_a_stream_has_one_role_one_finish_and_no_usage_unasked() -> None:
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


def test_w8_usage_when_asked_is_null_until_the_last_chunk() -> None:
    events = stream(
        [TokenChunk(text="x", finish_reason=FinishReason.STOP, usage=USAGE)],
        include_usage=True,
    )
    assert [event["usage"] for event in events] == [None, None, None, USAGE_JSON]
    assert events[-1]["choices"] == []


def test_w9_each_index_opens_and_finishes_on_its_own() -> None:
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
    annotations = b'[ {"type": "url_citation"} ]'
    logprobs = b'{"content":[ ]}'
    events = stream([TokenChunk(extra={"annotations": annotations}, logprobs=logprobs)])
    choice = events[1]["choices"][0]
    assert choice["delta"] == {"annotations": [{"type": "url_citation"}]}
    assert choice["logprobs"] == {"content": []}


def test_t1_only_the_first_piece_of_a_call_has_id_type_and_name() -> None:
    events = stream(
        [
            TokenChunk(tool_calls=(ToolCallDelta(index=0, id="c1", name="f"),)),
            TokenChunk(tool_calls=(ToolCallDelta(index=0, arguments='{"a"'),)),
            TokenChunk(
                tool_calls=(
                    ToolCallDelta(index=0, arguments=":1}"),
                    ToolCallDelta(
                        index=1,
                        id="c2",
                        name="g",
                        arguments="{}",
                        signature=Signature("s", Dialect.GEMINI),
                    ),
                )
            ),
            TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
        ]
    )
    calls = [e["choices"][0]["delta"].get("tool_calls") for e in events]
    assert calls == [
        None,
        [
            {
                "index": 0,
                "id": "c1",
                "type": "function",
                "function": {"name": "f", "arguments": ""},
            }
        ],
        [{"index": 0, "function": {"arguments": '{"a"'}}],
        [
            {"index": 0, "function": {"arguments": ":1}"}},
            {
                "index": 1,
                "id": "c2",
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "s"}},
            },
        ],
        None,
    ]


def test_a_signed_thought_streams_as_text_with_details_that_merge_by_index() -> None:
    signature = Signature("sig", Dialect.ANTHROPIC)
    events = stream(
        [
            TokenChunk(reasoning=ReasoningDelta(text="Hm")),
            TokenChunk(reasoning=ReasoningDelta(signature=signature)),
        ]
    )
    assert [e["choices"][0]["delta"] for e in events[1:]] == [
        {
            "reasoning_content": "Hm",
            "reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "Hm"}],
        },
        {
            "reasoning_details": [
                {
                    "index": 0,
                    "type": "reasoning.text",
                    "text": "",
                    "signature": "sig",
                    "origin": "anthropic",
                }
            ],
        },
    ]


def test_w6_a_broken_answer_ends_with_an_error_and_neither_finish_nor_done() -> None:
    writer = encoder()
    writer.encode(TokenChunk(text="half"))
    [event] = events_of(writer.fail(StreamCutError("cut")))
    assert json.loads(event) == {
        "error": {
            "message": "cut",
            "type": "server_error",
            "param": None,
            "code": "upstream_error",
        }
    }


def build(chunks: list[TokenChunk]) -> Any:
    builder = ChatAnswerBuilder(FACTS)
    for chunk in chunks:
        builder.add(chunk)
    return json.loads(builder.build())


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
        "created": 99,
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
        ToolCallDelta(index=0, id="c", name="f"),
        ToolCallDelta(index=0, arguments='{"a"'),
        ToolCallDelta(index=1, id="d", name="g", arguments="{}"),
        ToolCallDelta(index=0, arguments=":1}"),
    ]
    chunks = [TokenChunk(tool_calls=(piece,)) for piece in pieces]
    message = build(chunks)["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {
            "id": "c",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a":1}'},
        },
        {"id": "d", "type": "function", "function": {"name": "g", "arguments": "{}"}},
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
