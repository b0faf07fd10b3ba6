"""The providers' own libraries on the fakes, behind one interface.

The fake runs in the test's own trio loop, so a blocking library needs a thread,
and an asyncio one a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anthropic
import attrs
import openai
import trio
from google import genai
from google.genai import types

from atomr_infer.testing import upstream as kit

if TYPE_CHECKING:
    from atomr_infer.testing.upstream import FakeUpstream

T = TypeVar("T")

KEY = "key-0123456789"
PROMPT = "one two three"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "hot": {"type": "boolean"}},
    "required": ["city", "hot"],
    "additionalProperties": False,
}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}

# The libraries leave their own generators to the garbage collector; trio says so.
QUIET = "ignore:Async generator '(openai|anthropic|httpx2|httpcore2):ResourceWarning"


@attrs.frozen(kw_only=True)
class Ask:
    """What a library is told to ask for."""

    stream: bool = False
    tools: bool = False
    thinking: bool = False
    image: bool = False
    schema: bool = False
    max_tokens: int = 1000


@attrs.frozen(kw_only=True)
class Seen:
    """What a library made of the answer."""

    text: str
    reasoning: str
    calls: list[tuple[str, dict[str, Any]]]
    finish: str
    prompt_tokens: int
    output_tokens: int


async def in_thread(use: Callable[[], T]) -> T:
    with trio.fail_after(30):
        return await trio.to_thread.run_sync(use, abandon_on_cancel=True)


async def in_asyncio(use: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        return await use()

    return await in_thread(lambda: asyncio.run(run()))


async def in_trio(use: Callable[[], Awaitable[T]]) -> T:
    with trio.fail_after(30):
        return await use()


# --- Anthropic --------------------------------------------------------------


def anthropic_members(ask: Ask) -> dict[str, Any]:
    content: Any = PROMPT
    if ask.image:
        encoded = base64.b64encode(PNG).decode()
        source = {"type": "base64", "media_type": "image/png", "data": encoded}
        content = [
            {"type": "image", "source": source},
            {"type": "text", "text": PROMPT},
        ]
    members: dict[str, Any] = {
        "model": "claude-opus-4-8",
        "max_tokens": ask.max_tokens,
        "messages": [{"role": "user", "content": content}],
    }
    if ask.tools:
        members["tools"] = [{"name": "get_weather", "input_schema": PARAMETERS}]
    if ask.thinking:
        members["thinking"] = {"type": "adaptive"}
    if ask.schema:
        wanted = {"type": "json_schema", "schema": SCHEMA}
        members["output_config"] = {"format": wanted}
    return members


def anthropic_seen(message: Any) -> Seen:
    blocks: list[Any] = message.content
    return Seen(
        text="".join(b.text for b in blocks if b.type == "text"),
        reasoning="".join(b.thinking for b in blocks if b.type == "thinking"),
        calls=[(b.name, b.input) for b in blocks if b.type == "tool_use"],
        finish=message.stop_reason,
        prompt_tokens=message.usage.input_tokens,
        output_tokens=message.usage.output_tokens,
    )


async def anthropic_sync(url: str, ask: Ask) -> Seen:
    def use() -> Seen:
        with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
            members = anthropic_members(ask)
            if not ask.stream:
                return anthropic_seen(client.messages.create(**members))
            with client.messages.stream(**members) as stream:
                return anthropic_seen(stream.get_final_message())

    return await in_thread(use)


async def _anthropic(url: str, ask: Ask) -> Seen:
    async with anthropic.AsyncAnthropic(
        base_url=url, api_key=KEY, max_retries=0
    ) as client:
        members = anthropic_members(ask)
        if not ask.stream:
            return anthropic_seen(await client.messages.create(**members))
        async with client.messages.stream(**members) as stream:
            return anthropic_seen(await stream.get_final_message())


async def anthropic_asyncio(url: str, ask: Ask) -> Seen:
    return await in_asyncio(lambda: _anthropic(url, ask))


async def anthropic_trio(url: str, ask: Ask) -> Seen:
    return await in_trio(lambda: _anthropic(url, ask))


# --- OpenAI -----------------------------------------------------------------


def chat_members(ask: Ask) -> dict[str, Any]:
    content: Any = PROMPT
    if ask.image:
        url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
        picture = {"type": "image_url", "image_url": {"url": url}}
        content = [picture, {"type": "text", "text": PROMPT}]
    members: dict[str, Any] = {
        "model": "gpt-4o",
        "max_completion_tokens": ask.max_tokens,
        "messages": [{"role": "user", "content": content}],
    }
    if ask.stream:
        members["stream_options"] = {"include_usage": True}
    if ask.tools:
        function = {"name": "get_weather", "parameters": PARAMETERS}
        members["tools"] = [{"type": "function", "function": function}]
    if ask.schema:
        named = {"name": "weather", "schema": SCHEMA, "strict": True}
        members["response_format"] = {"type": "json_schema", "json_schema": named}
    return members


def chat_seen(completion: Any) -> Seen:
    message = completion.choices[0].message
    return Seen(
        text=message.content or "",
        reasoning=getattr(message, "reasoning_content", None) or "",
        calls=[
            (call.function.name, json.loads(call.function.arguments))
            for call in message.tool_calls or ()
        ],
        finish=completion.choices[0].finish_reason,
        prompt_tokens=completion.usage.prompt_tokens,
        output_tokens=completion.usage.completion_tokens,
    )


async def chat_sync(url: str, ask: Ask) -> Seen:
    def use() -> Seen:
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            if not ask.stream:
                return chat_seen(client.chat.completions.create(**chat_members(ask)))
            with client.chat.completions.stream(**chat_members(ask)) as stream:
                return chat_seen(stream.get_final_completion())

    return await in_thread(use)


async def _chat(url: str, ask: Ask) -> Seen:
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        if not ask.stream:
            answer = await client.chat.completions.create(**chat_members(ask))
            return chat_seen(answer)
        async with client.chat.completions.stream(**chat_members(ask)) as stream:
            return chat_seen(await stream.get_final_completion())


async def chat_asyncio(url: str, ask: Ask) -> Seen:
    return await in_asyncio(lambda: _chat(url, ask))


async def chat_trio(url: str, ask: Ask) -> Seen:
    return await in_trio(lambda: _chat(url, ask))


def response_members(ask: Ask) -> dict[str, Any]:
    content: Any = PROMPT
    if ask.image:
        url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
        picture = {"type": "input_image", "image_url": url, "detail": "auto"}
        text = {"type": "input_text", "text": PROMPT}
        content = [{"role": "user", "content": [picture, text]}]
    members: dict[str, Any] = {
        "model": "gpt-4o",
        "max_output_tokens": ask.max_tokens,
        "input": content,
        "reasoning": {"summary": "auto"} if ask.thinking else None,
    }
    if ask.tools:
        function = {"name": "get_weather", "parameters": PARAMETERS, "strict": False}
        members["tools"] = [{"type": "function", **function}]
    if ask.schema:
        wanted = {"type": "json_schema", "name": "weather", "schema": SCHEMA}
        members["text"] = {"format": wanted}
    return members


def response_seen(response: Any) -> Seen:
    items: list[Any] = response.output
    summaries = [s.text for i in items if i.type == "reasoning" for s in i.summary]
    calls = [i for i in items if i.type == "function_call"]
    details = response.incomplete_details
    return Seen(
        text=response.output_text,
        reasoning="".join(summaries),
        calls=[(call.name, json.loads(call.arguments)) for call in calls],
        finish=response.status if details is None else details.reason,
        prompt_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
    )


async def responses_sync(url: str, ask: Ask) -> Seen:
    def use() -> Seen:
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            if not ask.stream:
                return response_seen(client.responses.create(**response_members(ask)))
            with client.responses.stream(**response_members(ask)) as stream:
                return response_seen(stream.get_final_response())

    return await in_thread(use)


async def responses_trio(url: str, ask: Ask) -> Seen:
    async def use() -> Seen:
        async with openai.AsyncOpenAI(
            base_url=url, api_key=KEY, max_retries=0
        ) as client:
            if not ask.stream:
                answer = await client.responses.create(**response_members(ask))
                return response_seen(answer)
            async with client.responses.stream(**response_members(ask)) as stream:
                return response_seen(await stream.get_final_response())

    return await in_trio(use)


# --- Gemini -----------------------------------------------------------------


def gemini_client(url: str) -> genai.Client:
    options = types.HttpOptions(base_url=url)
    return genai.Client(api_key=KEY, http_options=options)


def gemini_members(ask: Ask) -> dict[str, Any]:
    parts = [types.Part(text=PROMPT)]
    if ask.image:
        parts.insert(0, types.Part.from_bytes(data=PNG, mime_type="image/png"))
    config = types.GenerateContentConfig(max_output_tokens=ask.max_tokens)
    if ask.tools:
        function = types.FunctionDeclaration(
            name="get_weather", parameters_json_schema=PARAMETERS
        )
        config.tools = [types.Tool(function_declarations=[function])]
    if ask.thinking:
        config.thinking_config = types.ThinkingConfig(include_thoughts=True)
    if ask.schema:
        config.response_mime_type = "application/json"
        config.response_json_schema = SCHEMA
    return {
        "model": "gemini-2.5-flash",
        "contents": [types.Content(role="user", parts=parts)],
        "config": config,
    }


def gemini_seen(chunks: list[Any]) -> Seen:
    parts = [
        part
        for chunk in chunks
        for candidate in chunk.candidates or ()
        for part in (candidate.content and candidate.content.parts) or ()
    ]
    calls = [part.function_call for part in parts if part.function_call]
    usage = chunks[-1].usage_metadata
    finish = chunks[-1].candidates[0].finish_reason
    return Seen(
        text="".join(p.text for p in parts if p.text and not p.thought),
        reasoning="".join(p.text for p in parts if p.text and p.thought),
        calls=[(call.name, call.args) for call in calls],
        finish=finish.value,
        prompt_tokens=usage.prompt_token_count,
        output_tokens=usage.candidates_token_count + (usage.thoughts_token_count or 0),
    )


async def gemini_sync(url: str, ask: Ask) -> Seen:
    def use() -> Seen:
        with gemini_client(url) as client:
            members = gemini_members(ask)
            if not ask.stream:
                return gemini_seen([client.models.generate_content(**members)])
            return gemini_seen(list(client.models.generate_content_stream(**members)))

    return await in_thread(use)


async def gemini_asyncio(url: str, ask: Ask) -> Seen:
    async def use() -> Seen:
        async with gemini_client(url).aio as client:
            members = gemini_members(ask)
            if not ask.stream:
                return gemini_seen([await client.models.generate_content(**members)])
            stream = await client.models.generate_content_stream(**members)
            return gemini_seen([chunk async for chunk in stream])

    return await in_asyncio(use)


# --- all of them ------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Library:
    """A library in one of its shapes, and the fake that it talks to.

    Attributes:
        name: dialect, route and shape.
        ask: asks a fake, and returns what the library saw.
        open: opens the fake.
        ends: the word for an answer that ended by itself, by calls, by length.
    """

    name: str
    ask: Callable[[str, Ask], Awaitable[Seen]]
    open: Callable[..., Any]
    ends: tuple[str, str, str]

    async def ask_fake(self, fake: FakeUpstream, ask: Ask) -> Seen:
        return await self.ask(fake.base_url, ask)


_ANTHROPIC = ("end_turn", "tool_use", "max_tokens")
_CHAT = ("stop", "tool_calls", "length")
_RESPONSES = ("completed", "completed", "max_output_tokens")
_GEMINI = ("STOP", "STOP", "MAX_TOKENS")

LIBRARIES = [
    Library(name=name, ask=ask, open=fake, ends=ends)
    for name, ask, fake, ends in (
        ("anthropic-sync", anthropic_sync, kit.open_anthropic_upstream, _ANTHROPIC),
        (
            "anthropic-asyncio",
            anthropic_asyncio,
            kit.open_anthropic_upstream,
            _ANTHROPIC,
        ),
        ("anthropic-trio", anthropic_trio, kit.open_anthropic_upstream, _ANTHROPIC),
        ("openai-sync", chat_sync, kit.open_openai_upstream, _CHAT),
        ("openai-asyncio", chat_asyncio, kit.open_openai_upstream, _CHAT),
        ("openai-trio", chat_trio, kit.open_openai_upstream, _CHAT),
        ("litellm-sync", chat_sync, kit.open_litellm_upstream, _CHAT),
        ("responses-sync", responses_sync, kit.open_openai_upstream, _RESPONSES),
        ("responses-trio", responses_trio, kit.open_openai_upstream, _RESPONSES),
        ("gemini-sync", gemini_sync, kit.open_gemini_upstream, _GEMINI),
        ("gemini-asyncio", gemini_asyncio, kit.open_gemini_upstream, _GEMINI),
    )
]
