"""What a library got from a fake, it may send back: an agent's loop of tools."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from atomr_infer.testing import upstream as kit
from atomr_infer.testing import upstream_script as script
from tests.testing_kit.sdks import KEY, PARAMETERS, QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)

ASKED = "How is it in Paris and Oslo?"
CALLING = script.Happy(
    reasoning=("Two ", "cities."),
    text="Looking.",
    tool_calls=(
        script.ToolCall(),
        script.ToolCall(arguments=('{"city":"Oslo"}',)),
    ),
)
DONE = script.Happy(text="Warm.")


def anthropic_turn(messages: list[Any]) -> dict[str, Any]:
    return {
        "model": "claude-opus-4-8",
        "max_tokens": 99,
        "messages": messages,
        "tools": [{"name": "get_weather", "input_schema": PARAMETERS}],
        "thinking": {"type": "adaptive"},
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_blocks_come_back(stream: bool) -> None:
    async with (
        kit.open_anthropic_upstream([CALLING, DONE], api_key=KEY) as fake,
        anthropic.AsyncAnthropic(
            base_url=fake.base_url, api_key=KEY, max_retries=0
        ) as client,
    ):
        messages: list[Any] = [{"role": "user", "content": ASKED}]
        if stream:
            async with client.messages.stream(**anthropic_turn(messages)) as events:
                first = await events.get_final_message()
        else:
            first = await client.messages.create(**anthropic_turn(messages))
        # What a stream is parsed into has members of the library's own.
        content = [
            {k: v for k, v in block.to_dict().items() if k != "parsed_output"}
            for block in first.content
        ]
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "warm"}
            for block in content
            if block["type"] == "tool_use"
        ]
        messages += [
            {"role": "assistant", "content": content},
            {"role": "user", "content": results},
        ]
        second = await client.messages.create(**anthropic_turn(messages))
        assert [block.type for block in second.content] == ["text"]
        content[0]["thinking"] = "Something else."
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
            await client.messages.create(**anthropic_turn(messages))


async def test_chats_calls_come_back() -> None:
    function = {"name": "get_weather", "parameters": PARAMETERS}
    tools: Any = [{"type": "function", "function": function}]
    async with (
        kit.open_openai_upstream([CALLING, DONE], api_key=KEY) as fake,
        openai.AsyncOpenAI(
            base_url=fake.base_url, api_key=KEY, max_retries=0
        ) as client,
    ):
        messages: list[Any] = [{"role": "user", "content": ASKED}]
        first = await client.chat.completions.create(
            model="gpt-4o", messages=messages, tools=tools
        )
        message = first.choices[0].message
        assert message.tool_calls is not None
        messages.append(message.to_dict())
        for call in message.tool_calls:
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "content": "warm"}
            )
        second = await client.chat.completions.create(
            model="gpt-4o", messages=messages, tools=tools
        )
        assert second.choices[0].message.content == "Warm."
        with pytest.raises(openai.BadRequestError, match="call_fake_1"):
            await client.chat.completions.create(
                model="gpt-4o", messages=messages[:-1], tools=tools
            )


async def test_responses_items_come_back() -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
    asked: dict[str, Any] = {
        "model": "gpt-4o",
        "tools": [{**tool, "strict": False}],
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    async with (
        kit.open_openai_upstream([CALLING, DONE], api_key=KEY) as fake,
        openai.AsyncOpenAI(
            base_url=fake.base_url, api_key=KEY, max_retries=0
        ) as client,
    ):
        first = await client.responses.create(input=ASKED, **asked)
        items: list[Any] = [{"role": "user", "content": ASKED}]
        items += [item.to_dict() for item in first.output]
        items += [
            {"type": "function_call_output", "call_id": item.call_id, "output": "warm"}
            for item in first.output
            if item.type == "function_call"
        ]
        second = await client.responses.create(input=items, **asked)
        assert second.output_text == "Warm."
        items[1]["encrypted_content"] = "gAAAAforged"
        with pytest.raises(openai.BadRequestError, match="could not be verified"):
            await client.responses.create(input=items, **asked)
