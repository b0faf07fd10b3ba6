"""OpenAI's own library against the gateway, over each provider's dialect.

Chat Completions and Responses, blocking, in asyncio and in trio, streamed and
not; over an upstream of the same dialect, where bytes are passed on, and of
others, where the answer is written anew.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import openai
import pytest
import trio
from openai import AsyncOpenAI, OpenAI

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.secret import Secret
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import (
    FakeUpstream,
    open_anthropic_upstream,
    open_gemini_upstream,
    open_litellm_upstream,
    open_openai_upstream,
)

if TYPE_CHECKING:
    from atomr_infer.testing.upstream_script import Behaviour

T = TypeVar("T")

# The SDK leaves its own generators to the garbage collector; trio says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning"
)

UPSTREAM_KEY = "sk-upstream-9876543210"
DEFAULT = "".join(script.DEFAULT_TOKENS)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR").decode()
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": PARAMETERS},
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ASKED = [{"role": "user", "content": "one two three"}]
CALLS = script.tool_calls(
    script.ToolCall(arguments=('{"city":', ' "Paris"}'), id="call_1"),
    script.ToolCall(arguments=('{"city": "Rome"}',), id="call_2"),
)
ARGUMENTS = [{"city": "Paris"}, {"city": "Rome"}]

OPENERS = {
    "anthropic": (open_anthropic_upstream, "claude-sonnet-4-5"),
    "gemini": (open_gemini_upstream, "gemini-2.5-flash"),
    "litellm": (open_litellm_upstream, "gpt-test"),
    "openai": (open_openai_upstream, "gpt-test"),
}


class Blocking:
    """``openai.OpenAI`` in a thread."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def run(
        self, work: Callable[[OpenAI], T], _: Callable[[AsyncOpenAI], Awaitable[T]]
    ) -> T:
        def in_thread() -> T:
            with OpenAI(
                api_key="k", base_url=self._url, max_retries=0, timeout=20
            ) as client:
                return work(client)

        # A client that hangs must fail its test and not the whole run.
        return await trio.to_thread.run_sync(in_thread, abandon_on_cancel=True)


class Trio:
    """``openai.AsyncOpenAI`` in the test's trio loop."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def run(
        self, _: Callable[[OpenAI], T], work: Callable[[AsyncOpenAI], Awaitable[T]]
    ) -> T:
        return await self._open(work)

    async def _open(self, work: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        async with AsyncOpenAI(
            api_key="k", base_url=self._url, max_retries=0, timeout=20
        ) as client:
            return await work(client)


class Asyncio(Trio):
    """``openai.AsyncOpenAI`` in an asyncio loop of its own."""

    async def run(
        self, _: Callable[[OpenAI], T], work: Callable[[AsyncOpenAI], Awaitable[T]]
    ) -> T:
        return await trio.to_thread.run_sync(
            lambda: asyncio.run(self._open(work)), abandon_on_cancel=True
        )


@attrs.frozen
class Chain:
    """A gateway before an upstream, and OpenAI's library before the gateway."""

    client: Any
    upstream: FakeUpstream

    async def chat(self, *, streamed: bool, **given: Any) -> Any:
        """Return the whole completion, which the library puts together itself."""
        given = {"model": "m", "messages": ASKED, **given}
        if not streamed:
            return await self.client.run(
                lambda client: client.chat.completions.create(**given),
                lambda client: client.chat.completions.create(**given),
            )

        def work(client: OpenAI) -> Any:
            with client.chat.completions.stream(**given) as stream:
                for _ in stream:
                    pass
                return stream.get_final_completion()

        async def work_async(client: AsyncOpenAI) -> Any:
            async with client.chat.completions.stream(**given) as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_completion()

        return await self.client.run(work, work_async)

    async def respond(self, *, streamed: bool, **given: Any) -> Any:
        """Return the whole response."""
        given = {"model": "m", "input": "one two three", **given}
        if not streamed:
            return await self.client.run(
                lambda client: client.responses.create(**given),
                lambda client: client.responses.create(**given),
            )

        def work(client: OpenAI) -> Any:
            with client.responses.stream(**given) as stream:
                for _ in stream:
                    pass
                return stream.get_final_response()

        async def work_async(client: AsyncOpenAI) -> Any:
            async with client.responses.stream(**given) as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_response()

        return await self.client.run(work, work_async)


