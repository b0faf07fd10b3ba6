"""Anthropic's own library against the gateway, over each provider's dialect.

Each scenario runs over an upstream of the same dialect, where bytes are passed
on, and of others, where the answer is written anew; what the library does in
its own way in each of its shapes (blocking, asyncio, trio) runs in each.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anthropic
import attrs
import pytest
import trio
from anthropic import Anthropic, AsyncAnthropic

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.secret import Secret
from atomr_infer.serving.replicas.replica import ReplicaState
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import (
    FakeUpstream,
    open_anthropic_upstream,
    open_gemini_upstream,
    open_litellm_upstream,
    open_openai_upstream,
)
from tests.at_once import at_once, no_time

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.testing.upstream_script import Behaviour

T = TypeVar("T")

# The SDK leaves its own generators to the garbage collector; trio says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator '(anthropic|httpx2|httpcore2):ResourceWarning"
)

UPSTREAM_KEY = "sk-upstream-9876543210"
DEFAULT = "".join(script.DEFAULT_TOKENS)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR").decode()
PDF = base64.b64encode(b"%PDF-1.7\n%%EOF").decode()
TOOL = {
    "name": "get_weather",
    "description": "d",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}

_ONCE = RetryPolicy(max_attempts=1)
_OPENERS = {
    "anthropic": (open_anthropic_upstream, "claude-sonnet-4-5"),
    "openai": (open_openai_upstream, "gpt-test"),
    "gemini": (open_gemini_upstream, "gemini-2.5-flash"),
    "litellm": (open_litellm_upstream, "gpt-test"),
}


def members(given: dict[str, Any]) -> dict[str, Any]:
    asked = [{"role": "user", "content": "one two three"}]
    return {"model": "m", "max_tokens": 5000, "messages": asked, **given}


@attrs.frozen
class Told:
    """What a client saw of a stream.

    Attributes:
        message: the library's own sum of it; None: it did not end well.
        kinds: the events' types.
        error: what ended it; None: it ended by itself.
    """

    message: Any
    kinds: list[str]
    error: Exception | None = None


class Blocking:
    """``anthropic.Anthropic`` in a thread."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def run(
        self,
        work: Callable[[Anthropic], T],
        _: Callable[[AsyncAnthropic], Awaitable[T]],
    ) -> T:
        def in_thread() -> T:
            with Anthropic(
                api_key="k", base_url=self._url, max_retries=0, timeout=20
            ) as client:
                return work(client)

        # A client that hangs must fail its test and not the whole run.
        return await trio.to_thread.run_sync(in_thread, abandon_on_cancel=True)


class Trio:
    """``anthropic.AsyncAnthropic`` in the test's trio loop."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def run(
        self,
        _: Callable[[Anthropic], T],
        work: Callable[[AsyncAnthropic], Awaitable[T]],
    ) -> T:
        return await self._open(work)

    async def _open(self, work: Callable[[AsyncAnthropic], Awaitable[T]]) -> T:
        async with AsyncAnthropic(
            api_key="k", base_url=self._url, max_retries=0, timeout=20
        ) as client:
            return await work(client)


class Asyncio(Trio):
    """``anthropic.AsyncAnthropic`` in an asyncio loop of its own."""

    async def run(
        self,
        _: Callable[[Anthropic], T],
        work: Callable[[AsyncAnthropic], Awaitable[T]],
    ) -> T:
        return await trio.to_thread.run_sync(
            lambda: asyncio.run(self._open(work)), abandon_on_cancel=True
        )


@attrs.frozen
class Chain:
    """A gateway before an upstream, and Anthropic's library before the gateway."""

    client: Any
    upstream: FakeUpstream
    replica: ReplicaState

    async def ask(self, **given: Any) -> Any:
        """Return a whole answer."""
        return await self.client.run(
            lambda client: client.messages.create(**members(given)),
            lambda client: client.messages.create(**members(given)),
        )

    async def stream(self, **given: Any) -> Told:
        """Return what came of a streamed answer."""

        def work(client: Anthropic) -> Told:
            kinds: list[str] = []
            try:
                with client.messages.stream(**members(given)) as stream:
                    for event in stream:
                        kinds.append(event.type)
                    return Told(stream.get_final_message(), kinds)
            except anthropic.APIError as error:
                return Told(None, kinds, error)

        async def work_async(client: AsyncAnthropic) -> Told:
            kinds: list[str] = []
            try:
                async with client.messages.stream(**members(given)) as stream:
                    async for event in stream:
                        kinds.append(event.type)
                    return Told(await stream.get_final_message(), kinds)
            except anthropic.APIError as error:
                return Told(None, kinds, error)

        told: Told = await self.client.run(work, work_async)
        return told

    async def either(self, *, streamed: bool, **given: Any) -> Any:
        """Return the message, whichever way it comes."""
        if not streamed:
            return await self.ask(**given)
        told = await self.stream(**given)
        assert told.error is None
        assert told.kinds[-1] == "message_stop"
        return told.message


