"""Bare text: one prompt or several, of text or of token ids, by OpenAI's library.

What evaluates models asks for hundreds of continuations at once, by token ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.gateway.dialects import provider
from tests.gateway.http import Answer
from tests.gateway.http import request as ask

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning"
)

SAID = "Hello from the fake upstream."

EACH = pytest.mark.parametrize(
    ("prompt", "count"),
    [
        (["one", "two", "three"], 3),
        ([1, 2, 3], 1),
        ([[1, 2], [3]], 2),
    ],
    ids=["texts", "ids", "lists of ids"],
)


def client(running: Running) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{running.url}/v1", api_key="k", max_retries=0)


@EACH
@pytest.mark.parametrize("n", [1, 2])
async def test_all_prompts_are_passed_on_and_continued(
    serve: Serve, prompt: Any, count: int, n: int
) -> None:
    async with provider("openai") as (upstream, deployment), serve(deployment) as on:
        async with client(on) as asker:
            answer = await asker.completions.create(model="m", prompt=prompt, n=n)
        assert upstream.requests[0].json["prompt"] == prompt
        assert upstream.requests[0].json.get("n", 1) == n
    assert [choice.index for choice in answer.choices] == list(range(count * n))
    assert {choice.text for choice in answer.choices} == {SAID}


@EACH
async def test_a_stream_is_complete_when_all_of_them_are(
    serve: Serve, prompt: Any, count: int
) -> None:
    async with provider("openai") as (_, deployment), serve(deployment) as on:
        texts = [""] * count
        async with client(on) as asker:
            async for chunk in await asker.completions.create(
                model="m", prompt=prompt, stream=True
            ):
                texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [SAID] * count


@EACH
@pytest.mark.parametrize("over", ["anthropic", "gemini"])
async def test_who_cannot_pass_them_on_refuses_them(
    serve: Serve, over: str, prompt: Any, count: int
) -> None:
    async with provider(over) as (upstream, deployment), serve(deployment) as on:
        async with client(on) as asker:
            with pytest.raises(openai.BadRequestError) as raised:
                await asker.completions.create(model="m", prompt=prompt)
        assert upstream.requests == []
    what = "several prompts at once" if count == 3 else "prompts of token ids"
    assert raised.value.param == "prompt"
    assert f"does not support {what}" in raised.value.message


async def complete(running: Running, body: bytes) -> Answer:
    return await ask(running.port, "POST", "/v1/completions", body)


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("[]", "'prompt' must not be empty"),
        ('["a", 1]', "'prompt' must be a string, a list of strings, a list of token"),
        ("[[1], 2]", "'prompt' must be a string, a list of strings"),
        ("{}", "'prompt' must be a string"),
        ("[" + ",".join(['"a"'] * 2049) + "]", "'prompt' must be at most 2048 prompts"),
    ],
)
async def test_what_is_no_prompt_is_named(
    serve: Serve, prompt: str, problem: str
) -> None:
    async with provider("openai") as (_, deployment), serve(deployment) as on:
        answer = await complete(on, b'{"model":"m","prompt":%b}' % prompt.encode())
    assert (answer.status, answer.json["error"]["param"]) == (400, "prompt")
    assert answer.json["error"]["message"].startswith(problem)


async def test_what_cannot_be_passed_on_byte_for_byte_is_refused(serve: Serve) -> None:
    body = b'{"mod\\u0065l":"m","prompt":["a","b"]}'
    async with provider("openai") as (upstream, deployment), serve(deployment) as on:
        answer = await complete(on, body)
        assert upstream.requests == []
    assert (answer.status, answer.json["error"]["param"]) == (400, "prompt")


async def test_one_text_in_a_list_is_a_text(serve: Serve) -> None:
    async with provider("gemini") as (_, deployment), serve(deployment) as on:
        answer = await complete(on, b'{"model":"m","prompt":["one"]}')
    assert (answer.status, answer.json["choices"][0]["text"]) == (200, SAID)
