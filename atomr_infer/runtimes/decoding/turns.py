"""Requests to what a chat template reads.

Chat templates are written for messages and tools in OpenAI's form, with the
arguments of earlier calls as objects.

Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.asks import Tool, ToolMode
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.parts import (
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

# A chat template knows the roles that its model was trained with; OpenAI's
# "developer" is what models know as "system".
_ROLE = {Role.DEVELOPER: Role.SYSTEM}


def turns_of(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return the messages for a template.

    Raises:
        UnsupportedFeatureError: a part is neither text nor a tool's.
    """
    return [turn for message in messages for turn in _turns(message)]


def _turns(message: Message) -> list[dict[str, Any]]:
    results = [p for p in message.content if isinstance(p, ToolResultPart)]
    if results:
        return [_result(result) for result in results]
    for part in message.content:
        # What the model thought in earlier turns is not shown to it again.
        if not isinstance(part, TextPart | RefusalPart | ReasoningPart | ToolCallPart):
            raise _unreadable(part)
    role = _ROLE.get(message.role, message.role)
    # Templates of text models join strings: a list of parts breaks them.
    turn: dict[str, Any] = {"role": role.value, "content": message.text}
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return [turn]


def _result(result: ToolResultPart) -> dict[str, Any]:
    for part in result.content:
        if not isinstance(part, TextPart):
            raise _unreadable(part)
    turn = {"role": "tool", "tool_call_id": result.call_id, "content": result.text}
    return turn if result.name is None else {**turn, "name": result.name}


def _call(call: ToolCallPart) -> dict[str, Any]:
    try:
        arguments: object = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = call.arguments  # a model wrote it
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _unreadable(part: object) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"this model reads text only, not {type(part).__name__}",
        code="unsupported_parameter",
        param="messages",
    )


def tools_of(batch: ExecuteBatch) -> list[dict[str, Any]]:
    """Return the tools that the model is shown, in OpenAI's form.

    Raises:
        UnsupportedFeatureError: one is no function.
        InvalidRequestError: one's parameters are no JSON.
    """
    choice = batch.tool_choice
    if choice is not None and choice.mode is ToolMode.NONE:
        return []
    tools = []
    for tool in batch.tools:
        if not isinstance(tool, Tool):
            raise UnsupportedFeatureError(
                f"this model has no tool {tool.kind!r}", param="tools"
            )
        function: dict[str, Any] = {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": parameters_of(tool),
        }
        tools.append({"type": "function", "function": function})
    return tools


def parameters_of(tool: Tool) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments.

    Raises:
        InvalidRequestError: it is none.
    """
    if tool.parameters is None:
        return {"type": "object", "properties": {}}
    try:
        return msgspec.json.decode(tool.parameters, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidRequestError(
            f"the parameters of the tool {tool.name!r} are no JSON Schema: {error}",
            param="tools",
        ) from error
