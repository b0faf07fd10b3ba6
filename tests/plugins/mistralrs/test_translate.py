"""Requests become arguments, chunks become ours."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.errors import EngineError, UnsupportedFeatureError
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
from atomr_infer.model.parts import ToolCallPart, ToolResultPart
from atomr_infer_mistralrs.translate import chunk_from_engine, request_arguments


def batch(*messages: Message, **sampling: object) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=messages or (Message(Role.USER, "hi"),),
        sampling=attrs.evolve(Sampling(), **sampling),  # type: ignore[arg-type] # the tests' own fields
    )


@attrs.define
class Delta:
    content: str | None = None
    reasoning_content: str | None = None


@attrs.define
class Choice:
    delta: Delta
    finish_reason: str | None = None


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
        "stop_seqs": None,
        "presence_penalty": None,
        "frequency_penalty": None,
    }


def test_sampling_is_passed_on() -> None:
    arguments = request_arguments(
        batch(
            temperature=0.0,
            top_p=0.5,
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
        "max_tokens": 9,
        "stop_seqs": ["a", "b"],
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
    }
    assert request_arguments(batch(max_tokens=10**9), 8192)["max_tokens"] == 8192


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
        Message(Role.TOOL, (ToolResultPart(call_id="c", content=(TextPart("42"),)),)),
        Message(Role.ASSISTANT, (ToolCallPart(id="c", name="f", arguments="{}"),)),
    ],
)
def test_what_the_model_cannot_read_is_refused(message: Message) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        request_arguments(batch(message), 1)
    assert caught.value.param == "messages"


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
