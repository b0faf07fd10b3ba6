from __future__ import annotations

import json
from typing import Any

import pytest

from atomr_infer import errors
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawPart,
    ReasoningDelta,
    Role,
    Sampling,
    TextPart,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.model.secret import Secret
from atomr_infer.wire.ingress import Call
from atomr_infer.wire.openai.chat_request import parse_chat_request
from atomr_infer.wire.openai.upstream import (
    decode_chunk,
    decode_response,
    finish_reason,
)
from atomr_infer.wire.openai.upstream_errors import (
    ErrorBody,
    classify,
    parse_error,
)
from atomr_infer.wire.openai.upstream_request import encode_request

MESSAGES = (Message(Role.USER, "hi"),)

MEDIA = [
    {"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
    {"type": "file", "file": {"file_id": "f1"}},
    {
        "type": "file",
        "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
    },
    {"type": "video_url", "video_url": {"url": "https://x/z"}},
]
CALLS = [
    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}},
]


def _batch(**members: Any) -> ExecuteBatch:
    return ExecuteBatch(request_id="r", model="m", **{"messages": MESSAGES, **members})


# --- requests ---------------------------------------------------------------


def test_smallest_stream_asks_for_usage_and_sends_no_defaults() -> None:
    assert encode_request(_batch()) == (
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],'
        b'"stream":true,"stream_options":{"include_usage":true}}'
    )


def test_request_that_is_not_streamed_has_no_stream_options() -> None:
    batch = _batch(stream=False, extra={"stream_options": b'{"x":1}'})
    assert json.loads(encode_request(batch)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }


def test_every_sampling_field_reaches_the_body() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        max_tokens=7,
        stop=("a", "b"),
        seed=1,
        presence_penalty=-1.0,
        frequency_penalty=2.0,
        n=3,
    )
    body = json.loads(encode_request(_batch(sampling=sampling, stream=False)))
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 1,
        "presence_penalty": -1.0,
        "frequency_penalty": 2.0,
        "stop": ["a", "b"],
        "n": 3,
        "max_tokens": 7,
        "stream": False,
    }


def test_limit_is_spelled_as_the_upstream_or_else_the_client_spells_it() -> None:
    batch = _batch(sampling=Sampling(max_tokens=7))
    newer = encode_request(batch, max_tokens_member="max_completion_tokens")
    assert b'"max_completion_tokens":7' in newer
    assert b'"max_tokens"' not in newer
    asked = _batch(
        sampling=Sampling(max_tokens=7), extra={"max_completion_tokens": b"7"}
    )
    body = encode_request(asked)
    assert body.count(b"max_completion_tokens") == 1
    assert b'"max_tokens"' not in body


def test_raw_members_are_spliced_byte_for_byte() -> None:
    # Numbers, escapes and spaces that a decoder would normalise.
    raw = b'[ 1.0e5 , "\\u00e9", 12345678901234567890123 ]'
    part = b'{ "type":"image_url",  "image_url": {"url":"x"} }'
    message = Message(
        Role.ASSISTANT,
        (TextPart("t"), RawPart("image_url", part)),
        {"tool_calls": raw},
    )
    body = encode_request(_batch(messages=(message,), extra={"tools": raw}))
    assert b'"tools":' + raw in body
    assert b'"tool_calls":' + raw in body
    assert b'"content":[{"type":"text","text":"t"},' + part + b"]" in body


def test_canonical_members_win_over_extra_ones_of_the_same_name() -> None:
    message = Message(Role.USER, "hi", {"role": b'"system"', "content": b'"no"'})
    body = encode_request(_batch(messages=(message,), extra={"model": b'"other"'}))
    assert json.loads(body)["model"] == "m"
    assert json.loads(body)["messages"] == [{"role": "user", "content": "hi"}]
    assert body.count(b'"model"') == 1


def test_other_stream_options_are_kept() -> None:
    options = b'{"include_usage": false, "include_obfuscation":false}'
    body = json.loads(encode_request(_batch(extra={"stream_options": options})))
    assert body["stream_options"] == {
        "include_usage": True,
        "include_obfuscation": False,
    }


def test_stream_options_of_null_count_as_none() -> None:
    body = json.loads(encode_request(_batch(extra={"stream_options": b"null"})))
    assert body["stream_options"] == {"include_usage": True}


