"""Writing answers in Anthropic's format: the grammar of events, and whole ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    ReasoningDelta,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.model.usage import Usage
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.ingress import AnswerFacts, Asked
from atomr_infer.wire.sse import SseReader

FACTS = AnswerFacts(request_id="r-1", created_s=1, model="m", prompt_tokens=9)
ASKED = Asked(batch=ExecuteBatch(request_id="r-1", model="m", messages=()))
STOP = TokenChunk(finish_reason=FinishReason.STOP)
USAGE = TokenChunk(usage=Usage(input_uncached=4, output_text=3))


def text(said: str) -> TokenChunk:
    return TokenChunk(text=said)


def tool(index: int, arguments: str = "", *, named: bool = False) -> TokenChunk:
    call = ToolCallDelta(index=index, arguments=arguments)
    if named:
        call = ToolCallDelta(
            index=index, id=f"t{index}", name=f"f{index}", arguments=arguments
        )
    return TokenChunk(tool_calls=(call,))


def think(said: str = "", block: int = 0, **members: Any) -> TokenChunk:
    return TokenChunk(reasoning=ReasoningDelta(text=said, block=block, **members))


def signed(by: str, origin: Dialect = Dialect.ANTHROPIC) -> Signature:
    return Signature(by, origin)


def stream(*chunks: TokenChunk) -> bytes:
    encoder = MESSAGES.stream(ASKED, FACTS)
    return b"".join([*map(encoder.encode, chunks), encoder.end()])


def events(body: bytes) -> list[dict[str, Any]]:
    read = SseReader().feed(body)
    decoded = [json.loads(event.data) for event in read]
    # W4: client libraries drop frames without a name.
    assert [event.event for event in read] == [each["type"] for each in decoded]
    return decoded


def whole(*chunks: TokenChunk) -> Any:
    builder = MESSAGES.whole(ASKED, FACTS)
    for chunk in chunks:
        builder.add(chunk)
    return json.loads(builder.build())


def ending(*chunks: TokenChunk) -> dict[str, Any]:
    """The end of an answer, which a stream and a whole one tell alike."""
    delta: dict[str, Any] = events(stream(*chunks))[-2]["delta"]
    message = whole(*chunks)
    assert {name: message[name] for name in delta} == delta
    return delta


# --- the grammar (section 4) --------------------------------------------------------


def test_a_plain_stream_byte_by_byte() -> None:
    assert stream(text("Hi"), text("\u2028"), STOP, USAGE).decode() == (
        "event: message_start\n"
        'data: {"type":"message_start","message":{"id":"msg_r-1","type":"message",'
        '"role":"assistant","model":"m","content":[],"stop_reason":null,'
        '"stop_sequence":null,"usage":{"input_tokens":9,'
        '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
        '"output_tokens":1,"output_tokens_details":{"thinking_tokens":0},'
        '"cache_creation":{"ephemeral_5m_input_tokens":0,'
        '"ephemeral_1h_input_tokens":0},"service_tier":null}}}\n\n'
        "event: content_block_start\n"
        'data: {"type":"content_block_start","index":0,'
        '"content_block":{"type":"text","text":""}}\n\n'
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"Hi"}}\n\n'
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"\u2028"}}\n\n'
        "event: content_block_stop\n"
        'data: {"type":"content_block_stop","index":0}\n\n'
        "event: message_delta\n"
        'data: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
        '"stop_sequence":null},"usage":{"input_tokens":4,'
        '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
        '"output_tokens":3,"output_tokens_details":{"thinking_tokens":0}}}\n\n'
        "event: message_stop\n"
        'data: {"type":"message_stop"}\n\n'
    )


def blocks(body: bytes) -> list[tuple[str, list[str]]]:
    """Each block's kind and what its deltas add, after checking the grammar."""
    found: list[tuple[str, list[str]]] = []
    is_open = False
    told = events(body)
    assert told[0]["type"] == "message_start"
    assert [each["type"] for each in told[-2:]] == ["message_delta", "message_stop"]
    for event in told[1:-2]:
        if event["type"] == "content_block_start":
            assert (event["index"], is_open) == (len(found), False)
            found.append((event["content_block"]["type"], []))
            is_open = True
        else:
            assert (event["index"], is_open) == (len(found) - 1, True)
            is_open = event["type"] != "content_block_stop"
        if event["type"] == "content_block_delta":
            _, said = event["delta"].popitem()
            found[-1][1].append(said)
    assert not is_open
    return found


def test_blocks_ascend_and_each_kind_is_one_of_its_own() -> None:
    body = stream(
        think("hm"),
        think(signature=signed("sig")),
        text("a"),
        tool(0, named=True),
        tool(0, '{"x":1}'),
        text("b"),
        STOP,
    )
    assert blocks(body) == [
        ("thinking", ["hm", "sig"]),
        ("text", ["a"]),
        ("tool_use", ['{"x":1}']),
        ("text", ["b"]),
    ]


