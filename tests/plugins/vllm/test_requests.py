"""Requests in vLLM's terms."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from pydantic import BaseModel, ValidationError

from atomr_infer.errors import (
    ContextLengthError,
    InferenceError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.asks import (
    FormatKind,
    RawTool,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.parts import (
    ImagePart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.runtimes.decoding.tools import Forced, forced_of, refuse_undecided
from atomr_infer.runtimes.decoding.turns import tools_of, turns_of
from atomr_infer_vllm.faults import start_error, to_inference_error
from atomr_infer_vllm.parsing import StreamedCalls
from atomr_infer_vllm.sampling import Asked, asked_of

WEATHER = Tool(name="weather", parameters=b'{"type": "object"}')
TIME = Tool(name="time", description="now")
REQUIRED = ToolChoice(mode=ToolMode.REQUIRED)


def ask(**members: Any) -> ExecuteBatch:
    plain = ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, "hello"),)
    )
    return attrs.evolve(plain, **members)


def asked(batch: ExecuteBatch, forced: Forced | None = None) -> Asked:
    return asked_of(
        batch,
        prompt_tokens=10,
        context_tokens=100,
        defaults={"top_p": 0.9},
        forced=forced,
    )


# --- sampling -------------------------------------------------------------------


def test_what_is_not_said_is_the_models_own() -> None:
    assert asked(ask()) == Asked(
        arguments={"top_p": 0.9, "n": 1, "max_tokens": 90, "stop": []}, structured={}
    )


def test_every_sampling_field_reaches_the_engine() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_p=0.8,
        top_k=7,
        max_tokens=1000,
        stop=("a", "b"),
        seed=-1,
        presence_penalty=1.0,
        frequency_penalty=0.5,
        n=2,
        top_logprobs=0,
    )
    assert sampling.given() == {field.name for field in attrs.fields(Sampling)}
    assert asked(ask(sampling=sampling)).arguments == {
        "temperature": 0.5,
        "top_p": 0.8,
        "top_k": 7,
        "max_tokens": 90,
        "stop": ["a", "b"],
        "seed": 2**63 - 1,
        "presence_penalty": 1.0,
        "frequency_penalty": 0.5,
        "n": 2,
        "logprobs": 0,
    }


def test_several_greedy_answers_are_asked_for_in_another_way() -> None:
    arguments = asked(ask(sampling=Sampling(temperature=0.0, n=2))).arguments
    assert (arguments["temperature"], arguments["top_k"]) == (1.0, 1)


def test_members_of_vllms_own_are_understood_and_others_told() -> None:
    extra = {
        "min_p": b"0.1",
        "logit_bias": b'{"5": -100}',
        "guided_choice": b'["a", "b"]',
        "store": b"true",
        "max_completion_tokens": b"9",  # as the client spells max_tokens
        "min_tokns": b"3",
        "audio": b"null",
    }
    found = asked(ask(extra=extra))
    assert found.arguments["min_p"] == 0.1
    assert found.arguments["logit_bias"] == {5: -100.0}
    assert found.structured == {"choice": ["a", "b"]}
    assert found.ignored == ("min_tokns was ignored (did you mean min_tokens?)",)


@pytest.mark.parametrize(
    ("members", "error", "param"),
    [
        ({"sampling": Sampling(max_tokens=0)}, InvalidRequestError, "max_tokens"),
        ({"sampling": Sampling(top_logprobs=21)}, InvalidRequestError, "top_logprobs"),
        ({"extra": {"logit_bias": b'{"a": 1}'}}, InvalidRequestError, "logit_bias"),
        ({"extra": {"min_p": b"{"}}, InvalidRequestError, "min_p"),
        (
            {"response_format": ResponseFormat(kind=FormatKind.JSON_SCHEMA)},
            InvalidRequestError,
            "response_format",
        ),
    ],
)
def test_what_the_engine_cannot_use_is_refused(
    members: dict[str, Any], error: type[InferenceError], param: str
) -> None:
    with pytest.raises(error) as caught:
        asked(ask(**members))
    assert caught.value.param == param


def test_a_prompt_that_leaves_no_room_is_too_long() -> None:
    with pytest.raises(ContextLengthError, match="has 100 tokens, and the model's"):
        asked_of(ask(), prompt_tokens=100, context_tokens=100, defaults={}, forced=None)


def test_forms_constrain_the_text_and_forced_calls_come_first() -> None:
    any_json = ask(response_format=ResponseFormat(kind=FormatKind.JSON_OBJECT))
    assert asked(any_json).structured == {"json_object": True}
    form = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=b'{"type": "array"}')
    assert asked(ask(response_format=form)).structured == {"json": {"type": "array"}}
    forced = Forced(schema={"type": "object"}, name="f")
    assert asked(ask(response_format=form), forced).structured == {
        "json": {"type": "object"}
    }


def test_nothing_stops_a_call_before_its_end() -> None:
    stopped = ask(sampling=Sampling(stop=(",",)), extra={"stop_token_ids": b"[7]"})
    free = asked(stopped).arguments
    assert (free["stop"], free["stop_token_ids"]) == ([","], [7])
    uncut = asked(stopped, Forced(schema={"type": "object"}, name=None)).arguments
    assert uncut == {"top_p": 0.9, "n": 1, "max_tokens": 90, "stop": []}


# --- the conversation -------------------------------------------------------------


def test_turns_are_in_the_form_that_templates_read() -> None:
    call = ToolCallPart(id="c", name="weather", arguments='{"in": "Rome"}')
    odd = ToolCallPart(id="d", name="time", arguments="{")
    result = ToolResultPart(call_id="c", content=(TextPart("sun"),), name="weather")
    messages = (
        Message(Role.DEVELOPER, "be brief"),
        Message(Role.ASSISTANT, (ReasoningPart(text="hm"), TextPart("a"), call, odd)),
        Message(Role.TOOL, (result,)),
    )
    assert turns_of(messages) == [
        {"role": "system", "content": "be brief"},
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [
                {
                    "id": "c",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"in": "Rome"}},
                },
                {
                    "id": "d",
                    "type": "function",
                    "function": {"name": "time", "arguments": "{"},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "sun", "name": "weather"},
    ]


def test_a_picture_is_refused() -> None:
    picture = ImagePart(source=Url("https://x"))
    for content in ((picture,), (ToolResultPart(call_id="c", content=(picture,)),)):
        with pytest.raises(UnsupportedFeatureError, match="text only, not ImagePart"):
            turns_of((Message(Role.USER, content),))


def test_tools_are_shown_unless_none_may_be_called() -> None:
    assert tools_of(ask(tools=(WEATHER, TIME))) == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "",
                "parameters": {"type": "object"},
            },
        },
        {
            "type": "function",
            "function": {
                "name": "time",
                "description": "now",
                "parameters": {"type": "object", "properties": {}},
            },
        },
    ]
    never = ToolChoice(mode=ToolMode.NONE)
    assert tools_of(ask(tools=(WEATHER,), tool_choice=never)) == []
    with pytest.raises(UnsupportedFeatureError, match="no tool 'web_search'"):
        tools_of(ask(tools=(RawTool("web_search", b"{}"),)))
    with pytest.raises(InvalidRequestError, match="are no JSON Schema"):
        tools_of(ask(tools=(Tool(name="f", parameters=b"[]"),)))


# --- tools ------------------------------------------------------------------------


def test_a_named_tool_constrains_the_answer_to_its_arguments() -> None:
    choice = ToolChoice(mode=ToolMode.REQUIRED, names=("weather",))
    assert forced_of(ask(tools=(WEATHER, TIME), tool_choice=choice)) == Forced(
        schema={"type": "object"}, name="weather"
    )


def test_any_required_tool_constrains_the_answer_to_calls() -> None:
    found = forced_of(
        ask(tools=(WEATHER,), tool_choice=REQUIRED, parallel_tool_calls=False)
    )
    call = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": ["weather"]},
            "parameters": {"type": "object"},
        },
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }
    assert found == Forced(
        schema={
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [call]},
            "maxItems": 1,
        },
        name=None,
    )
    assert forced_of(ask(tools=(WEATHER,))) is None


def test_a_tool_that_is_not_there_cannot_be_required() -> None:
    choice = ToolChoice(mode=ToolMode.REQUIRED, names=("nope",))
    with pytest.raises(InvalidRequestError, match="names 'nope', which is not in"):
        forced_of(ask(tools=(WEATHER,), tool_choice=choice))
    with pytest.raises(InvalidRequestError, match="and tools is empty"):
        forced_of(ask(tool_choice=REQUIRED))


def test_without_a_parser_the_model_is_not_left_to_decide() -> None:
    with pytest.raises(UnsupportedFeatureError, match="tool_parser"):
        refuse_undecided(ask(tools=(WEATHER,)), None)
    refuse_undecided(ask(tools=(WEATHER,)), "hermes")
    refuse_undecided(ask(tools=(WEATHER,), tool_choice=REQUIRED), None)


@attrs.frozen
class Function:
    name: str | None = None
    arguments: str | None = None


@attrs.frozen
class Call:
    index: int
    function: Function | None


@attrs.frozen
class Delta:
    content: str | None = None
    tool_calls: tuple[Call, ...] = ()


class Parser:
    """In the shape of vLLM's: says what it is told to."""

    def __init__(self, *deltas: Delta | None) -> None:
        self._deltas = list(deltas)
        self.seen: list[tuple[str, str, tuple[int, ...]]] = []

    def extract_tool_calls_streaming(self, *given: Any) -> Delta | None:
        before, _, new, tokens_before, *_ = given
        self.seen.append((before, new, tuple(tokens_before)))
        return self._deltas.pop(0)

    def get_remaining_unstreamed_args(self) -> str:
        return "}"