def test_request_of_a_client_survives_the_way_through_the_canonical_form() -> None:
    sent = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": "hi", "name": "a"},
            {"role": "user", "content": MEDIA},
            {"role": "assistant", "content": "no", "refusal": "I will not."},
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "content": "4", "tool_call_id": "c"},
        ],
        "temperature": 0.5,
        "stop": ["x"],
        "max_completion_tokens": 5,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "adds",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            },
            {"type": "custom", "custom": {"name": "c"}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "user": "u",
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": 1},
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_effort": "low",
    }
    call = Call(request_id="r", body=json.dumps(sent).encode())
    assert json.loads(encode_request(parse_chat_request(call).batch)) == sent


# --- chunks -----------------------------------------------------------------


def _event(*choices: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"choices": choices, "model": "m-1", **members}).encode()


def test_chunk_gives_text_and_model() -> None:
    data = _event({"index": 1, "delta": {"content": "é\u2028"}, "finish_reason": None})
    assert decode_chunk(data) == (TokenChunk(text="é\u2028", index=1, model="m-1"),)


def test_chunk_that_says_nothing_gives_nothing() -> None:
    role: dict[str, Any] = {
        "role": "assistant",
        "content": "",
        "refusal": None,
        "tool_calls": [],
    }
    nulls = {"index": 0, "delta": role, "logprobs": None, "finish_reason": None}
    assert decode_chunk(_event(nulls)) == ()
    assert decode_chunk(_event()) == ()
    assert decode_chunk(b"{}") == ()
    assert decode_chunk(b'{"choices":null,"usage":null,"error":null}') == ()
    assert decode_chunk(_event({"delta": None, "finish_reason": ""})) == ()


def test_known_delta_members_are_typed_and_unknown_ones_kept_byte_for_byte() -> None:
    annotations = b'[ {"type":"url_citation" } ]'
    data = (
        b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c"}],'
        b'"reasoning_content":"r","refusal":"no","content":null,"annotations":%b},'
        b'"logprobs":{ "content":[] },"token_ids":[ 1 ],'
        b'"finish_reason":"tool_calls"}]}' % annotations
    )
    assert decode_chunk(data) == (
        TokenChunk(
            finish_reason=FinishReason.TOOL_CALLS,
            reasoning=ReasoningDelta(text="r"),
            tool_calls=(ToolCallDelta(index=0, id="c"),),
            refusal="no",
            logprobs=b'{ "content":[] }',
            extra={"annotations": annotations},
            choice_extra={"token_ids": b"[ 1 ]"},
        ),
    )


@pytest.mark.parametrize(
    ("delta", "reasoning"),
    [
        ({"reasoning_content": "a"}, ReasoningDelta(text="a")),
        ({"reasoning": "a"}, ReasoningDelta(text="a")),
        ({"reasoning": "a", "reasoning_content": "a"}, ReasoningDelta(text="a")),
        (
            {"content": [{"type": "thinking", "thinking": [{"text": "a"}]}]},
            ReasoningDelta(text="a"),
        ),
        (
            {
                "reasoning_details": [
                    {
                        "index": 2,
                        "text": "a",
                        "signature": "s",
                        "origin": "anthropic",
                    }
                ]
            },
            ReasoningDelta(
                text="a", signature=Signature("s", Dialect.ANTHROPIC), block=2
            ),
        ),
    ],
)
def test_thoughts_are_read_wherever_a_server_puts_them(
    delta: dict[str, Any], reasoning: ReasoningDelta
) -> None:
    [chunk] = decode_chunk(_event({"index": 0, "delta": delta}))
    assert chunk.reasoning == reasoning
    assert chunk.text == ""
    assert chunk.extra == {}


