"""Custom tools and namespaces of the Responses API are functions elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.asks import RawTool, Tool, ToolChoice, ToolMode
from atomr_infer.model.batch import FinishReason, TokenChunk, ToolCallDelta
from atomr_infer.model.parts import TextPart, ToolCallPart, ToolResultPart
from tests.wire.test_responses import ask, stream, whole

FREE_TEXT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
PATCH = {"type": "custom", "name": "patch", "description": "Edits files."}
CLOSE = {"type": "function", "name": "close", "parameters": {"type": "object"}}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "description": "Others.",
    "tools": [CLOSE, PATCH],
}


def calls(*deltas: ToolCallDelta) -> tuple[TokenChunk, ...]:
    said = [TokenChunk(tool_calls=(delta,)) for delta in deltas]
    return (*said, TokenChunk(finish_reason=FinishReason.TOOL_CALLS))


def tools_of(*tools: Any) -> tuple[Tool | RawTool, ...]:
    return ask(tools=list(tools)).batch.tools


def test_a_custom_tool_becomes_a_function_that_takes_one_text() -> None:
    asked = ask(tools=[CLOSE, PATCH])
    tool = asked.batch.tools[1]
    assert isinstance(tool, Tool)
    assert (tool.name, tool.description) == ("patch", "Edits files.")
    assert json.loads(tool.parameters or b"") == FREE_TEXT
    assert asked.warnings == ("tools[1] became a function that takes one text",)


@pytest.mark.parametrize(
    ("said", "description"),
    [
        ({}, None),
        ({"format": {"type": "text"}}, None),
        ({"description": "Edits."}, "Edits."),
        (
            {"format": {"type": "grammar", "syntax": "lark", "definition": "s: A"}},
            "`input` is text of this lark grammar:\ns: A",
        ),
        (
            {
                "description": "Edits.",
                "format": {"type": "grammar", "syntax": "regex", "definition": "a+"},
            },
            "Edits.\n\n`input` is text of this regex grammar:\na+",
        ),
    ],
)
def test_a_model_reads_the_grammar_of_a_custom_tool(
    said: dict[str, Any], description: str | None
) -> None:
    (tool,) = tools_of({"type": "custom", "name": "patch", **said})
    assert isinstance(tool, Tool)
    assert tool.description == description


def test_a_namespaces_functions_are_named_by_both_names() -> None:
    close, patch = tools_of(AGENTS)
    assert close == Tool(name="agents__close", parameters=b'{"type": "object"}')
    assert isinstance(patch, Tool)
    assert patch.name == "agents__patch"


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "custom"}, "tools[0].name"),
        ({"type": "namespace", "tools": []}, "tools[0].name"),
        ({**AGENTS, "tools": "x"}, "tools[0].tools"),
        ({**AGENTS, "tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
    ],
)
def test_a_mistake_in_a_tool_is_named_by_its_place(tool: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        ask(tools=[tool])
    assert raised.value.param == param


def test_a_namespace_in_a_namespace_is_a_tool_that_nobody_knows() -> None:
    (tool,) = tools_of({"type": "namespace", "name": "outer", "tools": [AGENTS]})
    assert isinstance(tool, RawTool)
    assert tool.kind == "namespace"


def test_a_custom_tool_can_be_the_one_to_call() -> None:
    asked = ask(tools=[PATCH], tool_choice={"type": "custom", "name": "patch"})
    expected = ToolChoice(mode=ToolMode.REQUIRED, names=("patch",))
    assert asked.batch.tool_choice == expected


def test_earlier_calls_have_the_functions_form_again() -> None:
    asked = ask(
        tools=[PATCH, AGENTS],
        input=[
            {
                "type": "custom_tool_call",
                "call_id": "a",
                "name": "patch",
                "input": 'say "x"\n',
            },
            {
                "type": "function_call",
                "call_id": "b",
                "name": "close",
                "namespace": "agents",
                "arguments": "{}",
            },
            {"type": "custom_tool_call_output", "call_id": "a", "output": "done"},
            {"type": "function_call_output", "call_id": "b", "output": "gone"},
        ],
    )
    asking, answering = asked.batch.messages
    assert asking.content == (
        ToolCallPart(id="a", name="patch", arguments='{"input":"say \\"x\\"\\n"}'),
        ToolCallPart(id="b", name="agents__close", arguments="{}"),
    )
    assert answering.content == (
        ToolResultPart(call_id="a", content=(TextPart("done"),)),
        ToolResultPart(call_id="b", content=(TextPart("gone"),)),
    )


def test_calls_come_back_in_the_clients_form_streamed_and_whole() -> None:
    chunks = calls(
        ToolCallDelta(index=0, id="a", name="patch", arguments='{"input": "+'),
        ToolCallDelta(index=1, id="b", name="agents__close", arguments="{}"),
        ToolCallDelta(index=2, id="c", name="agents__patch"),
        ToolCallDelta(index=0, arguments='\\n"}'),
        ToolCallDelta(index=2, arguments='{"input": "-"}'),
    )
    asked: dict[str, Any] = {"tools": [PATCH, AGENTS]}
    events = stream(*chunks, **asked)
    output = events[-1]["response"]["output"]
    own = [{k: v for k, v in item.items() if k != "id"} for item in output]
    custom = {"type": "custom_tool_call", "status": "completed", "name": "patch"}
    assert own == [
        {**custom, "call_id": "a", "input": "+\n"},
        {
            "type": "function_call",
            "status": "completed",
            "call_id": "b",
            "name": "close",
            "namespace": "agents",
            "arguments": "{}",
        },
        {**custom, "call_id": "c", "namespace": "agents", "input": "-"},
    ]
    assert [item["id"] for item in output] == ["ctc_1_0", "fc_1_1", "ctc_1_2"]
    assert whole(*chunks, stream=True, **asked)["output"] == output
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[2:-1] == [
        "output_item.added",
        "output_item.added",
        "function_call_arguments.delta",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]


@pytest.mark.parametrize(
    "arguments",
    ["*** Begin", '{"input": 5}', '{"patch": "x"}', '{"input": "a", "more": 1}', "[]"],
)
def test_what_is_not_the_one_text_is_given_to_the_tool_as_it_is(arguments: str) -> None:
    chunks = calls(ToolCallDelta(index=0, id="a", name="patch", arguments=arguments))
    (item,) = whole(*chunks, tools=[PATCH])["output"]
    assert item["input"] == arguments
