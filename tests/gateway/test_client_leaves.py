"""A client that leaves ends its request wherever it is, down to the upstream.

Each route, streamed and not, over an upstream of its own dialect, where bytes are
passed on, and of another; in each phase: in the queue, before the upstream's
headers, before the first token, in the middle of the answer.

From the moment of the leaving on the clock runs a hundred times slower.  So a
busy machine does not fail these tests, and anything that waited for a timer
before the upstream's connection is closed does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection

from atomr import telemetry
from atomr_infer.model.deployment import Serving
from atomr_infer.model.failover import BreakerPolicy
from atomr_infer.model.usage import Usage
from atomr_infer.policy.failures.breaker import Circuit
from atomr_infer.serving.requests.served import Tried
from atomr_infer.testing.upstream_script import (
    HangBeforeHeaders,
    HangMidStream,
    Happy,
)
from tests.gateway.dialects import (
    COUNT_CONTENT,
    COUNT_MESSAGES,
    EMBED_CONTENT,
    EMBEDDINGS,
    ROUTES,
    Route,
    provider,
)
from tests.gateway.http import chat_body, until
from tests.gateway.http1 import Client

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.testing.upstream import RecordedRequest
    from atomr_infer.testing.upstream_script import Behaviour
    from tests.gateway.conftest import Running, Serve

SOON_S = 0.1
SLOWER = 100

SETTINGS: dict[str, Any] = {
    "serving": Serving(max_concurrency=1, max_queue=1),
    # One failure would open it.
    "breaker": BreakerPolicy(max_failures=1),
}

WORDS = Happy(tokens=("Hello", " from", " the", " fake", " upstream"))

OTHER = {"openai": "anthropic", "anthropic": "gemini", "gemini": "openai"}

OVER = pytest.mark.parametrize(
    ("name", "over"),
    [
        pytest.param(name, over, id=f"{name}-{over}")
        for name, route in ROUTES.items()
        for over in (route.own, OTHER[route.own])
    ],
)

STREAM = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

Stops = list[Mapping[str, Any]]


@pytest.fixture
def stops() -> Iterator[Stops]:
    """What is told at each request's end."""
    seen: Stops = []

    def keep(
        _: telemetry.Event,
        measured: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        seen.append({**measured, **metadata})

    telemetry.attach("test-leaves", ("atomr_infer", "request", "stop"), keep)
    yield seen
    telemetry.detach("test-leaves")


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    mock_clock.rate = 1
    return mock_clock


async def connect(running: Running) -> Client:
    return Client(await trio.open_tcp_stream("127.0.0.1", running.port))


async def leave(client: Client, *, reset: bool) -> None:
    if reset:
        await client.reset()
    else:
        await client.stream.aclose()


async def leave_and_watch(
    client: Client, recorded: RecordedRequest, clock: MockClock, *, reset: bool
) -> None:
    """Leave; the upstream must see its own connection end for it."""
    clock.rate = 1 / SLOWER
    left_at = trio.current_time()
    await leave(client, reset=reset)
    with trio.fail_after(SOON_S):
        await recorded.client_left.wait()
    clock.rate = 1
    assert recorded.left_at is not None
    assert recorded.left_at - left_at < SOON_S


async def assert_all_given_back(running: Running, stops: Stops, count: int = 1) -> None:
    """Permits are free, the breaker counted nothing, and the end was told."""
    (replica,) = await running.cluster.replicas("m")
    await until(lambda: len(stops) == count)
    await until(lambda: (replica.running, replica.waiting) == (0, 0))
    assert replica.outstanding == 0
    (guard,) = running.cluster.breakers().values()
    assert (guard.breaker.state, guard.breaker.history) == (Circuit.CLOSED, ())
    assert {stop["outcome"] for stop in stops} == {"cancelled"}


async def watch_leaving(
    serve: Serve,
    clock: MockClock,
    stops: Stops,
    route: Route,
    behaviour: Behaviour,
    *,
    over: str,
    stream: bool = False,
    seen: bytes | None = None,
    reset: bool = False,
) -> tuple[Usage, ...]:
    """Ask, leave when the upstream hangs, and return what was billed."""
    async with (
        provider(over, behaviour, **SETTINGS) as (upstream, deployment),
        serve(deployment) as running,
    ):
        client = await connect(running)
        await client.send(route.request(stream=stream))
        await upstream.wait_for_requests(1)
        if seen is not None:
            await client.read_until(seen)
        for _ in range(5):  # what the upstream has sent by now is read by now
            await trio.testing.wait_all_tasks_blocked()
        (recorded,) = upstream.requests
        await leave_and_watch(client, recorded, clock, reset=reset)
        await assert_all_given_back(running, stops)
        assert len(upstream.requests) == 1, "nobody asks again for who has left"
    (stop,) = stops
    assert (stop["tried"], stop["attempts"]) == ((Tried("m", "cancelled"),), 1)
    usages = tuple(spent.usage for spent in stop["spent"])
    told = sum(usages, Usage())
    assert (stop["prompt_tokens"], stop["output_tokens"]) == (
        told.prompt_tokens,
        told.output_tokens,
    )
    return usages


@OVER
@STREAM
async def test_who_leaves_before_the_upstream_s_headers_ends_its_request(
    serve: Serve, clock: MockClock, stops: Stops, name: str, over: str, *, stream: bool
) -> None:
    spent = await watch_leaving(
        serve,
        clock,
        stops,
        ROUTES[name],
        HangBeforeHeaders(),
        over=over,
        stream=stream,
    )
    assert spent == ()


@OVER
@STREAM
async def test_who_leaves_before_the_first_token_ends_its_request(
    serve: Serve, clock: MockClock, stops: Stops, name: str, over: str, *, stream: bool
) -> None:
    await watch_leaving(
        serve,
        clock,
        stops,
        ROUTES[name],
        HangMidStream(after=0, answer=WORDS),
        over=over,
        stream=stream,
        reset=True,
    )


@pytest.mark.parametrize("name", ["messages", "chat", "generateContent"])
async def test_who_leaves_before_the_first_token_is_billed_for_a_prompt_that_was_told(
    serve: Serve, clock: MockClock, stops: Stops, name: str
) -> None:
    told = Happy(tokens=WORDS.tokens, cached_tokens=2)
    (usage,) = await watch_leaving(
        serve,
        clock,
        stops,
        ROUTES[name],
        HangMidStream(after=0, answer=told),
        over="anthropic",
        stream=True,
    )
    # Anthropic's first event counts the prompt, and one token of the answer.
    assert usage == Usage(
        input_uncached=1,
        cache_read=2,
        output_text=1,
        estimated=True,
        interrupted=True,
    )


@OVER
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_who_leaves_in_its_stream_is_billed_for_what_came(
    serve: Serve, clock: MockClock, stops: Stops, name: str, over: str, *, reset: bool
) -> None:
    (usage,) = await watch_leaving(
        serve,
        clock,
        stops,
        ROUTES[name],
        HangMidStream(after=3, answer=WORDS),
        over=over,
        stream=True,
        seen=b" the",
        reset=reset,
    )
    assert usage.interrupted
    assert usage.prompt_tokens > 0
    assert usage.output_tokens > 0


@OVER
async def test_who_leaves_the_middle_of_an_answer_that_it_wants_whole(
    serve: Serve, clock: MockClock, stops: Stops, name: str, over: str
) -> None:
    await watch_leaving(
        serve,
        clock,
        stops,
        ROUTES[name],
        HangMidStream(after=3, answer=WORDS),
        over=over,
    )


@OVER
@STREAM
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_who_leaves_the_queue_is_never_asked_for(
    serve: Serve,
    stops: Stops,
    name: str,
    over: str,
    *,
    stream: bool,
    reset: bool,
) -> None:
    route = ROUTES[name]
    async with (
        provider(over, HangBeforeHeaders(), **SETTINGS) as (up, deployment),
        serve(deployment) as running,
    ):
        (replica,) = await running.cluster.replicas("m")
        first, second = await connect(running), await connect(running)
        await first.send(route.request(stream=stream))
        await up.wait_for_requests(1)
        await second.send(route.request(stream=stream))
        await until(lambda: replica.waiting == 1)
        await leave(second, reset=reset)
        await until(lambda: replica.waiting == 0)
        assert replica.running == 1
        assert not up.requests[0].client_left.is_set()
        await leave(first, reset=reset)
        await until(up.requests[0].client_left.is_set)
        await assert_all_given_back(running, stops, count=2)
        assert len(up.requests) == 1
    assert [stop["spent"] for stop in stops] == [(), ()]


WHOLE = pytest.mark.parametrize(
    "route",
    [
        pytest.param(route, id=route.path)
        for route in (EMBEDDINGS, EMBED_CONTENT, COUNT_MESSAGES, COUNT_CONTENT)
    ],
)


@WHOLE
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize(
    "behaviour",
    [HangBeforeHeaders(), HangMidStream()],
    ids=["before headers", "in the body"],
)
async def test_who_leaves_an_embedding_or_a_count_ends_it(
    serve: Serve,
    clock: MockClock,
    stops: Stops,
    route: Route,
    behaviour: Behaviour,
    *,
    reset: bool,
) -> None:
    spent = await watch_leaving(
        serve, clock, stops, route, behaviour, over=route.own, reset=reset
    )
    assert spent == ()


@WHOLE
async def test_who_leaves_the_queue_for_an_embedding_or_a_count(
    serve: Serve, stops: Stops, route: Route
) -> None:
    async with (
        provider(route.own, HangBeforeHeaders(), **SETTINGS) as (up, asked),
        serve(asked) as running,
    ):
        (replica,) = await running.cluster.replicas("m")
        first, second = await connect(running), await connect(running)
        await first.send(route.request())
        await up.wait_for_requests(1)
        await second.send(route.request())
        await until(lambda: replica.waiting == 1)
        await leave(second, reset=False)
        await until(lambda: replica.waiting == 0)
        await leave(first, reset=True)
        await until(up.requests[0].client_left.is_set)
        await assert_all_given_back(running, stops, count=2)
        assert len(up.requests) == 1


async def test_who_pipelines_and_leaves_ends_the_request_under_way(
    serve: Serve, clock: MockClock, stops: Stops
) -> None:
    route = ROUTES["chat"]
    async with (
        provider("openai", HangBeforeHeaders(), **SETTINGS) as (up, asked),
        serve(asked) as running,
    ):
        client = await connect(running)
        await client.send(route.request(stream=True) + route.request())
        await up.wait_for_requests(1)
        await leave_and_watch(client, up.requests[0], clock, reset=False)
        await assert_all_given_back(running, stops)
        assert len(up.requests) == 1


@STREAM
@pytest.mark.parametrize("how", ["reset stream", "closed"])
async def test_who_leaves_over_http2_ends_its_request(
    serve: Serve, clock: MockClock, stops: Stops, how: str, *, stream: bool
) -> None:
    hangs = HangMidStream(after=2, answer=WORDS)
    async with (
        provider("openai", hangs, **SETTINGS) as (up, asked),
        serve(asked) as running,
    ):
        client = await connect(running)
        connection = H2Connection(H2Configuration())
        connection.initiate_connection()
        body = chat_body(stream=stream)
        fields = {":method": "POST", ":path": "/v1/chat/completions"}
        fields |= {":scheme": "http", ":authority": "x"}
        connection.send_headers(1, list(fields.items()))
        connection.send_data(1, body, end_stream=True)
        await client.send(connection.data_to_send())
        await up.wait_for_requests(1)
        if stream:
            await client.read_until(b" from")
        clock.rate = 1 / SLOWER
        if how == "closed":
            await leave(client, reset=False)
        else:
            connection.reset_stream(1)
            await client.send(connection.data_to_send())
        with trio.fail_after(SOON_S):
            await up.requests[0].client_left.wait()
        clock.rate = 1
        await assert_all_given_back(running, stops)
        await trio.aclose_forcefully(client.stream)
