"""What else a provider's library asks for: models, counts, vectors, Azure, Vertex."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anthropic
import google.oauth2.credentials
import openai
import pytest
import trio
from google import genai
from google.genai import types

from atomr_infer.testing import upstream as kit
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstreams.embeddings import embed
from tests.testing_kit.sdks import KEY, QUIET, gemini_client, in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.filterwarnings(QUIET)

HI: Any = [{"role": "user", "content": "one two"}]


async def test_openai_lists_models_and_embeds() -> None:
    async with (
        kit.open_openai_upstream(api_key=KEY) as fake,
        openai.AsyncOpenAI(base_url=fake.base_url, api_key=KEY) as client,
    ):
        assert [model.id async for model in client.models.list()] == ["fake-model"]
        assert (await client.models.retrieve("fake-model")).owned_by == "fake"
        made = await client.embeddings.create(
            model="m", input=["one two", "three"], dimensions=4
        )
    for data, text in zip(made.data, ["one two", "three"], strict=True):
        assert data.embedding == pytest.approx(embed(text, 4), abs=1e-6)
    assert made.usage.prompt_tokens == 3


async def test_openai_completes_and_streams_completions() -> None:
    async with (
        kit.open_openai_upstream(api_key=KEY) as fake,
        openai.AsyncOpenAI(base_url=fake.base_url, api_key=KEY) as client,
    ):
        whole = await client.completions.create(model="m", prompt="a b", logprobs=1)
        stream = await client.completions.create(
            model="m", prompt="a b", stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].text == "Hello from the fake upstream."
    assert "".join(c.choices[0].text for c in chunks[:-1]) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage


async def test_azures_client_is_served_by_deployment() -> None:
    async with kit.open_openai_upstream(api_key=KEY) as fake:

        def use() -> Any:
            with openai.AzureOpenAI(
                azure_endpoint=fake.origin, api_key=KEY, api_version="2024-10-21"
            ) as client:
                whole = client.chat.completions.create(model="mine", messages=HI)
                with client.chat.completions.create(
                    model="mine", messages=HI, stream=True
                ) as stream:
                    return whole, list(stream)

        whole, chunks = await in_thread(use)
        assert fake.requests[0].headers["api-key"] == KEY
        assert fake.requests[0].path.startswith("/openai/deployments/mine/chat/")
    assert whole.choices[0].message.content == "Hello from the fake upstream."
    # What Azure says of the prompt comes first, in a chunk without a choice.
    assert chunks[0].choices == []
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_anthropic_counts_and_lists_models() -> None:
    async with (
        kit.open_anthropic_upstream(api_key=KEY) as fake,
        anthropic.AsyncAnthropic(base_url=fake.base_url, api_key=KEY) as client,
    ):
        counted = await client.messages.count_tokens(
            model="claude-sonnet-4-5", messages=HI, system="be brief"
        )
        models = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("claude-opus-4-8")
        assert fake.requests[0].headers["anthropic-version"] == "2026-10-21"
    assert counted.input_tokens == 4
    assert (models, one.lifecycle) == (["claude-sonnet-4-5", one.id], "active")


async def test_anthropics_limits_and_request_id_are_in_headers() -> None:
    async with (
        kit.open_anthropic_upstream([script.Happy(), script.rate_limited("7")]) as fake,
        anthropic.AsyncAnthropic(
            base_url=fake.base_url, api_key=KEY, max_retries=0
        ) as client,
    ):
        members: Any = {"model": "m", "max_tokens": 9, "messages": HI}
        raw = await client.messages.with_raw_response.create(**members)
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(**members)
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "3999"
    assert raw.headers["request-id"] == "req_fake"
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id == "req_fake"


async def test_gemini_counts_embeds_and_lists_models() -> None:
    async with kit.open_gemini_upstream(api_key=KEY) as fake:

        def use() -> Any:
            with gemini_client(fake.base_url) as client:
                counted = client.models.count_tokens(
                    model="gemini-2.5-flash", contents="one two"
                )
                embedded = client.models.embed_content(
                    model="gemini-embedding-001", contents=["one two", "three"]
                )
                return counted, embedded, list(client.models.list())

        counted, embedded, models = await in_thread(use)
    assert counted.total_tokens == 2
    assert [e.values for e in embedded.embeddings] == [embed("one two"), embed("three")]
    assert [model.name for model in models] == [
        "models/gemini-2.5-flash",
        "models/gemini-3-pro",
    ]


async def test_geminis_chat_sends_signatures_back() -> None:
    """A client's own loop of calls passes the check of Gemini 3's signatures."""
    behaviours: list[script.Behaviour] = [
        script.ToolCall(name="weather"),
        script.Happy(text="Warm."),
    ]
    asked: list[str] = []

    def weather(city: str) -> str:
        """Say how it is in a city."""
        asked.append(city)
        return "warm"

    async with kit.open_gemini_upstream(behaviours, api_key=KEY) as fake:

        def use() -> Any:
            with gemini_client(fake.base_url) as client:
                config = types.GenerateContentConfig(tools=[weather])
                chat = client.chats.create(model="gemini-3-pro", config=config)
                return chat.send_message("How is it in Paris?").text

        assert await in_thread(use) == "Warm."
        assert len(fake.requests) == 2
    assert asked == ["Paris"]


async def test_vertex_is_served_with_a_token() -> None:
    async with kit.open_gemini_upstream(api_key=KEY) as fake:

        def use() -> Any:
            with genai.Client(
                vertexai=True,
                project="p",
                location="l",
                credentials=google.oauth2.credentials.Credentials(KEY),  # type: ignore[no-untyped-call]
                http_options=types.HttpOptions(base_url=fake.base_url),
            ) as client:
                whole = client.models.generate_content(
                    model="gemini-2.5-flash", contents="one two"
                )
                stream = client.models.generate_content_stream(
                    model="gemini-2.5-flash", contents="one two"
                )
                return whole.text, "".join(chunk.text or "" for chunk in stream)

        assert await in_thread(use) == ("Hello from the fake upstream.",) * 2
        path = "/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:"
        assert path in fake.requests[0].path


async def test_litellms_cost_is_in_a_header() -> None:
    async with (
        kit.open_litellm_upstream(api_key=KEY) as fake,
        openai.AsyncOpenAI(base_url=fake.base_url, api_key=KEY) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=HI, extra_body={"metadata": {"tags": ["a"]}}
        )
    assert raw.headers["x-litellm-response-cost"] == "0.000123"
    assert raw.headers["x-litellm-tags"] == "a"


# --- keys that change -------------------------------------------------------


async def test_key_that_was_rotated_is_refused_and_the_new_one_is_taken() -> None:
    async with kit.open_openai_upstream(api_key="old") as fake:
        fake.api_keys = {"new", "newer"}
        for key in ("old", "new", "newer"):
            async with openai.AsyncOpenAI(
                base_url=fake.base_url, api_key=key, max_retries=0
            ) as client:
                with (
                    pytest.raises(openai.AuthenticationError)
                    if key == "old"
                    else contextlib.nullcontext()
                ):
                    await client.chat.completions.create(model="m", messages=HI)


# --- as a process -----------------------------------------------------------


@contextlib.asynccontextmanager
async def as_process(*options: str) -> AsyncIterator[str]:
    """Run the command; yields the base URL that it prints."""
    command = [sys.executable, "-m", "atomr_infer.testing.upstream", *options]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(30):
        async with process.stdout:
            line = b""
            while not line.endswith(b"\n"):
                line += bytes(await process.stdout.receive_some())
            try:
                yield line.decode().strip()
            finally:
                os.kill(process.pid, signal.SIGTERM)
                with trio.CancelScope(shield=True):
                    assert await process.wait() == 0


async def test_each_dialect_runs_as_a_process() -> None:
    options = ("--port", "0", "--api-key", KEY, "--script", "inject_5xx")
    async with (
        as_process("--dialect", "anthropic", *options) as url,
        anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=1) as client,
    ):
        said = await client.messages.create(model="m", max_tokens=9, messages=HI)
    assert said.stop_reason == "end_turn"


async def test_process_refuses_a_script_that_there_is_not() -> None:
    command = [sys.executable, "-m", "atomr_infer.testing.upstream", "--script", "x"]
    ran = await trio.run_process(command, capture_stderr=True, check=False)
    assert ran.returncode == 2
    assert b"'x' is no script; use happy, inject_429" in ran.stderr.replace(b"\n", b" ")