def test_signature_is_the_last_delta_of_a_thought() -> None:
    body = stream(think("hm", signature=signed("sig")), text("a"), STOP)
    deltas = [each["delta"].get("type") for each in events(body) if "delta" in each]
    assert deltas == ["thinking_delta", "signature_delta", "text_delta", None]


def test_thoughts_of_different_blocks_are_different_blocks() -> None:
    body = stream(
        think("a", 0), think("b", 1), think(data=signed("hid"), block=2), STOP
    )
    assert blocks(body) == [
        ("thinking", ["a"]),
        ("thinking", ["b"]),
        ("redacted_thinking", []),
    ]
    assert events(body)[7]["content_block"] == {
        "type": "redacted_thinking",
        "data": "hid",
    }


def test_thought_whose_text_is_omitted_is_a_signature_alone() -> None:
    assert blocks(stream(think(signature=signed("sig")), STOP)) == [
        ("thinking", ["sig"])
    ]


def test_signature_of_another_provider_tells_its_origin() -> None:
    chunk = think("a", signature=signed("s", Dialect.GEMINI))
    assert blocks(stream(chunk, STOP)) == [("thinking", ["a", "atomr:gemini:s"])]


def test_calls_one_after_the_other_are_streamed_as_they_come() -> None:
    encoder = MESSAGES.stream(ASKED, FACTS)
    encoder.encode(tool(0, '{"a":', named=True))
    assert b'"partial_json":"1}"' in encoder.encode(tool(0, "1}"))
    begun = encoder.encode(tool(1, named=True))
    assert b'"content_block_stop","index":0' in begun
    assert b'"index":1,"content_block":{"type":"tool_use","id":"t1"' in begun


@pytest.mark.parametrize("nothing", ["", " "])
@pytest.mark.parametrize("then", [text("x"), think("x")])
def test_text_behind_a_call_without_arguments_is_streamed_as_it_comes(
    nothing: str, then: TokenChunk
) -> None:
    encoder = MESSAGES.stream(ASKED, FACTS)
    encoder.encode(tool(0, nothing, named=True))
    begun = encoder.encode(then)
    assert b'"content_block_stop","index":0' in begun
    assert b'"content_block_start","index":1' in begun


def test_text_behind_several_calls_without_arguments_is_streamed_as_it_comes() -> None:
    encoder = MESSAGES.stream(ASKED, FACTS)
    encoder.encode(tool(0, named=True))
    assert b"content_block_stop" not in encoder.encode(tool(1, named=True))
    begun = encoder.encode(text("x"))
    assert b'"content_block_stop","index":1' in begun
    assert b'"content_block_start","index":2' in begun


def test_calls_that_a_server_mixes_are_put_in_order() -> None:
    body = stream(
        tool(0, '{"a"', named=True),
        tool(1, '{"b"', named=True),
        tool(0, ":1}"),
        text("x"),
        tool(1, ":2}"),
        STOP,
    )
    assert blocks(body) == [
        ("tool_use", ['{"a"', ":1}"]),
        ("tool_use", ['{"b"', ":2}"]),
        ("text", ["x"]),
    ]


def test_calls_that_begin_together_keep_their_own_arguments() -> None:
    body = stream(
        tool(0, named=True),
        tool(1, named=True),
        tool(1, '{"b":2}'),
        tool(0, '{"a":1}'),
        STOP,
    )
    assert blocks(body) == [("tool_use", ['{"a":1}']), ("tool_use", ['{"b":2}'])]


def test_block_that_says_nothing_has_one_empty_delta() -> None:
    assert blocks(stream(tool(0, named=True), STOP)) == [("tool_use", [""])]


def test_answer_without_content_is_still_a_whole_stream() -> None:
    assert blocks(stream(STOP, USAGE)) == []
    assert blocks(stream()) == []


def test_nothing_is_sent_before_there_is_something_to_say() -> None:
    encoder = MESSAGES.stream(ASKED, FACTS)
    assert encoder.encode(TokenChunk()) == b""
    assert encoder.encode(USAGE) == b""


def test_what_follows_the_finish_or_belongs_to_another_answer_is_left_out() -> None:
    encoder = MESSAGES.stream(ASKED, FACTS)
    encoder.encode(STOP)
    assert encoder.encode(text("late")) == b""
    assert MESSAGES.stream(ASKED, FACTS).encode(TokenChunk(text="b", index=1)) == b""


def test_input_tokens_are_never_said_to_be_none() -> None:
    facts = AnswerFacts(request_id="r", created_s=1, model="m", prompt_tokens=0)
    started = events(MESSAGES.stream(ASKED, facts).encode(text("a")))[0]
    assert started["message"]["usage"]["input_tokens"] == 1