Serve = Callable[..., Any]


@pytest.fixture
def shape() -> Any:
    """The library's shape, where a test does not ask for each one."""
    return Trio


EACH_SHAPE = pytest.mark.parametrize("shape", [Blocking, Asyncio, Trio])


@pytest.fixture(params=sorted(_OPENERS))
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def serve(shape: Any, provider: str) -> Serve:
    @asynccontextmanager
    async def open_chain(
        *behaviours: Behaviour, model: str | None = None, api_key: str = UPSTREAM_KEY
    ) -> AsyncIterator[Chain]:
        opener, default = _OPENERS[provider]
        async with opener(behaviours, api_key=UPSTREAM_KEY) as upstream:
            deployment = Deployment(
                name="m",
                runtime=provider,
                model=model or default,
                credential=Secret(api_key),
                options={"endpoint": upstream.base_url},
                retry=_ONCE,
            )
            async with Cluster.connect("inproc://sdk") as cluster:
                await cluster.deploy(deployment)
                gateway = await cluster.serve("127.0.0.1:0")
                (replica,) = await cluster.replicas("m")
                yield Chain(shape(gateway.url), upstream, replica)

    return open_chain


@EACH_SHAPE
@pytest.mark.parametrize("streamed", [False, True])
async def test_text(serve: Serve, streamed: bool, provider: str) -> None:
    async with serve() as chain:
        message = await chain.either(streamed=streamed, system="be brief")
        assert [block.text for block in message.content] == [DEFAULT]
        assert (message.role, message.type) == ("assistant", "message")
        assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
        assert message.usage.output_tokens == 6
        assert message.usage.input_tokens > 0
        served = _OPENERS[provider][1]
        assert message.model == served


@EACH_SHAPE
@pytest.mark.parametrize("streamed", [False, True])
async def test_tools(serve: Serve, streamed: bool) -> None:
    calls = script.tool_calls(
        script.ToolCall(arguments=('{"city":', ' "Paris"}'), id="call_1"),
        script.ToolCall(arguments=(), id="call_2"),
    )
    async with serve(calls) as chain:
        message = await chain.either(
            streamed=streamed, tools=[TOOL], tool_choice={"type": "auto"}
        )
        found = [(b.type, b.name, b.input) for b in message.content]
        assert found == [
            ("tool_use", "get_weather", {"city": "Paris"}),
            ("tool_use", "get_weather", {}),
        ]
        assert len({block.id for block in message.content}) == 2
        assert message.stop_reason == "tool_use"
        answered = await chain.ask(
            tools=[TOOL],
            messages=[
                {"role": "user", "content": "weather?"},
                message.to_param(),
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": block.id,
                            "content": "sunny",
                        }
                        for block in message.content
                    ],
                },
            ],
        )
        assert answered.content[0].text == DEFAULT


async def test_a_tool_may_return_a_picture(serve: Serve) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    result = {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": [{"type": "image", "source": source}],
    }
    call = {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {}}
    text = {"type": "text", "text": "and now?"}
    async with serve() as chain:
        answer = await chain.ask(
            tools=[TOOL],
            messages=[
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [result, text]},
            ],
        )
        assert answer.content[0].text == DEFAULT
        (media,) = chain.upstream.requests[-1].media
        size = len(base64.b64decode(PNG))
        assert (media.type, media.size_bytes) == ("image/png", size)


