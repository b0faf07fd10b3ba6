"""A streamed answer adds up to the whole one, and keeps its dialect's grammar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.testing.upstream_script import Happy, ToolCall
from atomr_infer.testing.upstreams.answer import make_answer
from atomr_infer.testing.upstreams.anthropic import AnthropicDialect
from atomr_infer.testing.upstreams.gemini import GeminiDialect
from atomr_infer.testing.upstreams.openai import OpenAIDialect
from atomr_infer.wire.sse import SseReader
from tests.testing_kit.reading import understood

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.call import Call
    from atomr_infer.testing.upstreams.dialect import Dialect

OPENAI, ANTHROPIC, GEMINI = OpenAIDialect(), AnthropicDialect(), GeminiDialect()
TURN = {"role": "user", "content": "one two"}
CHAT = understood(
    OPENAI,
    "/v1/chat/completions",
    {
        "model": "m",
        "messages": [TURN],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
)
RESPONSES = understood(
    OPENAI,
    "/v1/responses",
    {
        "model": "m",
        "input": "one two",
        "stream": True,
        "reasoning": {"summary": "auto"},
    },
)
MESSAGES = understood(
    ANTHROPIC,
    "/v1/messages",
    {
        "model": "m",
        "max_tokens": 99,
        "messages": [TURN],
        "stream": True,
        "thinking": {"type": "adaptive"},
    },
)
GENERATE = understood(
    GEMINI,
    "/v1/models/m:streamGenerateContent?alt=sse",
    {
        "contents": [{"parts": [{"text": "one two"}]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
    },
)

_pieces = st.lists(st.text(min_size=1, max_size=5), max_size=4).map(tuple)
_arguments = st.sampled_from(
    [(), ("{}",), ('{"a"', ":1}"), ('{"a": "', "\u2028\\n", '"}')]
)
_calls = st.lists(
    st.builds(
        ToolCall,
        name=st.sampled_from(["f", "g"]),
        arguments=_arguments,
        id=st.none() | st.sampled_from(["c1", "c2"]),
    ),
    max_size=3,
).map(tuple)
HAPPY = st.builds(Happy, tokens=_pieces, reasoning=_pieces, tool_calls=_calls)


def streamed(dialect: Dialect, call: Call, happy: Happy) -> list[tuple[str, Any]]:
    frames = dialect.frames(call, make_answer(happy, call), done=True)
    events = SseReader().feed(b"".join(frame.data for frame in frames))
    return [
        (event.event, msgspec.json.decode(event.data))
        for event in events
        if event.data != b"[DONE]"
    ]


def whole(dialect: Dialect, call: Call, happy: Happy) -> Any:
    answer = make_answer(happy, call)
    return msgspec.json.decode(msgspec.json.encode(dialect.whole(call, answer)))


@settings(max_examples=40, deadline=None)
@given(HAPPY)
def test_chat_adds_up(happy: Happy) -> None:
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    finishes, usage = [], None
    for _, chunk in streamed(OPENAI, CHAT, happy):
        usage = chunk["usage"]
        for choice in chunk["choices"]:
            finishes.append(choice["finish_reason"])
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    assert call["index"] == len(message["tool_calls"])
                    message["tool_calls"].append(call)
                else:
                    function = message["tool_calls"][call["index"]]["function"]
                    function["arguments"] += call["function"]["arguments"]
    said = whole(OPENAI, CHAT, happy)
    (choice,) = said["choices"]
    assert finishes == [None] * (len(finishes) - 1) + [choice["finish_reason"]]
    assert usage == said["usage"]
    assert message["content"] == (choice["message"]["content"] or "")
    assert message["reasoning_content"] == choice["message"].get(
        "reasoning_content", ""
    )
    assert [
        (call["id"], call["function"]["name"], call["function"]["arguments"] or "{}")
        for call in message["tool_calls"]
    ] == [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in choice["message"].get("tool_calls", ())
    ]


@settings(max_examples=40, deadline=None)
@given(HAPPY)
def test_responses_add_up(happy: Happy) -> None:
    events = streamed(OPENAI, RESPONSES, happy)
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
    assert all(name == event["type"] for name, event in events)
    said = whole(OPENAI, RESPONSES, happy)
    assert events[-1][1]["response"] == said
    done = [e["item"] for _, e in events if e["type"] == "response.output_item.done"]
    assert done == said["output"]
    deltas: dict[str, str] = {}
    for _, event in events:
        if event["type"].endswith(".delta"):
            deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
    for item in said["output"]:
        match item["type"]:
            case "message":
                text = item["content"][0]["text"]
            case "reasoning":
                text = item["summary"][0]["text"]
            case _:
                text = item["arguments"] if item["id"] in deltas else ""
        assert deltas.get(item["id"], "") == text


@settings(max_examples=40, deadline=None)
@given(HAPPY)
def test_messages_add_up_and_keep_the_grammar(happy: Happy) -> None:
    events = streamed(ANTHROPIC, MESSAGES, happy)
    assert all(name == event["type"] for name, event in events)
    (_, first), *middle, (_, delta), (_, last) = events
    assert (first["type"], delta["type"], last["type"]) == (
        "message_start",
        "message_delta",
        "message_stop",
    )
    blocks: list[dict[str, Any]] = []
    opened: dict[str, Any] | None = None
    for _, event in middle:
        match event["type"]:
            case "ping":
                continue
            case "content_block_start":
                assert opened is None
                assert event["index"] == len(blocks)
                opened = {**event["content_block"], "json": ""}
            case "content_block_delta":
                assert opened is not None
                assert event["index"] == len(blocks)
                _add(opened, event["delta"])
            case "content_block_stop":
                assert opened is not None
                blocks.append(_closed(opened))
                opened = None
            case kind:
                raise AssertionError(kind)
    assert opened is None
    said = whole(ANTHROPIC, MESSAGES, happy)
    assert blocks == said["content"]
    assert delta["usage"] == said["usage"]
    assert delta["delta"]["stop_reason"] == said["stop_reason"]


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "input_json_delta":
            block["json"] += delta["partial_json"]
        case kind:
            member = kind.removesuffix("_delta")
            assert not block.get("signature"), "nothing follows a signature"
            block[member] += delta[member]


def _closed(block: dict[str, Any]) -> dict[str, Any]:
    text = block.pop("json")
    if block["type"] == "tool_use":
        block["input"] = msgspec.json.decode(text or "{}")
    return block


@settings(max_examples=40, deadline=None)
@given(HAPPY)
def test_content_adds_up(happy: Happy) -> None:
    parts: list[dict[str, Any]] = []
    for _, chunk in streamed(GEMINI, GENERATE, happy):
        (candidate,) = chunk["candidates"]
        for part in candidate["content"]["parts"]:
            _join(parts, part)
    said = whole(GEMINI, GENERATE, happy)
    (candidate,) = said["candidates"]
    kept = [part for part in parts if part != {"text": ""}]
    assert kept == candidate.get("content", {"parts": []})["parts"] or _only_signs(
        kept, candidate
    )
    assert chunk["usageMetadata"] == said["usageMetadata"]
    assert candidate["finishReason"] == "STOP"


def _join(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Put a part behind the others; text of the same kind becomes one."""
    if parts and "text" in part and "text" in parts[-1]:
        last = parts[-1]
        if last.get("thought") == part.get("thought"):
            last["text"] += part["text"]
            last.update({k: v for k, v in part.items() if k != "text"})
            return
    parts.append(dict(part))


def _only_signs(kept: list[dict[str, Any]], candidate: dict[str, Any]) -> bool:
    """Where no text was said, a stream has an empty one to carry the signature."""
    *front, last = kept
    whole_parts = candidate.get("content", {"parts": []})["parts"]
    return front == whole_parts and set(last) == {"text", "thoughtSignature"}


@settings(max_examples=20, deadline=None)
@given(HAPPY)
def test_front_part_of_an_answer_grows_with_its_pieces(happy: Happy) -> None:
    for dialect, call in (
        (OPENAI, CHAT),
        (OPENAI, RESPONSES),
        (ANTHROPIC, MESSAGES),
        (GEMINI, GENERATE),
    ):
        frames = list(dialect.frames(call, make_answer(happy, call), done=True))
        positions = [f.position for f in frames if f.position is not None]
        assert positions == sorted(positions)
        closing = [frame.closing for frame in frames]
        assert closing == sorted(closing), "nothing is said behind the end"
        assert all(f.position is None for f in frames if f.closing)