def test_usage_at_the_end_is_cumulative_and_excludes_the_caches() -> None:
    usage = Usage(
        input_uncached=1,
        cache_read=2,
        cache_write_5m=3,
        cache_write_1h=4,
        output_text=5,
        reasoning=6,
    )
    chunks = (text("a"), STOP, TokenChunk(usage=usage))
    delta = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 7,
        "cache_read_input_tokens": 2,
        "output_tokens": 11,
        "output_tokens_details": {"thinking_tokens": 6},
    }
    assert events(stream(*chunks))[-2]["usage"] == delta
    assert whole(*chunks)["usage"] == {
        **delta,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 3,
            "ephemeral_1h_input_tokens": 4,
        },
        "service_tier": None,
    }


def test_w3_keepalive_is_a_ping() -> None:
    assert MESSAGES.keepalive == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_w6_failure_is_an_error_event_and_nothing_else() -> None:
    error = errors.StreamCutError("the upstream left")
    assert MESSAGES.stream(ASKED, FACTS).fail(error) == (
        b"event: error\n"
        b'data: {"type":"error","error":'
        b'{"type":"api_error","message":"the upstream left"}}\n\n'
    )


# --- the end (section 5) ------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (TokenChunk(finish_reason=FinishReason.STOP), "end_turn"),
        (TokenChunk(finish_reason=FinishReason.LENGTH), "max_tokens"),
        (TokenChunk(finish_reason=FinishReason.TOOL_CALLS), "tool_use"),
        (TokenChunk(finish_reason=FinishReason.CONTENT_FILTER), "refusal"),
        (
            TokenChunk(finish_reason=FinishReason.STOP, native_finish="pause_turn"),
            "pause_turn",
        ),
        (
            TokenChunk(
                finish_reason=FinishReason.LENGTH,
                native_finish="model_context_window_exceeded",
            ),
            "model_context_window_exceeded",
        ),
        (
            TokenChunk(finish_reason=FinishReason.LENGTH, native_finish="MAX"),
            "max_tokens",
        ),
    ],
)
def test_each_reason_has_its_word(chunk: TokenChunk, reason: str) -> None:
    assert ending(text("a"), chunk)["stop_reason"] == reason


def test_stop_sequence_is_named_when_it_is_known() -> None:
    chunk = TokenChunk(finish_reason=FinishReason.STOP, stop_sequence="END")
    assert ending(text("a"), chunk) == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
    }


def test_t7_calls_are_the_reason_even_if_the_provider_says_stop() -> None:
    assert ending(tool(0, "{}", named=True), STOP)["stop_reason"] == "tool_use"


def test_refusal_is_shown_and_explained() -> None:
    refused = TokenChunk(
        refusal="I will not.", finish_reason=FinishReason.CONTENT_FILTER
    )
    assert ending(refused) == {
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": {
            "type": "refusal",
            "category": None,
            "explanation": "I will not.",
        },
    }
    assert blocks(stream(refused)) == [("text", ["I will not."])]


# --- whole answers ------------------------------------------------------------------


def test_a_whole_answer() -> None:
    message = whole(
        think("hm", signature=signed("sig")),
        think(data=signed("hid"), block=1),
        text("a"),
        text("b"),
        tool(0, '{"x":', named=True),
        tool(0, "1.50}"),
        tool(1, named=True),
        TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
        USAGE,
    )
    assert message.pop("usage")["output_tokens"] == 3
    assert message == {
        "id": "msg_r-1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "hid"},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "t0", "name": "f0", "input": {"x": 1.5}},
            {"type": "tool_use", "id": "t1", "name": "f1", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
    }


def test_thought_that_nobody_signed_has_an_empty_signature() -> None:
    (block,) = whole(think("hm"), STOP)["content"]
    assert block == {"type": "thinking", "thinking": "hm", "signature": ""}


def test_arguments_that_are_no_object_are_kept_in_one() -> None:
    (block,) = whole(tool(0, "[1", named=True), STOP)["content"]
    assert block["input"] == {"invalid_json": "[1"}


_chunks = st.lists(
    st.one_of(
        st.text(max_size=3).map(text),
        st.builds(think, st.text(max_size=2), st.integers(0, 1)),
        st.builds(
            lambda b, s: think(block=b, signature=signed(s)),
            st.integers(0, 1),
            st.text(max_size=2),
        ),
        st.builds(
            lambda i, a, n: tool(i, a, named=n),
            st.integers(0, 2),
            st.sampled_from(["", "{", "}", '{"a":1}', "x"]),
            st.booleans(),
        ),
    ),
    max_size=12,
)


@example([tool(0), text("a"), tool(0), text("b")])
@given(_chunks)
def test_whatever_a_runner_sends_the_grammar_holds(chunks: list[TokenChunk]) -> None:
    found = blocks(stream(*chunks, STOP, USAGE))
    said = "".join("".join(parts) for kind, parts in found if kind == "text")
    assert said == "".join(chunk.text for chunk in chunks)
    assert [kind for kind, _ in found] == [
        block["type"] for block in whole(*chunks, STOP, USAGE)["content"]
    ]