@EACH_SHAPE
@pytest.mark.parametrize("streamed", [False, True])
async def test_structured_output(serve: Serve, streamed: bool) -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    async with serve() as chain:
        message = await chain.either(streamed=streamed, output_config={"format": form})
        (block,) = message.content
        assert block.text.startswith('{"city":')


@EACH_SHAPE
@pytest.mark.parametrize(
    ("kind", "media_type", "data"),
    [("image", "image/png", PNG), ("document", "application/pdf", PDF)],
)
async def test_vision(serve: Serve, kind: str, media_type: str, data: str) -> None:
    source = {"type": "base64", "media_type": media_type, "data": data}
    shown = {"type": kind, "source": source}
    text = {"type": "text", "text": "what?"}
    async with serve() as chain:
        await chain.ask(messages=[{"role": "user", "content": [shown, text]}])
        (media,) = chain.upstream.requests[-1].media
        size = len(base64.b64decode(data))
        assert (media.type, media.size_bytes) == (media_type, size)


@pytest.mark.parametrize("streamed", [False, True])
async def test_thoughts_go_back_signed(
    serve: Serve, streamed: bool, provider: str
) -> None:
    if provider in {"openai", "litellm"}:
        pytest.skip("a Chat Completions upstream signs nothing")
    thinking = script.Happy(tokens=("a",), reasoning=("hm", " so"))
    asked = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    async with serve(thinking, thinking) as chain:
        message = await chain.either(streamed=streamed, **asked)
        thought = message.content[0]
        assert (thought.type, thought.thinking) == ("thinking", "hm so")
        again = [
            {"role": "user", "content": "one"},
            message.to_param(),
            {"role": "user", "content": "two"},
        ]
        assert (await chain.ask(messages=again, **asked)).content[-1].text == "a"


async def test_stop_sequence_is_named(serve: Serve, provider: str) -> None:
    async with serve() as chain:
        message = await chain.ask(stop_sequences=["the"])
        assert message.content[0].text == "Hello from "
        if provider == "anthropic":
            assert message.stop_sequence == "the"


async def test_limit_is_named(serve: Serve) -> None:
    async with serve() as chain:
        message = await chain.ask(max_tokens=2)
        assert (message.stop_reason, message.content[0].text) == (
            "max_tokens",
            "Hello from",
        )


async def test_what_is_lost_is_told_where_the_request_is_written_anew(
    serve: Serve, provider: str
) -> None:
    asked = members({"metadata": {"user_id": "u", "odd": 1}})
    async with serve() as chain:

        async def headers(client: AsyncAnthropic) -> Any:
            return (await client.messages.with_raw_response.create(**asked)).headers

        told = await chain.client.run(None, headers)
        passed_on = provider == "anthropic"
        assert ("x-atomr-warnings" not in told) is passed_on
        assert ("metadata.odd" in told.get("x-atomr-warnings", "")) is not passed_on


