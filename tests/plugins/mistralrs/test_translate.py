"""Requests become arguments, chunks become ours."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
import pytest

from atomr_infer.errors import (
    EngineError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.asks import FormatKind, ResponseFormat, Tool
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
    Usage,
)
from atomr_infer.model.parts import ImagePart, Inline, ToolCallPart, ToolResultPart
from atomr_infer.runtimes.decoding.schemas import BLANKS
from atomr_infer_mistralrs.translate import chunk_from_engine, request_arguments


def batch(*messages: Message, **sampling: object) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=messages or (Message(Role.USER, "hi"),),
        sampling=attrs.evolve(Sampling(), **sampling),  # type: ignore[arg-type] # the tests' own fields
    )


def with_extra(**members: bytes) -> ExecuteBatch:
    return attrs.evolve(batch(), extra=members)


@attrs.define
class Delta:
    content: str | None = None
    reasoning_content: str | None = None


@attrs.define
class Top:
    logprob: float
    bytes: str | None


@attrs.define
class Logprob:
    token: str
    logprob: float
    bytes: Sequence[int] | None
    top_logprobs: list[Top]


@attrs.define
class Choice:
    delta: Delta
    finish_reason: str | None = None
    logprobs: Logprob | None = None


@attrs.define
class PromptDetails:
    cached_tokens: int


@attrs.define
class EngineUsage:
    prompt_tokens: int = 5
    completion_tokens: int = 7
    prompt_tokens_details: PromptDetails | None = None


@attrs.define
class EngineChunk:
    choices: list[Choice]
    usage: EngineUsage | None = None


def test_a_plain_request_is_bounded_by_the_context() -> None:
    assert request_arguments(batch(), 8192) == {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "default",
        "stream": True,
        "max_tokens": 8192,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "stop_seqs": None,
        "presence_penalty": None,
        "frequency_penalty": None,
        "logprobs": False,
        "top_logprobs": None,
    }


def test_sampling_is_passed_on() -> None:
    arguments = request_arguments(
        batch(
            temperature=0.0,
            top_p=0.5,
            top_k=40,
            top_logprobs=2,
            max_tokens=9,
            stop=("a", "b"),
            presence_penalty=1.0,
            frequency_penalty=-1.0,
        ),
        8192,
    )
    assert arguments == arguments | {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 40,
        "logprobs": True,
        "top_logprobs": 2,
        "max_tokens": 9,
        "stop_seqs": ["a", "b"],
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
    }
    assert request_arguments(batch(max_tokens=10**9), 8192)["max_tokens"] == 8192
    # Elsewhere it means that all tokens are drawn of.
    assert request_arguments(batch(top_k=0), 8192)["top_k"] is None
    alone = request_arguments(batch(top_logprobs=0), 8192)
    assert (alone["logprobs"], alone["top_logprobs"]) == (True, 0)


def test_members_of_the_engine_s_own_are_passed_on() -> None:
    asked = {"min_p": b"0.1", "repetition_penalty": b"null", "mirostat": b"2"}
    arguments = request_arguments(attrs.evolve(batch(), extra=asked), 8192)
    assert arguments["min_p"] == 0.1
    assert "repetition_penalty" not in arguments
    assert "mirostat" not in arguments


@pytest.mark.parametrize(
    ("wrong", "message", "param"),
    [
        (batch(top_k=-1), "top_k is -1; it must be at least 0", "top_k"),
        (
            batch(top_logprobs=21),
            "top_logprobs is 21; it must be from 0 to 20",
            "top_logprobs",
        ),
        (
            with_extra(min_p=b"1"),
            "min_p is 1.0; it must be at least 0 and below 1",
            "min_p",
        ),
        (
            with_extra(min_p=b'"a"'),
            "min_p is no number: Expected `float | null`, got `str`",
            "min_p",
        ),
        (
            with_extra(repetition_penalty=b"0"),
            "repetition_penalty is 0.0; it must be above 0",
            "repetition_penalty",
        ),
    ],
)
def test_a_value_that_is_not_allowed_is_the_client_s(
    wrong: ExecuteBatch, message: str, param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request_arguments(wrong, 8192)
    assert (caught.value.message, caught.value.param) == (message, param)


def grammar_of(schema: bytes | None) -> object:
    kind = FormatKind.JSON_OBJECT if schema is None else FormatKind.JSON_SCHEMA
    form = ResponseFormat(kind=kind, schema=schema)
    arguments = request_arguments(batch(), 8192, form)
    assert arguments["grammar_type"] == "json_schema"
    return json.loads(arguments["grammar"])


def test_an_answer_is_kept_to_its_schema_on_one_line() -> None:
    assert grammar_of(None) == {"type": "object", "x-guidance": BLANKS}
    assert grammar_of(b'{"type": "string"}') == {
        "type": "string",
        "x-guidance": BLANKS,
    }
    assert grammar_of(b"true") is True
    told = b'{"description": "one\\n\\u00e9", "properties": {"format": {}}}'
    assert grammar_of(told) == {**json.loads(told), "x-guidance": BLANKS}
    plain = request_arguments(batch(), 8192, ResponseFormat(kind=FormatKind.TEXT))
    assert "grammar" not in plain


def test_a_schema_that_may_take_long_is_refused_for_all_wait_meanwhile() -> None:
    with pytest.raises(InvalidRequestError, match="it may take long") as caught:
        grammar_of(b'{"allOf": [{"pattern": "^.*a.*$"}]}')
    assert caught.value.param == "response_format"


def test_parts_are_joined_and_developers_speak_as_the_system() -> None:
    conversation = batch(
        Message(Role.DEVELOPER, "be brief"),
        Message(Role.USER, (TextPart("a"), TextPart("b"))),
        Message(Role.ASSISTANT, None),
    )
    assert request_arguments(conversation, 1)["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": ""},
    ]


@pytest.mark.parametrize(
    "message",
    [
        Message(Role.USER, (TextPart("a"), RawPart("image_url", b"{}"))),
        Message(Role.USER, (ImagePart(source=Inline("image/png", "AA==")),)),
    ],
)
def test_what_the_model_cannot_read_is_refused(message: Message) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        request_arguments(batch(message), 1)
    assert caught.value.param == "messages"


def test_tools_and_calls_are_told_in_words() -> None:
    conversation = attrs.evolve(
        batch(
            Message(Role.USER, "look"),
            Message(Role.ASSISTANT, (ToolCallPart(id="c", name="f", arguments="{}"),)),
            Message(
                Role.TOOL, (ToolResultPart(call_id="c", content=(TextPart("42"),)),)
            ),
        ),
        tools=(Tool(name="f", parameters=b'{"type": "object"}'),),
    )
    told, asked, called, answered = request_arguments(conversation, 1)["messages"]
    assert told["role"] == "system"
    assert (
        '{"name":"f","description":"","parameters":{"type":"object"}}'
        in (told["content"])
    )
    assert asked == {"role": "user", "content": "look"}
    assert called == {
        "role": "assistant",
        "content": '<tool_call>{"name":"f","arguments":{}}</tool_call>',
    }
    assert answered == {
        "role": "user",
        "content": "<tool_response>\n42\n</tool_response>",
    }


def test_probabilities_are_those_of_the_token_and_of_the_likeliest() -> None:
    found = Logprob(
        "\ufffd", -float("inf"), b"\xf0\x9f", [Top(-0.5, " a"), Top(-3.0, "\ufffd")]
    )
    chunk = chunk_from_engine(EngineChunk([Choice(Delta(""), logprobs=found)]))
    assert chunk.logprobs is not None
    assert json.loads(chunk.logprobs) == {
        "content": [
            {
                "token": "\ufffd",
                "logprob": -9999.0,
                "bytes": [0xF0, 0x9F],
                "top_logprobs": [
                    {"token": " a", "logprob": -0.5, "bytes": [32, 97]},
                    {"token": "\ufffd", "logprob": -3.0, "bytes": None},
                ],
            }
        ],
        "refusal": None,
    }


@pytest.mark.parametrize(
    ("engine", "ours"),
    [
        (EngineChunk([Choice(Delta("a"))]), TokenChunk(text="a")),
        (
            EngineChunk([Choice(Delta("."), "length")], EngineUsage()),
            TokenChunk(
                text=".",
                finish_reason=FinishReason.LENGTH,
                usage=Usage(input_uncached=5, output_text=7),
            ),
        ),
        (
            EngineChunk([Choice(Delta(None), "stop")]),
            TokenChunk(finish_reason=FinishReason.STOP),
        ),
        (
            EngineChunk([Choice(Delta(None, 'hm "x"'))]),
            TokenChunk(reasoning=ReasoningDelta(text='hm "x"')),
        ),
        (
            EngineChunk([], EngineUsage()),
            TokenChunk(usage=Usage(input_uncached=5, output_text=7)),
        ),
        (
            EngineChunk([], EngineUsage(prompt_tokens_details=PromptDetails(3))),
            TokenChunk(usage=Usage(input_uncached=2, cache_read=3, output_text=7)),
        ),
    ],
)
def test_chunks_are_mapped(engine: EngineChunk, ours: TokenChunk) -> None:
    assert chunk_from_engine(engine) == ours


def test_an_end_for_the_engine_s_own_reason_is_its_failure() -> None:
    with pytest.raises(EngineError, match="ended the answer: canceled"):
        chunk_from_engine(EngineChunk([Choice(Delta(None), "canceled")]))