def test_pieces_of_calls_have_their_name_once_and_what_is_left_at_the_end() -> None:
    parser = Parser(
        Delta(content="hm"),
        None,
        Delta(tool_calls=(Call(0, Function("f", '{"x": ')),)),
        Delta(tool_calls=(Call(0, Function(None, "1")),)),
    )
    calls = StreamedCalls(parser, None, "call")
    assert calls.take("hm", [1], finished=False) == ("hm", ())
    assert calls.take("<", [2], finished=False) == ("", ())
    _, (named,) = calls.take("t>", [3], finished=False)
    assert (named.index, named.id, named.name) == (0, "call-0", "f")
    _, pieces = calls.take("1", [4], finished=True)
    assert [(p.id, p.name, p.arguments) for p in pieces] == [
        (None, None, "1"),
        (None, None, "}"),
    ]
    assert calls.has_called
    assert parser.seen[1:3] == [("hm", "<", (1,)), ("hm<", "t>", (1, 2))]


# --- errors -----------------------------------------------------------------------


class VLLMClientError(Exception):
    parameter = "temperature"


class EngineDeadError(Exception):
    """As vLLM's, by name."""


class QueueOverflowError(Exception):
    """As vLLM's, by name."""


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (VLLMClientError("bad"), "invalid_request", None),
        (
            ValueError("longer than the maximum model length of 8"),
            "context_length",
            "context_length_exceeded",
        ),
        (EngineDeadError("x"), "engine_crashed", None),
        (QueueOverflowError("busy"), "overloaded", None),
        (RuntimeError("CUDA out of memory"), "engine", "out_of_memory"),
        (RuntimeError("odd"), "engine", None),
    ],
)
def test_whose_fault_an_error_is(error: Exception, kind: str, code: str | None) -> None:
    found = to_inference_error(error)
    assert (found.kind, found.code) == (kind, code)