# --- errors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "status", "kind"),
    [
        (script.rate_limited("7"), anthropic.RateLimitError, 429, "rate_limit_error"),
        (script.server_error(500), anthropic.InternalServerError, 502, "api_error"),
        (script.Refused(status=401), anthropic.InternalServerError, 502, "api_error"),
        (
            script.RefusedAs(script.Meaning.CONTEXT_TOO_LONG),
            anthropic.BadRequestError,
            400,
            "invalid_request_error",
        ),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_errors_have_the_librarys_class(
    serve: Serve,
    fault: Behaviour,
    error: type[anthropic.APIStatusError],
    status: int,
    kind: str,
    streamed: bool,
) -> None:
    async with serve(fault) as chain:
        if streamed:
            raised: Any = (await chain.stream()).error
        else:
            with pytest.raises(anthropic.APIStatusError) as caught:
                await chain.ask()
            raised = caught.value
        assert (type(raised), raised.status_code) == (error, status)
        assert raised.body["type"] == "error"
        assert raised.body["error"]["type"] == kind
        assert raised.request_id == raised.body["request_id"]
        assert UPSTREAM_KEY not in str(raised)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_library_does_not_multiply_the_attempts_of_the_gateway(
    provider: str, attempts: int
) -> None:
    opener, model = _OPENERS[provider]
    async with opener([], otherwise=script.server_error(500)) as upstream:
        deployment = Deployment(
            name="m",
            runtime=provider,
            model=model,
            credential=Secret(UPSTREAM_KEY),
            options={"endpoint": upstream.base_url},
            retry=RetryPolicy(max_attempts=attempts, backoff_s=0.001),
        )
        async with Cluster.connect("inproc://sdk") as cluster:
            await cluster.deploy(deployment)
            gateway = await cluster.serve("127.0.0.1:0")
            url = gateway.url
            async with AsyncAnthropic(
                api_key="k", base_url=url, max_retries=1
            ) as client:
                with pytest.raises(anthropic.APIStatusError) as caught:
                    await client.messages.create(**members({}))
        headers = caught.value.response.headers
        assert headers["x-atomr-attempts"] == str(attempts)
        # The library asks a second time only where the gateway asked once.
        assert len(upstream.requests) == 2


@EACH_SHAPE
@pytest.mark.parametrize(
    "fault", [script.CutMidStream(after=2), script.ErrorInStream(after=2)]
)
async def test_w6_stream_that_breaks_raises_in_the_library(
    serve: Serve, fault: Behaviour
) -> None:
    async with serve(fault) as chain:
        told = await chain.stream()
        raised: Any = told.error
        assert type(raised) is anthropic.APIStatusError
        body: Any = raised.body
        assert body["error"]["type"] == "api_error"
        assert told.kinds.count("text") == 2
        assert "message_stop" not in told.kinds


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "nobody"}, anthropic.NotFoundError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"max_tokens": -1}, anthropic.BadRequestError),
        ({"extra_body": {"temperature": 0.5}}, anthropic.BadRequestError),
    ],
)
async def test_bad_requests_are_refused_before_any_upstream_is_asked(
    serve: Serve, given: dict[str, Any], error: type[Exception]
) -> None:
    async with serve() as chain:
        with pytest.raises(error):
            await chain.ask(**given)
        assert chain.upstream.requests == []


# --- the other routes ---------------------------------------------------------------


@EACH_SHAPE
async def test_tokens_are_counted(serve: Serve) -> None:
    asked: Any = {
        "model": "m",
        "messages": [{"role": "user", "content": "one two three"}],
    }
    async with serve() as chain:
        count = await chain.client.run(
            lambda client: client.messages.count_tokens(**asked),
            lambda client: client.messages.count_tokens(**asked),
        )
        assert count.input_tokens >= 3


async def test_models_are_listed(serve: Serve) -> None:
    async with serve() as chain:

        async def listed(client: AsyncAnthropic) -> list[str]:
            return [model.id async for model in client.models.list()]

        assert await chain.client.run(
            lambda client: [model.id for model in client.models.list()], listed
        ) == ["m"]
        one = await chain.client.run(
            lambda client: client.models.retrieve("m"),
            lambda client: client.models.retrieve("m"),
        )
        assert (one.id, one.type, one.lifecycle) == ("m", "model", "active")


@EACH_SHAPE
async def test_client_that_leaves_a_stream_frees_the_upstream(
    serve: Serve, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    async with serve(script.HangMidStream(after=1)) as chain:

        def leave(client: Anthropic) -> None:
            with client.messages.stream(**members({})) as stream:
                next(iter(stream.text_stream))

        async def leave_async(client: AsyncAnthropic) -> None:
            async with client.messages.stream(**members({})) as stream:
                await anext(aiter(stream.text_stream))

        await chain.client.run(leave, leave_async)
        with no_time(mock_clock):
            await at_once(chain.upstream.requests[0].client_left.is_set, mock_clock)
