"""An agent's loop of tools, from each library to each provider.

What the model thought and signed must come back on the same part, whatever the
client can carry: the fakes refuse a signature that was lost or moved.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anthropic
import attrs
import openai
import pytest
import trio
from google import genai
from google.genai import types

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from atomr_infer.testing import upstream as kit
from atomr_infer.testing import upstream_script as script
from tests.testing_kit.sdks import PARAMETERS, QUIET, in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.testing.upstream import FakeUpstream

pytestmark = pytest.mark.filterwarnings(QUIET)

KEY = "sk-loop-0123456789"
ASKED = "How is it in Paris and Oslo?"
CALLING = script.Happy(
    reasoning=("Two ", "cities."),
    text="Looking.",
    tool_calls=(script.ToolCall(), script.ToolCall(arguments=('{"city":"Oslo"}',))),
)
DONE = script.Happy(text="Warm.")


@attrs.frozen
class Provider:
    """A runtime, a model that it is asked for, and the fake behind it."""

    runtime: str
    model: str
    open: Callable[..., Any]


PROVIDERS = [
    Provider("openai", "gpt-4o", kit.open_openai_upstream),
    Provider("anthropic", "claude-opus-4-8", kit.open_anthropic_upstream),
    Provider("gemini", "gemini-3-pro", kit.open_gemini_upstream),
    Provider("litellm", "gpt-4o", kit.open_litellm_upstream),
]
each_provider = pytest.mark.parametrize(
    "provider", PROVIDERS, ids=lambda provider: provider.runtime
)
streamed_or_not = pytest.mark.parametrize(
    "stream", [False, True], ids=["whole", "stream"]
)


@asynccontextmanager
async def gateway(provider: Provider) -> AsyncIterator[tuple[str, FakeUpstream]]:
    """Serve the provider's fake under the name m; yields the gateway's address."""
    async with (
        provider.open([CALLING, DONE], api_key=KEY) as fake,
        Cluster.connect("inproc://loops") as cluster,
    ):
        await cluster.deploy(
            Deployment(
                name="m",
                runtime=provider.runtime,
                model=provider.model,
                credential=Secret(KEY),
                options={"endpoint": fake.base_url},
            )
        )
        with trio.fail_after(30):
            yield (await cluster.serve("127.0.0.1:0")).url, fake
        refused = [request.body for request in fake.requests if request.call is None]
        assert refused == []
        assert len(fake.requests) == 2


@streamed_or_not
@each_provider
async def test_chat_completions(provider: Provider, stream: bool) -> None:
    tool = {"name": "get_weather", "parameters": PARAMETERS}
    asked: dict[str, Any] = {
        "model": "m",
        "tools": [{"type": "function", "function": tool}],
        "reasoning_effort": "low",
    }
    if provider.model == "gpt-4o":
        del asked["reasoning_effort"]
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    async with (
        gateway(provider) as (url, _),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        if stream:
            async with client.chat.completions.stream(
                messages=messages, **asked
            ) as events:
                first: Any = await events.get_final_completion()
        else:
            first = await client.chat.completions.create(messages=messages, **asked)
        # As most clients do it: what they do not know stays behind.
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": call.function.arguments,
                },
            }
            for call in first.choices[0].message.tool_calls
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        for call in calls:
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": "warm"}
            )
        second = await client.chat.completions.create(messages=messages, **asked)
        assert second.choices[0].message.content == "Warm."


@streamed_or_not
@each_provider
async def test_responses(provider: Provider, stream: bool) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
    asked: dict[str, Any] = {
        "model": "m",
        "tools": [{**tool, "strict": False}],
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    async with (
        gateway(provider) as (url, _),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        if stream:
            async with client.responses.stream(input=ASKED, **asked) as events:
                first: Any = await events.get_final_response()
        else:
            first = await client.responses.create(input=ASKED, **asked)
        items: list[Any] = [{"role": "user", "content": ASKED}]
        items += [_sent_back(item.to_dict()) for item in first.output]
        items += [
            {"type": "function_call_output", "call_id": item.call_id, "output": "warm"}
            for item in first.output
            if item.type == "function_call"
        ]
        second = await client.responses.create(input=items, **asked)
        assert second.output_text == "Warm."


def _sent_back(item: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in item.items() if v is not None}
    kept.pop("parsed_arguments", None)
    return kept


@streamed_or_not
@each_provider
async def test_messages(provider: Provider, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "max_tokens": 2000,
        "tools": [{"name": "get_weather", "input_schema": PARAMETERS}],
        "thinking": {"type": "adaptive"},
    }
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    async with (
        gateway(provider) as (url, _),
        anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as client,
    ):
        if stream:
            async with client.messages.stream(messages=messages, **asked) as events:
                first: Any = await events.get_final_message()
        else:
            first = await client.messages.create(messages=messages, **asked)
        content = [
            {k: v for k, v in block.to_dict().items() if k != "parsed_output"}
            for block in first.content
        ]
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "warm"}
            for block in content
            if block["type"] == "tool_use"
        ]
        assert len(results) == 2
        messages += [
            {"role": "assistant", "content": content},
            {"role": "user", "content": results},
        ]
        second = await client.messages.create(messages=messages, **asked)
        assert "".join(b.text for b in second.content if b.type == "text") == "Warm."


@each_provider
async def test_generate_content(provider: Provider) -> None:
    cities: list[str] = []

    def get_weather(city: str) -> str:
        """Say how it is in a city."""
        cities.append(city)
        return "warm"

    async with gateway(provider) as (url, _):

        def use() -> str | None:
            options = types.HttpOptions(base_url=url)
            with genai.Client(api_key="x", http_options=options) as client:
                config = types.GenerateContentConfig(tools=[get_weather])
                chat = client.chats.create(model="m", config=config)
                return chat.send_message(ASKED).text

        assert await in_thread(use) == "Warm."
    assert cities == ["Paris", "Oslo"]
