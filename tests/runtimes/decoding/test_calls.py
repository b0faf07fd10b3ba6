"""Calls are found in text, however it is cut; the rest is told as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import EngineError, InvalidRequestError
from atomr_infer.model.asks import Tool, ToolChoice, ToolMode
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Sampling,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.runtimes.decoding.calls import (
    ForcedCalls,
    FoundCalls,
    Reader,
    with_calls,
)
from atomr_infer.runtimes.decoding.tools import Forced, naming_tools, without_stops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STOP = FinishReason.STOP
LOOK = Tool(name="look")
FORM = "response_format"
ONE = '<tool_call>\n{"name": "look", "arguments": {"at": "<b>é"}}\n</tool_call>'
TWO = f'Hm <t {ONE}\n{ONE}<tool_call>{{"name": "go"}}</tool_call> so.'


def read(
    reader: Reader, text: str, size: int, reason: FinishReason = STOP
) -> tuple[str, list[ToolCallDelta]]:
    said = ""
    calls: list[ToolCallDelta] = []
    for at in range(0, len(text), size):
        told, found = reader.push(text[at : at + size])
        said += told
        calls += found
    told, found = reader.end(reason)
    return said + told, [*calls, *found]


def look(number: int) -> ToolCallDelta:
    return ToolCallDelta(
        index=number, id=f"c-{number}", name="look", arguments='{"at": "<b>é"}'
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12, 1000])
def test_calls_are_found_however_the_text_is_cut(size: int) -> None:
    said, calls = read(FoundCalls("c"), TWO, size)
    assert said == "Hm <t \n so."
    go = ToolCallDelta(index=2, id="c-2", name="go", arguments="{}")
    assert calls == [look(0), look(1), go]


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "no call <tool_cal",
        "<tool_call>no JSON</tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>["name"]</tool_call> and on',
        '<tool_call>{"name": "look", "argum',
    ],
)
def test_what_is_no_call_is_told_as_it_is(text: str, size: int) -> None:
    assert read(FoundCalls("c"), text, size) == (text, [])


def test_a_call_that_is_nested_too_deeply_to_be_read_is_told_as_it_is() -> None:
    deep = "[" * 5000 + "]" * 5000
    text = f'<tool_call>{{"name": "look", "arguments": {deep}}}</tool_call>'
    assert read(FoundCalls("c"), text, 1000) == (text, [])
    with pytest.raises(EngineError, match="not the tool calls"):
        read(ForcedCalls("c", None), deep, 1000)


def test_a_call_that_its_model_did_not_close_is_one() -> None:
    text = ONE.removesuffix("</tool_call>")
    assert read(FoundCalls("c"), text, 3) == ("", [look(0)])


def test_of_one_call_at_a_time_the_others_are_left_out() -> None:
    said, calls = read(FoundCalls("c", most=1), ONE + ONE + " so", 4)
    assert (said, calls) == (" so", [look(0)])


def test_arguments_that_were_forced_are_passed_on_as_they_come() -> None:
    reader = ForcedCalls("c", "look")
    assert reader.push(' {"at') == (
        "",
        (ToolCallDelta(id="c-0", name="look", arguments='{"at'),),
    )
    assert reader.push('": 1}') == ("", (ToolCallDelta(arguments='": 1}'),))
    assert reader.end(STOP) == ("", ())


def test_an_array_of_calls_is_read_when_it_is_whole() -> None:
    text = '[{"name": "look", "parameters": {"at": 1}}]'
    call = ToolCallDelta(id="c-0", name="look", arguments='{"at": 1}')
    assert read(ForcedCalls("c", None), text, 5) == ("", [call])
    assert read(ForcedCalls("c", None), text[:9], 5, FinishReason.LENGTH) == ("", [])
    with pytest.raises(EngineError, match="not the tool calls"):
        read(ForcedCalls("c", None), "[1]", 5)


async def chunks(*texts: str, index: int = 0) -> AsyncIterator[TokenChunk]:
    for text in texts:
        yield TokenChunk(text=text, index=index)
    yield TokenChunk(finish_reason=STOP, index=index)
    yield TokenChunk(usage=Usage(output_text=3))


def ask(*tools: Tool, tool_choice: ToolChoice | None = None) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r", model="m", messages=(), tools=tools, tool_choice=tool_choice
    )


async def test_an_answer_with_calls_ends_with_them() -> None:
    stream = with_calls(chunks("So: ", ONE[:20], ONE[20:]), ask(LOOK), None)
    found = [chunk async for chunk in stream]
    call = ToolCallDelta(id="call-r-0-0", name="look", arguments='{"at": "<b>é"}')
    assert found == [
        TokenChunk(text="So: "),
        TokenChunk(tool_calls=(call,)),
        TokenChunk(finish_reason=FinishReason.TOOL_CALLS),
        TokenChunk(usage=Usage(output_text=3)),
    ]


async def test_an_answer_without_calls_is_what_it_was() -> None:
    stream = with_calls(chunks("a <", "b", " <tool"), ask(LOOK), None)
    found = [chunk async for chunk in stream]
    assert "".join(chunk.text for chunk in found) == "a <b <tool"
    assert found[-2].finish_reason is STOP


async def test_forced_calls_end_as_calls() -> None:
    forced = Forced(schema={}, name="look")
    stream = with_calls(chunks('{"at"', ": 1}", index=1), ask(LOOK), forced)
    found = [chunk async for chunk in stream]
    assert [c.tool_calls[0].arguments for c in found[:2]] == ['{"at"', ": 1}"]
    assert found[0].tool_calls[0].id == "call-r-1-0"
    assert [c.finish_reason for c in found] == [
        None,
        None,
        FinishReason.TOOL_CALLS,
        None,
    ]


async def test_without_tools_nothing_is_looked_for() -> None:
    source = chunks(ONE)
    assert with_calls(source, ask(), None) is source
    none = ToolChoice(mode=ToolMode.NONE)
    assert with_calls(source, ask(LOOK, tool_choice=none), None) is source


async def with_logprobs(*texts: str) -> AsyncIterator[TokenChunk]:
    for text in texts:
        told = json.dumps({"content": [{"token": text}], "refusal": None}).encode()
        yield TokenChunk(text=text, logprobs=told)
    yield TokenChunk(finish_reason=STOP)


async def told_with_logprobs(*texts: str) -> list[tuple[str, list[str]]]:
    """Return each chunk's text, and the tokens that its logprobs are of."""
    found = []
    async for chunk in with_calls(with_logprobs(*texts), ask(LOOK), None):
        told = json.loads(bytes(chunk.logprobs or b'{"content": []}'))
        found.append((chunk.text, [each["token"] for each in told["content"]]))
    return found


