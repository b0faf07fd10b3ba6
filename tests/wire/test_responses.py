"""OpenAI's Responses format: what is read, and exactly which events are written.

The real SDK's own types judge every event and every object.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from atomr_infer.errors import InvalidRequestError, StreamCutError
from atomr_infer.model.asks import (
    Effort,
    FormatKind,
    RawTool,
    Reasoning,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import (
    FinishReason,
    Message,
    ReasoningDelta,
    Role,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    ImagePart,
    Inline,
    ReasoningPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.ingress import AnswerFacts, Asked, Call
from atomr_infer.wire.openai.responses import ResponsesIngress
from atomr_infer.wire.openai.responses_proof import read_proof, write_proof

INGRESS = ResponsesIngress()
FACTS = AnswerFacts(request_id="1", created_s=99, model="m")
SIGNED = Signature("sig", Dialect.ANTHROPIC)
USAGE = Usage(input_uncached=3, cache_read=2, output_text=4, reasoning=1)

_event_type: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def ask(**members: Any) -> Asked:
    body = json.dumps({"model": "m", "input": "hi", **members}).encode()
    return INGRESS.parse(Call(request_id="1", body=body))


def events_of(data: bytes) -> list[dict[str, Any]]:
    frames = data.decode().split("\n\n")
    assert frames.pop() == ""
    events = []
    for frame in frames:
        name, text = frame.split("\n")
        event = json.loads(text.removeprefix("data: "))
        assert name == "event: " + event["type"]
        _event_type.validate_python(event, strict=False)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def stream(*chunks: TokenChunk, **members: Any) -> list[dict[str, Any]]:
    encoder = INGRESS.stream(ask(stream=True, **members), FACTS)
    return events_of(b"".join(map(encoder.encode, chunks)) + encoder.end())


def whole(*chunks: TokenChunk, **members: Any) -> dict[str, Any]:
    builder = INGRESS.whole(ask(**members), FACTS)
    for chunk in chunks:
        builder.add(chunk)
    found: dict[str, Any] = json.loads(builder.build())
    Response.model_validate(found, strict=False)
    return found


# --- requests -------------------------------------------------------------------


def test_items_become_messages_and_one_side_in_a_row_one_message() -> None:
    asked = ask(
        instructions="be brief",
        input=[
            {"role": "user", "content": "2+2?"},
            {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "e"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "let me see"}],
            },
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "4"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "and this?"},
                    {"type": "input_image", "image_url": "https://x/y.png"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                ],
            },
        ],
    )
    assert asked.batch.messages == (
        Message(Role.SYSTEM, "be brief"),
        Message(Role.USER, "2+2?"),
        Message(
            Role.ASSISTANT,
            (
                ReasoningPart(data=Signature("e", Dialect.OPENAI_RESPONSES), id="rs"),
                TextPart("let me see"),
                ToolCallPart(id="c", name="f", arguments="{}"),
            ),
        ),
        Message(Role.TOOL, (ToolResultPart(call_id="c", content=(TextPart("4"),)),)),
        Message(
            Role.USER,
            (
                TextPart("and this?"),
                ImagePart(source=Url("https://x/y.png")),
                ImagePart(source=Inline("image/png", "AA==")),
            ),
        ),
    )


def test_what_is_asked_for_is_read() -> None:
    schema = {"type": "object"}
    asked = ask(
        tools=[
            {"type": "function", "name": "f", "parameters": schema, "strict": True},
            {"type": "web_search"},
        ],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema}},
        reasoning={"effort": "high", "summary": "auto"},
        max_output_tokens=7,
        store=False,
        previous_response_id="resp_0",
        metadata={"a": "b"},
    )
    batch = asked.batch
    raw_schema = b'{"type": "object"}'
    assert batch.tools == (
        Tool(name="f", parameters=raw_schema, strict=True),
        RawTool("web_search", b'{"type": "web_search"}'),
    )
    assert batch.tool_choice == ToolChoice(mode=ToolMode.REQUIRED, names=("f",))
    assert batch.response_format == ResponseFormat(
        kind=FormatKind.JSON_SCHEMA, schema=raw_schema, name="n"
    )
    assert batch.reasoning == Reasoning(
        effort=Effort.HIGH, include=True, summary="auto"
    )
    assert batch.sampling.max_tokens == 7
    assert (asked.store, asked.previous) == (False, "resp_0")
    # It is not stored here, so only who passes the request on can serve it.
    assert batch.extra == {
        "metadata": b'{"a": "b"}',
        "previous_response_id": b'"resp_0"',
    }


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "message"}]}, "input[0].role"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, "input[0]"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ],
)
def test_a_mistake_is_named_by_its_place(members: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        ask(**members)
    assert raised.value.param == param


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "call_id", "output", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["input", "tools", "text"]), _json_values))
def test_any_json_is_read_or_refused(members: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequestError):
        ask(**members)


# --- answers --------------------------------------------------------------------


def test_a_streamed_text_opens_grows_closes_and_completes() -> None:
    events = stream(
        TokenChunk(text="Hel"),
        TokenChunk(text="lo"),
        TokenChunk(finish_reason=FinishReason.STOP),
        TokenChunk(usage=USAGE),
    )
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    last = events[-1]["response"]
    assert last["status"] == "completed"
    assert last["output"][0]["content"][0]["text"] == "Hello"
    assert last["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 10,
    }


CHUNKS = (
    TokenChunk(reasoning=ReasoningDelta(text="Hm")),
    TokenChunk(reasoning=ReasoningDelta(signature=SIGNED)),
    TokenChunk(text="Let me look."),
    TokenChunk(tool_calls=(ToolCallDelta(index=0, id="c1", name="f"),)),
    TokenChunk(tool_calls=(ToolCallDelta(index=1, id="c2", name="g"),)),
    TokenChunk(tool_calls=(ToolCallDelta(index=0, arguments='{"a":1}'),)),
    TokenChunk(tool_calls=(ToolCallDelta(index=1, arguments="{}"),)),
    TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
    TokenChunk(usage=USAGE),
)


def test_thoughts_text_and_interleaved_calls_are_the_same_streamed_and_whole() -> None:
    events = stream(*CHUNKS)
    streamed = events[-1]["response"]

    assert streamed == whole(*CHUNKS, stream=True)
    assert [item["type"] for item in streamed["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert (
        streamed["output"][0]["encrypted_content"] == "atomr1.anthropic.signature.sig"
    )
    assert [i.get("arguments") for i in streamed["output"][2:]] == ['{"a":1}', "{}"]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert sorted(done, key=lambda item: item["id"]) == sorted(
        streamed["output"], key=lambda item: item["id"]
    )


def test_a_limit_or_a_filter_leaves_a_response_incomplete() -> None:
    cut = whole(TokenChunk(text="a", finish_reason=FinishReason.LENGTH))
    assert cut["status"] == "incomplete"
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    events = stream(TokenChunk(refusal="no", finish_reason=FinishReason.CONTENT_FILTER))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["output"][0]["content"] == [
        {"type": "refusal", "refusal": "no"}
    ]


def test_an_empty_answer_is_an_answer() -> None:
    events = stream(TokenChunk(finish_reason=FinishReason.STOP))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_w6_a_broken_answer_ends_with_failed_and_not_with_completed() -> None:
    encoder = INGRESS.stream(ask(stream=True), FACTS)
    data = encoder.encode(TokenChunk(text="half")) + encoder.fail(StreamCutError("cut"))
    last = events_of(data)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "cut"}


def test_a_response_repeats_what_was_asked() -> None:
    found = whole(
        TokenChunk(text="x", finish_reason=FinishReason.STOP),
        instructions="be brief",
        temperature=0.5,
        metadata={"a": "b"},
    )
    assert found["instructions"] == "be brief"
    assert found["temperature"] == 0.5
    assert found["metadata"] == {"a": "b"}
    assert found["tool_choice"] == "auto"


@given(
    text=st.text(),
    origin=st.sampled_from(Dialect),
    kind=st.sampled_from(["data", "signature"]),
)
def test_a_proof_comes_back_as_it_left(text: str, origin: Dialect, kind: str) -> None:
    if kind == "signature":
        part = ReasoningPart(text="t", signature=Signature(text, origin))
    else:
        part = ReasoningPart(text="t", data=Signature(text, origin))
    if part.data is not None and origin is Dialect.OPENAI_RESPONSES:
        text = text.replace("atomr1.", "")
        part = ReasoningPart(text="t", data=Signature(text, origin))
    assert read_proof(text="t", encrypted=write_proof(part), identity=None) == part
