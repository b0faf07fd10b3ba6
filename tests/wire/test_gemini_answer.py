"""What a Gemini client gets, byte for byte."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    ReasoningDelta,
    Role,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.model.usage import Usage
from atomr_infer.wire.gemini.ingress import ARRAY_TYPE, GEMINI
from atomr_infer.wire.gemini.signatures import to_wire
from atomr_infer.wire.ingress import AnswerFacts, Asked

FACTS = AnswerFacts(request_id="r-1", created_s=1, model="m-1")
BATCH = ExecuteBatch(
    request_id="r-1", model="alias", messages=(Message(Role.USER, "hi"),)
)
STOP = TokenChunk(finish_reason=FinishReason.STOP)
USAGE = TokenChunk(usage=Usage(input_uncached=3, output_text=2))
TAIL = {"modelVersion": "m-1", "responseId": "r-1"}


def _text(text: str, index: int = 0) -> TokenChunk:
    return TokenChunk(text=text, index=index)


def _calls(*deltas: ToolCallDelta) -> TokenChunk:
    return TokenChunk(tool_calls=deltas)


def _stream(*chunks: TokenChunk, stream_type: str | None = None) -> bytes:
    asked = Asked(batch=BATCH)
    if stream_type is not None:
        asked = Asked(batch=BATCH, stream_type=stream_type)
    encoder = GEMINI.stream(asked, FACTS)
    return b"".join(map(encoder.encode, chunks)) + encoder.end()


def _frames(*chunks: TokenChunk) -> list[Any]:
    """Return the objects of a stream, its framing checked (W2)."""
    *frames, rest = _stream(*chunks).split(b"\n\n")
    assert rest == b""
    assert all(f.startswith(b"data: {") and b"\n" not in f for f in frames)
    return [msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in frames]


def _whole(*chunks: TokenChunk) -> Any:
    builder = GEMINI.whole(Asked(batch=BATCH), FACTS)
    for chunk in chunks:
        builder.add(chunk)
    return msgspec.json.decode(builder.build())


def _said(*parts: Any, index: int = 0, **more: Any) -> dict[str, Any]:
    content = {"parts": list(parts), "role": "model"}
    return {"content": content, "index": index, **more}


def _candidate(*chunks: TokenChunk) -> Any:
    [candidate] = _whole(*chunks, USAGE)["candidates"]
    return candidate


# --- streams ----------------------------------------------------------------


def test_w2_w5_stream_is_data_lines_with_a_space_and_ends_with_the_body() -> None:
    assert (
        _stream(_text("a\u2028b"), STOP, USAGE)
        == (
            'data: {"candidates":[{"content":{"parts":[{"text":"a\u2028b"}],'
            '"role":"model"},"index":0}],"modelVersion":"m-1","responseId":"r-1"}\n\n'
            'data: {"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},'
            '"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3,'
            '"candidatesTokenCount":2,"totalTokenCount":5},"modelVersion":"m-1",'
            '"responseId":"r-1"}\n\n'
        ).encode()
    )


def test_w3_keepalive_is_a_bare_blank_line() -> None:
    assert GEMINI.keepalive == b"\n"


def test_w9_finish_waits_for_the_usage_and_stands_once_per_index() -> None:
    frames = _frames(
        _text("a", 1),
        TokenChunk(index=1, finish_reason=FinishReason.LENGTH),
        _text("late", 1),
        _text("b"),
        STOP,
        TokenChunk(finish_reason=FinishReason.LENGTH),
        USAGE,
    )
    assert [frame["candidates"] for frame in frames] == [
        [_said({"text": "a"}, index=1)],
        [_said({"text": "b"})],
        [
            _said({"text": ""}, finishReason="STOP"),
            _said({"text": ""}, index=1, finishReason="MAX_TOKENS"),
        ],
    ]
    assert "usageMetadata" not in frames[0]


def test_chunk_that_says_nothing_is_no_frame() -> None:
    encoder = GEMINI.stream(Asked(batch=BATCH), FACTS)
    assert encoder.encode(TokenChunk(model="x")) == b""
    assert encoder.encode(STOP) == b""


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.StreamCutError("cut"), 502, "INTERNAL"),
        (errors.UpstreamTimeoutError("slow"), 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_w6_failure_is_one_error_frame_without_a_finish(
    error: errors.InferenceError, code: int, status: str
) -> None:
    encoder = GEMINI.stream(Asked(batch=BATCH), FACTS)
    encoder.encode(_text("a"))
    encoder.encode(STOP)
    assert encoder.fail(error) == (
        b'data: {"error":{"code":%d,"message":"%s","status":"%s","details":[]}}\n\n'
        % (code, error.message.encode(), status.encode())
    )


def test_s9_stream_without_alt_sse_is_one_array() -> None:
    body = _stream(_text("a"), STOP, USAGE, stream_type=ARRAY_TYPE)
    assert body.startswith(b'[{"candidates"')
    assert b"},\r\n{" in body
    assert msgspec.json.decode(body) == _frames(_text("a"), STOP, USAGE)


def test_failed_array_is_still_json() -> None:
    encoder = GEMINI.stream(Asked(batch=BATCH, stream_type=ARRAY_TYPE), FACTS)
    body = encoder.encode(_text("a")) + encoder.fail(errors.StreamCutError("cut"))
    first, last = msgspec.json.decode(body)
    assert first["candidates"] == [_said({"text": "a"})]
    assert last["error"]["message"] == "cut"


def test_array_that_fails_at_once_holds_the_error_alone() -> None:
    encoder = GEMINI.stream(Asked(batch=BATCH, stream_type=ARRAY_TYPE), FACTS)
    [only] = msgspec.json.decode(encoder.fail(errors.StreamCutError("cut")))
    assert only["error"]["code"] == 502


# --- tool calls -------------------------------------------------------------


def test_t3_pieces_of_calls_become_whole_parts() -> None:
    own = Signature("c2ln", Dialect.GEMINI)
    chunks = (
        _calls(ToolCallDelta(index=0, id="1", name="f", signature=own)),
        _calls(ToolCallDelta(index=0, arguments='{"a":\n 1')),
        _calls(ToolCallDelta(index=0, arguments="}")),
        _calls(ToolCallDelta(index=1, id="2", name="g")),
        TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
    )
    parts = [
        {
            "functionCall": {"id": "1", "name": "f", "args": {"a": 1}},
            "thoughtSignature": "c2ln",
        },
        {"functionCall": {"id": "2", "name": "g", "args": {}}},
    ]
    streamed = _frames(*chunks, USAGE)
    assert [frame["candidates"] for frame in streamed] == [
        [_said(parts[0])],
        [_said(parts[1])],
        [_said({"text": ""}, finishReason="STOP")],
    ]
    assert _candidate(*chunks) == _said(*parts, finishReason="STOP")


def test_t3_calls_that_begin_together_keep_their_own_arguments() -> None:
    chunks = (
        _calls(ToolCallDelta(index=0, id="1", name="f")),
        _calls(ToolCallDelta(index=1, id="2", name="g")),
        _calls(ToolCallDelta(index=1, arguments='{"b":')),
        _calls(ToolCallDelta(index=0, arguments='{"a":1}')),
        _calls(ToolCallDelta(index=2, id="3", name="h")),
        _calls(ToolCallDelta(index=1, arguments="2}")),
        TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
    )
    parts = [
        {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}}},
        {"functionCall": {"id": "2", "name": "g", "args": {"b": 2}}},
        {"functionCall": {"id": "3", "name": "h", "args": {}}},
    ]
    streamed = _frames(*chunks, USAGE)
    assert [frame["candidates"] for frame in streamed] == [
        [_said(parts[0])],
        [_said(*parts[1:])],
        [_said({"text": ""}, finishReason="STOP")],
    ]
    assert _candidate(*chunks) == _said(*parts, finishReason="STOP")


@pytest.mark.parametrize("late", ["", " "])
def test_t3_a_late_piece_that_adds_nothing_is_no_call(late: str) -> None:
    chunks = (
        _calls(ToolCallDelta(index=0, id="1", name="f", arguments="{}")),
        _calls(ToolCallDelta(index=1, id="2", name="g")),
        _calls(ToolCallDelta(index=0, arguments=late)),
        _calls(ToolCallDelta(index=1, arguments='{"b":2}')),
        TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
    )
    assert _candidate(*chunks) == _said(
        {"functionCall": {"id": "1", "name": "f", "args": {}}},
        {"functionCall": {"id": "2", "name": "g", "args": {"b": 2}}},
        finishReason="STOP",
    )


@pytest.mark.parametrize("arguments", ["[1]", "{", '{"a":}', "nope"])
def test_arguments_that_are_no_object_end_the_answer_in_geminis_own_word(
    arguments: str,
) -> None:
    call = _calls(ToolCallDelta(id="1", name="f", arguments=arguments))
    finish = TokenChunk(finish_reason=FinishReason.TOOL_CALLS)
    message = f"the arguments of 'f' are not a JSON object: {arguments}"
    assert _candidate(_text("a"), call, finish) == _said(
        {"text": "a"},
        finishReason="MALFORMED_FUNCTION_CALL",
        finishMessage=message,
    )


# --- thoughts and signatures ------------------------------------------------


def test_thoughts_are_parts_and_signatures_stand_on_theirs() -> None:
    own = Signature("c2ln", Dialect.GEMINI)
    chunks = (
        TokenChunk(reasoning=ReasoningDelta(text="th")),
        TokenChunk(reasoning=ReasoningDelta(text="ink", signature=own)),
        _text("say"),
        TokenChunk(text_signature=own),
        STOP,
    )
    assert _candidate(*chunks) == _said(
        {"text": "think", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "say", "thoughtSignature": "c2ln"},
        finishReason="STOP",
    )


def test_signatures_of_other_providers_travel_marked() -> None:
    theirs = Signature("EqR+", Dialect.ANTHROPIC)
    data = Signature("enc", Dialect.ANTHROPIC)
    chunks = (
        TokenChunk(reasoning=ReasoningDelta(text="t", signature=theirs)),
        TokenChunk(reasoning=ReasoningDelta(data=data, block=1)),
        STOP,
    )
    first, second = _candidate(*chunks)["content"]["parts"]
    assert first["thoughtSignature"] == to_wire(theirs)
    assert second == {
        "text": "",
        "thought": True,
        "thoughtSignature": to_wire(data, encrypted=True),
    }


def test_refusal_is_text_here() -> None:
    chunks = (
        TokenChunk(refusal="no"),
        TokenChunk(finish_reason=FinishReason.CONTENT_FILTER),
    )
    assert _candidate(*chunks) == _said({"text": "no"}, finishReason="SAFETY")


def test_picture_of_another_dialect_is_inline_data() -> None:
    url = "data:image/png;base64,AAAA"
    images = msgspec.json.encode([{"type": "image_url", "image_url": {"url": url}}])
    assert _candidate(TokenChunk(extra={"images": images}), STOP) == _said(
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, finishReason="STOP"
    )


# --- finish reasons ---------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "native", "word"),
    [
        (FinishReason.STOP, None, "STOP"),
        (FinishReason.STOP, "end_turn", "STOP"),
        (FinishReason.STOP, "pause_turn", "STOP"),
        (FinishReason.LENGTH, "max_tokens", "MAX_TOKENS"),
        (FinishReason.LENGTH, "model_context_window_exceeded", "MAX_TOKENS"),
        (FinishReason.TOOL_CALLS, "tool_use", "STOP"),
        (FinishReason.CONTENT_FILTER, "refusal", "SAFETY"),
        (FinishReason.CONTENT_FILTER, "RECITATION", "RECITATION"),
        (FinishReason.STOP, "RECITATION", "STOP"),
        (FinishReason.STOP, "OTHER", "OTHER"),
        (FinishReason.LENGTH, "OTHER", "MAX_TOKENS"),
    ],
)
def test_finish_reason_of_section_5(
    reason: FinishReason, native: str | None, word: str
) -> None:
    finish = TokenChunk(finish_reason=reason, native_finish=native)
    assert _candidate(_text("a"), finish)["finishReason"] == word


# --- usage ------------------------------------------------------------------


def test_usage_of_section_6_includes_cached_and_excludes_thoughts() -> None:
    usage = Usage(
        input_uncached=10,
        cache_read=5,
        cache_write_5m=2,
        input_audio=3,
        input_image=4,
        tool_prompt=6,
        output_text=7,
        reasoning=8,
        output_audio=9,
    )
    answer = _whole(_text("a"), STOP, TokenChunk(usage=usage))
    assert answer["usageMetadata"] == {
        "promptTokenCount": 24,
        "candidatesTokenCount": 16,
        "totalTokenCount": 54,
        "cachedContentTokenCount": 5,
        "thoughtsTokenCount": 8,
        "toolUsePromptTokenCount": 6,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 17},
            {"modality": "AUDIO", "tokenCount": 3},
            {"modality": "IMAGE", "tokenCount": 4},
        ],
        "candidatesTokensDetails": [
            {"modality": "TEXT", "tokenCount": 7},
            {"modality": "AUDIO", "tokenCount": 9},
        ],
    }


# --- whole answers ----------------------------------------------------------


def test_whole_answer_says_all_at_once() -> None:
    chunks = (_text("a"), _text("b", 1), _text("c"), STOP)
    other = TokenChunk(index=1, finish_reason=FinishReason.LENGTH)
    assert _whole(*chunks, other, USAGE) == {
        "candidates": [
            _said({"text": "ac"}, finishReason="STOP"),
            _said({"text": "b"}, index=1, finishReason="MAX_TOKENS"),
        ],
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 2,
            "totalTokenCount": 5,
        },
        **TAIL,
    }


def test_empty_answer_has_an_empty_part() -> None:
    assert _candidate(STOP) == _said({"text": ""}, finishReason="STOP")


def test_logprobs_are_written_in_geminis_form() -> None:
    logprobs = {
        "content": [
            {
                "token": "a",
                "logprob": -0.5,
                "bytes": [97],
                "top_logprobs": [{"token": "b", "logprob": -1.5}],
            }
        ]
    }
    raw = msgspec.json.encode(logprobs)
    chunk = TokenChunk(text="a", logprobs=raw)
    expected: dict[str, Any] = {
        "avgLogprobs": -0.5,
        "logprobsResult": {
            "chosenCandidates": [{"token": "a", "logProbability": -0.5}],
            "topCandidates": [{"candidates": [{"token": "b", "logProbability": -1.5}]}],
        },
    }
    frames = _frames(chunk, STOP, USAGE)
    assert frames[0]["candidates"] == [_said({"text": "a"}, **expected)]
    assert _candidate(chunk, STOP) == _said(
        {"text": "a"}, finishReason="STOP", **expected
    )