def test_the_parameter_at_fault_is_named() -> None:
    assert to_inference_error(VLLMClientError("bad")).param == "temperature"


def test_a_start_that_fails_for_memory_says_what_helps() -> None:
    found = start_error("/m", ValueError("No available memory for the cache blocks."))
    assert found.code == "out_of_memory"
    assert "lower context_tokens, max_seqs" in found.message
    odd = start_error("/m", RuntimeError("x\nmore"))
    assert odd.message == "vLLM cannot start '/m': RuntimeError: x"


class Window(BaseModel):
    """A configuration, as vLLM's are."""

    tokens: int
    seqs: int


def test_a_start_that_fails_for_an_argument_says_which() -> None:
    with pytest.raises(ValidationError) as caught:
        Window.model_validate({"tokens": "many", "seqs": [1]})
    found = start_error("/m", caught.value)
    assert found.message.startswith(
        "vLLM cannot start '/m': ValidationError: tokens: Input should be a valid "
        "integer"
    )
    assert "; seqs: Input should be a valid integer" in found.message


@pytest.mark.parametrize(
    ("ended", "kind"),
    [("-9", "engine_crashed"), ("-11", "engine_start"), ("1", "engine_start")],
)
def test_a_core_that_was_killed_while_it_started_is_a_crash(
    ended: str, kind: str
) -> None:
    failed = (
        "Engine core initialization failed. See root cause above. "
        f"Failed core proc(s): {{'EngineCore_DP0': {ended}}}"
    )
    assert start_error("/m", RuntimeError(failed)).kind == kind