Serve = Callable[..., Any]


SHAPES = {"blocking": Blocking, "asyncio": Asyncio, "trio": Trio}


def pairs() -> Iterator[Any]:
    """Each dialect before one shape, and each shape before one dialect, at once.

    What differs is what the gateway writes, by dialect, and how it is read, by shape;
    the other pairs are slow tests.
    """
    for provider, shape in product(sorted(OPENERS), SHAPES):
        marks = () if provider == "openai" or shape == "trio" else (pytest.mark.slow,)
        yield pytest.param((provider, shape), marks=marks, id=f"{provider}-{shape}")


@pytest.fixture(params=pairs())
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def shape(pair: tuple[str, str]) -> Any:
    return SHAPES[pair[1]]


@pytest.fixture
def provider(pair: tuple[str, str]) -> str:
    return pair[0]


@pytest.fixture
def serve(shape: Any, provider: str) -> Serve:
    @asynccontextmanager
    async def open_chain(*behaviours: Behaviour) -> AsyncIterator[Chain]:
        opener, model = OPENERS[provider]
        async with opener(behaviours, api_key=UPSTREAM_KEY) as upstream:
            deployment = Deployment(
                name="m",
                runtime=provider,
                model=model,
                credential=Secret(UPSTREAM_KEY),
                options={"endpoint": upstream.base_url},
                retry=RetryPolicy(max_attempts=1),
            )
            async with Cluster.connect("inproc://sdk") as cluster:
                await cluster.deploy(deployment)
                gateway = await cluster.serve("127.0.0.1:0")
                yield Chain(shape(f"{gateway.url}/v1"), upstream)

    return open_chain


WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


# --- chat completions -----------------------------------------------------------


@WAYS
async def test_chat(serve: Serve, streamed: bool, provider: str) -> None:
    async with serve() as chain:
        given = {"stream_options": {"include_usage": True}} if streamed else {}
        completion = await chain.chat(streamed=streamed, **given)
    (choice,) = completion.choices
    assert choice.message.content == DEFAULT
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert completion.model == OPENERS[provider][1]
    usage = completion.usage
    assert usage.completion_tokens == 6
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@WAYS
async def test_chat_tools(serve: Serve, streamed: bool) -> None:
    async with serve(CALLS) as chain:
        completion = await chain.chat(streamed=streamed, tools=[TOOL])
        message = completion.choices[0].message
        calls = message.tool_calls
        assert [call.function.name for call in calls] == ["get_weather"] * 2
        assert [json.loads(call.function.arguments) for call in calls] == ARGUMENTS
        assert completion.choices[0].finish_reason == "tool_calls"
        assert len({call.id for call in calls}) == 2
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
            for call in calls
        ]
        said = message.model_dump(exclude_none=True, exclude={"parsed"})
        for call in said["tool_calls"]:
            call["function"].pop("parsed_arguments", None)
        answered = await chain.chat(
            streamed=streamed, tools=[TOOL], messages=[*ASKED, said, *results]
        )
    assert answered.choices[0].message.content == DEFAULT


@WAYS
async def test_chat_json_schema(serve: Serve, streamed: bool) -> None:
    schema = {"name": "place", "schema": SCHEMA, "strict": True}
    form = {"type": "json_schema", "json_schema": schema}
    async with serve() as chain:
        completion = await chain.chat(streamed=streamed, response_format=form)
    assert set(json.loads(completion.choices[0].message.content)) == {"city"}
    assert completion.choices[0].finish_reason == "stop"


@WAYS
async def test_chat_vision(serve: Serve, streamed: bool) -> None:
    image = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PNG}"},
    }
    messages = [{"role": "user", "content": [{"type": "text", "text": "?"}, image]}]
    async with serve() as chain:
        completion = await chain.chat(streamed=streamed, messages=messages)
        (media,) = chain.upstream.requests[-1].media
    assert (media.type, media.size_bytes) == ("image/png", 16)
    assert completion.choices[0].message.content == DEFAULT


