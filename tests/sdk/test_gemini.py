"""Google's own library against the gateway, over each provider's dialect.

Each scenario runs over an upstream of the same dialect, where bytes are passed
on, and of others, where the answer is written anew; what the library does in
its own way in each of its shapes runs in each.  These are blocking, asyncio, and
trio: there its asyncio client runs in the loop of a process, since it asks for that
loop by name, and trio's tasks call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pytest
import trio
from google import genai
from google.genai import errors, types

from atomr.interop import AsyncioProcess, call_asyncio
from atomr.process import open_node
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

# The library leaves clients and generators to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"

_ONCE = RetryPolicy(max_attempts=1)

_OPENERS = {
    "anthropic": (open_anthropic_upstream, "claude-sonnet-4-5"),
    "gemini": (open_gemini_upstream, "gemini-3-pro"),
    "litellm": (open_litellm_upstream, "gpt-test"),
    "openai": (open_openai_upstream, "gpt-test"),
}


@attrs.frozen
class Chain:
    """A gateway before an upstream, and Google's library before the gateway.

    Attributes:
        url: the gateway's.
        upstream: what stands behind it.
        shape: ``blocking``, ``asyncio``, or ``trio``.
    """

    url: str
    upstream: FakeUpstream
    shape: str

    async def ask(self, **members: Any) -> types.GenerateContentResponse:
        """Return a whole answer."""

        def ask(client: genai.Client) -> types.GenerateContentResponse:
            return client.models.generate_content(**_arguments(members))

        async def ask_async(client: genai.Client) -> types.GenerateContentResponse:
            return await client.aio.models.generate_content(**_arguments(members))

        return await self._run(ask, ask_async)

    async def stream(self, **members: Any) -> list[types.GenerateContentResponse]:
        """Return the pieces of an answer."""

        def ask(client: genai.Client) -> list[types.GenerateContentResponse]:
            return list(client.models.generate_content_stream(**_arguments(members)))

        async def ask_async(
            client: genai.Client,
        ) -> list[types.GenerateContentResponse]:
            pieces = client.aio.models.generate_content_stream(**_arguments(members))
            return [piece async for piece in await pieces]

        return await self._run(ask, ask_async)

    async def use(self, ask: Callable[[Any], Any]) -> Any:
        """Return what a method of ``client.models`` answers."""

        async def ask_async(client: genai.Client) -> Any:
            return await ask(client.aio.models)

        return await self._run(lambda client: ask(client.models), ask_async)

    async def _run(
        self,
        ask: Callable[[genai.Client], T],
        ask_async: Callable[[genai.Client], Awaitable[T]],
    ) -> T:
        def in_thread() -> T:
            client = self._client()
            try:
                if self.shape == "blocking":
                    return ask(client)
                return asyncio.run(_closing(client, ask_async))
            finally:
                client.close()

        if self.shape != "trio":
            return await trio.to_thread.run_sync(in_thread)
        async with open_node("sdk") as node:
            loop = await node.start(AsyncioProcess())
            client = self._client()
            try:
                return await call_asyncio(loop, _closing, client, ask_async)
            finally:
                client.close()

    def _client(self) -> genai.Client:
        options = types.HttpOptions(base_url=self.url)
        return genai.Client(api_key="client-key", http_options=options)


async def _closing(
    client: genai.Client, ask: Callable[[genai.Client], Awaitable[T]]
) -> T:
    try:
        return await ask(client)
    finally:
        await client.aio.aclose()


def _arguments(members: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "contents": "one two three", **members}


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def open_chain(
        runtime: str,
        *behaviours: Behaviour,
        model: str | None = None,
        shape: str = "blocking",
    ) -> AsyncIterator[Chain]:
        opening, usual = _OPENERS[runtime]
        async with (
            opening(behaviours) as upstream,
            Cluster.connect("inproc://gemini-sdk") as cluster,
        ):
            await cluster.deploy(
                Deployment(
                    name="up",
                    runtime=runtime,
                    model=model or usual,
                    serves=("m",),
                    credential=Secret("AIza-0123456789"),
                    options={"endpoint": upstream.base_url},
                    retry=_ONCE,
                )
            )
            gateway = await cluster.serve("127.0.0.1:0")
            yield Chain(gateway.url, upstream, shape)

    return open_chain


RUNTIMES = pytest.mark.parametrize("runtime", list(_OPENERS))
SHAPES = pytest.mark.parametrize("shape", ["blocking", "asyncio", "trio"])


@SHAPES
@RUNTIMES
async def test_whole_answer(serve: Serve, runtime: str, shape: str) -> None:
    async with serve(runtime, shape=shape) as chain:
        answer = await chain.ask()
        assert answer.text == "Hello from the fake upstream."
        [candidate] = answer.candidates
        assert candidate.finish_reason is types.FinishReason.STOP
        usage = answer.usage_metadata
        assert (usage.prompt_token_count, usage.candidates_token_count) == (3, 6)
        assert usage.total_token_count == 9
        assert answer.model_version == _OPENERS[runtime][1]


@SHAPES
@RUNTIMES
async def test_stream(serve: Serve, runtime: str, shape: str) -> None:
    async with serve(runtime, shape=shape) as chain:
        pieces = await chain.stream()
        assert "".join(p.text or "" for p in pieces) == "Hello from the fake upstream."
        assert len(pieces) == 7
        assert pieces[-1].candidates[0].finish_reason is types.FinishReason.STOP
        assert pieces[-1].usage_metadata.total_token_count == 9


TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            parameters=types.Schema(
                type=types.Type.OBJECT,
                properties={"city": types.Schema(type=types.Type.STRING)},
            ),
        )
    ]
)
TOOLS = types.GenerateContentConfig(
    tools=[TOOL],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


@RUNTIMES
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_tools_there_and_back(serve: Serve, runtime: str, streamed: bool) -> None:
    async with serve(runtime, script.ToolCall()) as chain:
        question = types.UserContent(parts=[types.Part(text="weather?")])
        if streamed:
            pieces = await chain.stream(contents=[question], config=TOOLS)
            parts = [
                part
                for piece in pieces
                for part in piece.candidates[0].content.parts or ()
                if part.function_call
            ]
        else:
            answer = await chain.ask(contents=[question], config=TOOLS)
            parts = [p for p in answer.candidates[0].content.parts if p.function_call]
        [part] = parts
        assert (part.function_call.name, part.function_call.args) == (
            "get_weather",
            {"city": "Paris"},
        )
        result = types.Part.from_function_response(
            name="get_weather", response={"result": "sunny"}
        )
        turns = [
            question,
            types.ModelContent(parts=parts),
            types.UserContent(parts=[result]),
        ]
        answer = await chain.ask(contents=turns, config=TOOLS)
        assert answer.text == "Hello from the fake upstream."


@RUNTIMES
async def test_structured_output(serve: Serve, runtime: str) -> None:
    config = types.GenerateContentConfig(
        response_mime_type="application/json",
        response_schema=types.Schema(
            type=types.Type.OBJECT,
            properties={"n": types.Schema(type=types.Type.INTEGER)},
        ),
    )
    async with serve(runtime) as chain:
        assert (await chain.ask(config=config)).parsed == {"n": 1}


@RUNTIMES
async def test_picture(serve: Serve, runtime: str) -> None:
    picture = types.Part.from_bytes(data=PNG, mime_type="image/png")
    async with serve(runtime) as chain:
        answer = await chain.ask(contents=["look", picture])
        assert answer.text == "Hello from the fake upstream."
        [media] = chain.upstream.requests[0].media
        assert media.type == "image/png"


@RUNTIMES
async def test_system_instruction_and_sampling(serve: Serve, runtime: str) -> None:
    config = types.GenerateContentConfig(
        system_instruction="be brief",
        temperature=0.5,
        top_p=0.5,
        max_output_tokens=2,
        stop_sequences=["x"],
        candidate_count=2,
        seed=7,
    )
    async with serve(runtime) as chain:
        answer = await chain.ask(config=config)
        assert [c.finish_reason for c in answer.candidates] == [
            types.FinishReason.MAX_TOKENS
        ] * 2
        assert answer.usage_metadata.candidates_token_count == 4


ERRORS: list[tuple[Any, type[errors.APIError], int]] = [
    (script.Refused(status=400, message="bad"), errors.ClientError, 400),
    (script.rate_limited("0"), errors.ClientError, 429),
    (script.server_error(503), errors.ServerError, 502),
    (script.Refused(status=401, message="no"), errors.ServerError, 502),
]


@RUNTIMES
async def test_errors_have_their_class_and_code(serve: Serve, runtime: str) -> None:
    twice = [behaviour for behaviour, *_ in ERRORS for _ in range(2)]
    async with serve(runtime, *twice) as chain:
        for _, error_class, code in ERRORS:
            for ask in (chain.ask, chain.stream):
                with pytest.raises(errors.APIError) as caught:
                    await ask()
                assert (type(caught.value), caught.value.code) == (error_class, code)


@SHAPES
@RUNTIMES
async def test_w6_broken_stream_raises(serve: Serve, runtime: str, shape: str) -> None:
    broken = (script.CutMidStream(after=2), script.ErrorInStream(after=2))
    async with serve(runtime, *broken, shape=shape) as chain:
        for _ in broken:
            with pytest.raises(errors.ServerError) as caught:
                await chain.stream()
            assert caught.value.status == "INTERNAL"


async def test_mistake_of_the_clients_names_its_member(serve: Serve) -> None:
    async with serve("gemini") as chain:
        with pytest.raises(errors.ClientError) as caught:
            await chain.ask(config=types.GenerateContentConfig(temperature=9))
        assert caught.value.status == "INVALID_ARGUMENT"
        assert "generationConfig.temperature" in str(caught.value)
        with pytest.raises(errors.ClientError) as caught:
            await chain.ask(model="nope")
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
        assert chain.upstream.requests == []


@RUNTIMES
async def test_prompt_is_counted(serve: Serve, runtime: str) -> None:
    async with serve(runtime) as chain:
        counted = await chain.use(
            lambda models: models.count_tokens(model="m", contents="one two three")
        )
        # For those who cannot count the gateway estimates, and rather too much.
        counts = runtime in {"gemini", "anthropic"}
        assert (counted.total_tokens == 3) is counts
        assert 3 <= counted.total_tokens <= 30


@pytest.mark.parametrize(
    ("runtime", "model"),
    [("gemini", "gemini-embedding-001"), ("openai", "text-embedding-3-small")],
)
async def test_texts_are_embedded(serve: Serve, runtime: str, model: str) -> None:
    config = types.EmbedContentConfig(output_dimensionality=4)
    async with serve(runtime, model=model) as chain:
        found = await chain.use(
            lambda models: models.embed_content(
                model="m", contents=["a b", "c"], config=config
            )
        )
        assert [len(each.values) for each in found.embeddings] == [4, 4]


async def test_models_are_listed_in_its_own_shape(serve: Serve) -> None:
    async with serve("gemini") as chain:
        assert (await chain.use(lambda models: models.get(model="m"))).name == (
            "models/m"
        )
        pager = await chain.use(lambda models: models.list())
        assert [model.name for model in pager.page] == ["models/m"]
        assert "generateContent" in pager.page[0].supported_actions