def test_several_choices_in_one_event_give_a_chunk_each() -> None:
    data = _event(
        {"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}
    )
    assert [(c.index, c.text) for c in decode_chunk(data)] == [(1, "b"), (0, "a")]


def test_usage_is_split_into_disjoint_buckets() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    expected = Usage(input_uncached=6, cache_read=4, output_text=2, reasoning=5)
    assert decode_chunk(_event(usage=usage)) == (
        TokenChunk(usage=expected, model="m-1"),
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3}, Usage(input_uncached=3, output_text=0)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 9},
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            Usage(input_uncached=0, cache_read=3, output_text=0, reasoning=2),
        ),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": None,
                "prompt_tokens_details": {"cached_tokens": None},
                "completion_tokens_details": None,
            },
            Usage(input_uncached=3, output_text=0),
        ),
    ],
)
def test_usage_that_does_not_add_up_is_kept_inside_its_totals(
    usage: dict[str, Any], expected: Usage
) -> None:
    assert decode_chunk(_event(usage=usage))[0].usage == expected


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("eos", FinishReason.STOP),
    ],
)
def test_finish_reasons(native: str, reason: FinishReason) -> None:
    assert finish_reason(native) is reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"choices":[{"delta":"text"}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"choices":[{"index":"zero"}]}',
        b'{"choices":[{"finish_reason":7}]}',
        b'{"choices":{}}',
        b"[" * 100_000,
    ],
)
def test_event_that_is_no_chunk_is_malformed(data: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        decode_chunk(data)
    assert caught.value.code == "malformed_event"


# --- errors inside 200 ------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "event", "error_class", "message"),
    [
        (
            b'{"error":{"message":"boom","type":"server_error","code":null}}',
            "",
            errors.UpstreamError,
            "boom",
        ),
        (b'{"error":"boom"}', "", errors.UpstreamError, "boom"),
        (
            b'{"object":"error","message":"bad","type":"BadRequestError","code":400}',
            "",
            errors.InvalidRequestError,
            "bad",
        ),
        (
            b'{"object":"error","message":"gone","code":"503"}',
            "",
            errors.UpstreamError,
            "gone",
        ),
        (b'{"message":"x"}', "error", errors.UpstreamError, '{"message":"x"}'),
        (b"plain words", "error", errors.UpstreamError, "plain words"),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"o"}}',
            "error",
            errors.UpstreamError,
            "o",
        ),
        (
            b'{"error":{"message":"slow","code":"rate_limit_exceeded"}}',
            "",
            errors.RateLimitedError,
            "slow",
        ),
        (
            b'{"error":{"message":"no money","type":"insufficient_quota"}}',
            "",
            errors.UpstreamAuthError,
            "no money",
        ),
        # An error whose other members have not the types of a chunk's.
        (b'{"error":{"message":"m"},"choices":7}', "", errors.UpstreamError, "m"),
    ],
)
def test_error_inside_a_stream_is_raised(
    data: bytes, event: str, error_class: type, message: str
) -> None:
    with pytest.raises(errors.InferenceError) as caught:
        decode_chunk(data, event=event)
    assert (type(caught.value), caught.value.message) == (error_class, message)


def test_whole_answer_gives_a_finished_chunk_per_choice_and_then_usage() -> None:
    body = json.dumps(
        {
            "model": "m-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "a"},
                    "finish_reason": "stop",
                },
                {
                    "index": 1,
                    "message": {"content": None, "tool_calls": CALLS[:1]},
                    "finish_reason": None,
                },
            ],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3},
        }
    ).encode()
    assert decode_response(body) == (
        TokenChunk(text="a", finish_reason=FinishReason.STOP, model="m-1"),
        TokenChunk(
            index=1,
            finish_reason=FinishReason.STOP,
            tool_calls=(ToolCallDelta(index=-1, id="c", name="f", arguments="{}"),),
            model="m-1",
        ),
        TokenChunk(usage=Usage(input_uncached=2, output_text=3), model="m-1"),
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"choices":[]}'])
def test_body_that_is_no_answer_is_malformed(body: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocolError) as caught:
        decode_response(body)
    assert caught.value.code == "malformed_body"


def test_error_body_behind_a_200_is_raised() -> None:
    with pytest.raises(errors.ContextLengthError):
        decode_response(b'{"error":{"message":"m","code":"context_length_exceeded"}}')


# --- error bodies -----------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"<html>", b"[1]", b"{}", b'{"error":null}'])
def test_body_without_an_error_gives_none(data: bytes) -> None:
    assert parse_error(data) is None


def test_key_is_blotted_out_and_the_text_is_cut_to_one_short_line() -> None:
    secret = Secret("sk-secret")
    body = ErrorBody(message="key sk-secret\r\n is " + "x" * 5000, param="sk-secret")
    error = classify(body, status=400, secret=secret)
    assert error.message.startswith("key *** is xxx")
    assert len(error.message) == 1003
    assert error.param == "***"
    assert "sk-secret" not in repr(error) + str(error)


def test_key_across_the_cut_is_not_shown_in_part() -> None:
    body = ErrorBody(message="x" * 995 + "sk-secret")
    assert "sk" not in classify(body, status=400, secret=Secret("sk-secret")).message


def test_error_without_a_text_says_its_status() -> None:
    assert classify(ErrorBody(), status=500).message == "the upstream answered 500"