async def test_logprobs_of_what_was_held_back_come_with_it() -> None:
    assert await told_with_logprobs("a ", "<", "to", "b", " ok") == [
        ("a ", ["a "]),
        ("<tob", ["<", "to", "b"]),
        (" ok", [" ok"]),
        ("", []),
    ]
    assert await told_with_logprobs("a", "<", "tool") == [
        ("a", ["a"]),
        ("<tool", ["<", "tool"]),
    ]


async def test_logprobs_of_a_call_come_with_it() -> None:
    assert await told_with_logprobs(ONE[:20], ONE[20:50], ONE[50:], ".") == [
        ("", [ONE[:20], ONE[20:50], ONE[50:]]),
        (".", ["."]),
        ("", []),
    ]


async def test_logprobs_of_half_a_character_come_with_the_other_half() -> None:
    async def halves() -> AsyncIterator[TokenChunk]:
        async for chunk in with_logprobs("x", "é"):
            yield attrs.evolve(chunk, text=chunk.text.replace("x", ""))

    found = [chunk async for chunk in with_calls(halves(), ask(LOOK), None)]
    assert [chunk.text for chunk in found] == ["é", ""]
    assert json.loads(bytes(found[0].logprobs or b"")) == {
        "content": [{"token": "x"}, {"token": "é"}],
        "refusal": None,
    }


def test_stop_strings_do_not_cut_what_must_be_calls() -> None:
    batch = attrs.evolve(ask(LOOK), sampling=Sampling(stop=(",",), max_tokens=9))
    assert without_stops(batch, None) is batch
    uncut = without_stops(batch, Forced(schema={}, name=None))
    assert uncut.sampling == Sampling(max_tokens=9)


def test_a_refused_schema_of_tools_names_the_tools() -> None:
    for forced, param in ((Forced(schema={}, name=None), "tools"), (None, FORM)):
        with pytest.raises(InvalidRequestError) as caught, naming_tools(forced):
            raise InvalidRequestError("no", param=FORM)
        assert caught.value.param == param
    with (
        pytest.raises(InvalidRequestError) as caught,
        naming_tools(Forced(schema={}, name=None)),
    ):
        raise InvalidRequestError("no", param="top_k")
    assert caught.value.param == "top_k"
