"""The mock reasons, calls tools, declines and answers in JSON, as its script says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer.errors import ConfigError, UnsupportedFeatureError
from atomr_infer.model.asks import (
    FormatKind,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    ReasoningDelta,
    Role,
    Sampling,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.capabilities import Feature, check_request
from atomr_infer.model.parts import ToolCallPart, ToolResultPart
from atomr_infer.testing.mock import MockRunner
from atomr_infer.testing.mock_script import MockCall, MockScript, script_from_options

if TYPE_CHECKING:
    from atomr_infer.model.deployment import OptionValue

ASK = ExecuteBatch(
    request_id="r-1", model="m", messages=(Message(Role.USER, "how is it"),)
)
WEATHER = MockCall(name="weather", arguments='{"city": "Paris"}')
TIME = MockCall(name="time")
CALLING = MockScript(tool_calls=(WEATHER, TIME))
OFFERED = attrs.evolve(ASK, tools=(Tool(name="weather"), Tool(name="time")))


async def collect(script: MockScript, batch: ExecuteBatch) -> list[TokenChunk]:
    async with MockRunner(script).execute(batch) as chunks:
        return [chunk async for chunk in chunks]


async def test_it_thinks_first_and_bills_it_as_reasoning() -> None:
    chunks = await collect(MockScript(reply="warm", reasoning="let me see"), ASK)
    assert chunks == [
        TokenChunk(reasoning=ReasoningDelta(text="let")),
        TokenChunk(reasoning=ReasoningDelta(text=" me")),
        TokenChunk(reasoning=ReasoningDelta(text=" see")),
        TokenChunk(text="warm"),
        TokenChunk(finish_reason=FinishReason.STOP),
        TokenChunk(usage=Usage(input_uncached=3, output_text=1, reasoning=3)),
    ]


async def test_it_calls_tools_in_parallel_and_in_pieces() -> None:
    chunks = await collect(CALLING, OFFERED)
    assert chunks == [
        TokenChunk(tool_calls=(ToolCallDelta(index=0, id="call_0", name="weather"),)),
        TokenChunk(tool_calls=(ToolCallDelta(index=0, arguments='{"city":'),)),
        TokenChunk(tool_calls=(ToolCallDelta(index=0, arguments=' "Paris"}'),)),
        TokenChunk(tool_calls=(ToolCallDelta(index=1, id="call_1", name="time"),)),
        TokenChunk(tool_calls=(ToolCallDelta(index=1, arguments="{}"),)),
        TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
        TokenChunk(usage=Usage(input_uncached=3, output_text=5)),
    ]


async def called(script: MockScript, batch: ExecuteBatch) -> list[str | None]:
    chunks = await collect(script, batch)
    return [call.name for c in chunks for call in c.tool_calls if call.name]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["weather", "time"]),
        ({"tools": (Tool(name="time"),)}, ["time"]),
        ({"tools": ()}, []),
        ({"parallel_tool_calls": False}, ["weather"]),
        ({"tool_choice": ToolChoice(mode=ToolMode.NONE)}, []),
        (
            {"tool_choice": ToolChoice(mode=ToolMode.REQUIRED, names=("time",))},
            ["time"],
        ),
    ],
)
async def test_it_calls_what_the_request_allows(
    changes: dict[str, Any], names: list[str]
) -> None:
    assert await called(CALLING, attrs.evolve(OFFERED, **changes)) == names


async def test_it_answers_once_the_tools_have() -> None:
    result = Message(Role.TOOL, (ToolResultPart(call_id="call_0"),))
    asked = Message(
        Role.ASSISTANT, (ToolCallPart(id="call_0", name="time", arguments=""),)
    )
    batch = attrs.evolve(OFFERED, messages=(*ASK.messages, asked, result))
    chunks = await collect(CALLING, batch)
    assert "".join(chunk.text for chunk in chunks) == "how is it"


async def test_answer_that_is_cut_calls_nothing() -> None:
    script = attrs.evolve(CALLING, reply="a b c")
    batch = attrs.evolve(OFFERED, sampling=Sampling(max_tokens=2))
    assert await called(script, batch) == []


async def test_it_declines() -> None:
    chunks = await collect(MockScript(refusal="I will not"), ASK)
    assert [chunk.refusal for chunk in chunks[:3]] == ["I", " will", " not"]
    assert chunks[3].finish_reason is FinishReason.CONTENT_FILTER


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (ResponseFormat(kind=FormatKind.JSON_OBJECT), "{}"),
        (
            ResponseFormat(
                kind=FormatKind.JSON_SCHEMA,
                schema=b'{"type":"object","properties":{"hot":{"type":"boolean"}}}',
            ),
            '{"hot":true}',
        ),
        (ResponseFormat(), "how is it"),
    ],
)
async def test_it_answers_with_json_of_the_schema(
    wanted: ResponseFormat, text: str
) -> None:
    batch = attrs.evolve(ASK, response_format=wanted)
    chunks = await collect(MockScript(json=True), batch)
    assert "".join(chunk.text for chunk in chunks) == text


async def test_several_answers_think_and_call_apart() -> None:
    batch = attrs.evolve(OFFERED, sampling=Sampling(n=2))
    chunks = await collect(attrs.evolve(CALLING, reasoning="hm"), batch)
    assert [chunk.index for chunk in chunks[:4]] == [0, 1, 0, 1]
    assert chunks[-1].usage == Usage(input_uncached=3, output_text=10, reasoning=2)


async def test_thoughts_and_arguments_are_tokens_that_it_can_hang_after() -> None:
    script = attrs.evolve(CALLING, reasoning="a b", fail_after=3)
    runner = MockRunner(script)
    seen = []
    with pytest.raises(type(script.error())):
        async with runner.execute(OFFERED) as chunks:
            async for chunk in chunks:
                seen.append(chunk)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("script", "features"),
    [
        (MockScript(), set()),
        (CALLING, {Feature.TOOLS, Feature.PARALLEL_TOOLS}),
        (MockScript(reasoning=""), {Feature.REASONING}),
        (MockScript(json=True), {Feature.JSON_OBJECT, Feature.STRUCTURED_OUTPUT}),
    ],
)
def test_it_says_what_its_script_can_do(
    script: MockScript, features: set[Feature]
) -> None:
    capabilities = MockRunner(script).capabilities
    assert capabilities.features == {Feature.CHAT, *features}
    if Feature.TOOLS not in features:
        with pytest.raises(UnsupportedFeatureError):
            check_request(OFFERED, capabilities)


def test_options_are_read_back() -> None:
    script = MockScript(reasoning="x", tool_calls=(WEATHER,), refusal="no", json=True)
    assert script.options() == {
        "reasoning": "x",
        "tool_calls": [{"name": "weather", "arguments": '{"city": "Paris"}'}],
        "refusal": "no",
        "json": True,
    }
    assert script_from_options(script.options()) == script


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"json": 1}, "json: 1 is neither true nor false"),
        ({"reasoning": 1}, "reasoning: 1 is not a string"),
        (
            {"tool_calls": ["f"]},
            "option tool_calls[0]: 'f' is no table with name and arguments",
        ),
        (
            {"tool_calls": [{"name": "f"}, {"nam": "f"}]},
            "tool_calls[1]: {'nam': 'f'} is no table with name and arguments",
        ),
        ({"tool_calls": [{"name": 1}]}, "tool_calls[0].name: 1 is not a string"),
        (
            {"tool_calls": [{"name": "f", "arguments": 7}]},
            "tool_calls[0].arguments: 7 is neither a table nor JSON text; write "
            """{ city = "Paris" } or '{"city": "Paris"}'""",
        ),
        (
            {"tool_calls": [{"name": "f", "arguments": {"at": b"x"}}]},
            "tool_calls[0].arguments: {'at': b'x'} holds what JSON cannot say",
        ),
        ({"tool_calls": 5}, "tool_calls: 5 is no list of tables"),
    ],
)
def test_wrong_option_is_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        script_from_options(options)


def test_the_arguments_of_a_call_may_be_a_table() -> None:
    asked: dict[str, OptionValue] = {
        "city": "Paris",
        "days": [1, 2],
        "exact": {"yes": True},
    }
    script = script_from_options(
        {"tool_calls": [{"name": "weather", "arguments": asked}, {"name": "time"}]}
    )

    assert script.tool_calls == (
        MockCall(
            name="weather",
            arguments='{"city": "Paris", "days": [1, 2], "exact": {"yes": true}}',
        ),
        TIME,
    )
    assert script_from_options(script.options()) == script