ERRORS = pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (script.RefusedAs(script.Meaning.CONTEXT_TOO_LONG), openai.BadRequestError),
        (script.rate_limited("1"), openai.RateLimitError),
        (script.server_error(500), openai.InternalServerError),
        (script.RefusedAs(script.Meaning.BAD_KEY), openai.InternalServerError),
    ],
    ids=["context", "rate", "server", "key"],
)


@WAYS
@ERRORS
async def test_chat_error(
    serve: Serve, streamed: bool, behaviour: Behaviour, expected: type[openai.APIError]
) -> None:
    async with serve(behaviour) as chain:
        with pytest.raises(expected) as raised:
            await chain.chat(streamed=streamed)
    assert UPSTREAM_KEY not in str(raised.value)
    assert raised.value.code


async def test_chat_stream_that_breaks_off_raises(serve: Serve) -> None:
    async with serve(script.CutMidStream()) as chain:
        with pytest.raises(openai.APIError):
            await chain.chat(streamed=True)


# --- responses ------------------------------------------------------------------

FLAT_TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": PARAMETERS,
    "strict": False,
}


@WAYS
async def test_response(serve: Serve, streamed: bool, provider: str) -> None:
    async with serve() as chain:
        response = await chain.respond(streamed=streamed, instructions="be brief")
    assert response.output_text == DEFAULT
    assert response.status == "completed"
    assert response.model == OPENERS[provider][1]
    assert response.usage.output_tokens == 6
    assert response.usage.input_tokens > 0


@WAYS
async def test_response_tools(serve: Serve, streamed: bool) -> None:
    async with serve(CALLS) as chain:
        response = await chain.respond(streamed=streamed, tools=[FLAT_TOOL])
        calls = [item for item in response.output if item.type == "function_call"]
        assert [json.loads(call.arguments) for call in calls] == ARGUMENTS
        items: list[Any] = [
            {"role": "user", "content": "weather?"},
            *(
                {
                    "type": "function_call",
                    "call_id": call.call_id,
                    "name": call.name,
                    "arguments": call.arguments,
                }
                for call in calls
            ),
            *(
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": "sunny",
                }
                for call in calls
            ),
        ]
        answered = await chain.respond(
            streamed=streamed, tools=[FLAT_TOOL], input=items
        )
    assert answered.output_text == DEFAULT


@WAYS
async def test_response_json_schema(serve: Serve, streamed: bool) -> None:
    form = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
    async with serve() as chain:
        response = await chain.respond(streamed=streamed, text={"format": form})
    assert set(json.loads(response.output_text)) == {"city"}


async def test_response_stream_that_breaks_off_has_failed(serve: Serve) -> None:
    async with serve(script.CutMidStream()) as chain:
        with pytest.raises((openai.APIError, RuntimeError)):
            await chain.respond(streamed=True)


@WAYS
@ERRORS
async def test_response_error(
    serve: Serve, streamed: bool, behaviour: Behaviour, expected: type[openai.APIError]
) -> None:
    async with serve(behaviour) as chain:
        with pytest.raises(expected):
            await chain.respond(streamed=streamed)


# --- the others -----------------------------------------------------------------


async def test_bare_text(serve: Serve) -> None:
    async with serve() as chain:
        completion = await chain.client.run(
            lambda client: client.completions.create(model="m", prompt="one two"),
            lambda client: client.completions.create(model="m", prompt="one two"),
        )
    assert completion.choices[0].text == DEFAULT


async def test_embeddings(serve: Serve, provider: str) -> None:
    given: dict[str, Any] = {"model": "m", "input": ["a", "b c"]}
    async with serve() as chain:
        if provider == "anthropic":
            with pytest.raises(openai.APIStatusError, match="embeddings") as raised:
                await chain.client.run(
                    lambda client: client.embeddings.create(**given),
                    lambda client: client.embeddings.create(**given),
                )
            assert (raised.value.status_code, raised.value.code) == (501, "unsupported")
            return
        found = await chain.client.run(
            lambda client: client.embeddings.create(**given),
            lambda client: client.embeddings.create(**given),
        )
    assert [item.index for item in found.data] == [0, 1]
    assert len({len(item.embedding) for item in found.data}) == 1
    assert found.usage.prompt_tokens > 0
