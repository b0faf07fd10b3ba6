"""What the headers of answers and errors say, in each dialect."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.config.node import NodeConfig
from atomr_infer.gateway.exchanges.answer_headers import native_finish_headers
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.failover import BreakerPolicy
from atomr_infer.model.routing import Routing
from atomr_infer.testing.upstream_script import (
    Finish,
    HangBeforeHeaders,
    Happy,
    Meaning,
    RefusedAs,
    rate_limited,
    server_error,
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
from tests.gateway.http import Answer, chat, parse, until
from tests.gateway.http1 import Client

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.testing.upstream_script import Behaviour
    from tests.gateway.conftest import Running, Serve

CLOSE = "connection: close"

EVERY_ROUTE = pytest.mark.parametrize(
    "route",
    [
        pytest.param(route, id=route.path)
        for route in (
            *ROUTES.values(),
            EMBEDDINGS,
            EMBED_CONTENT,
            COUNT_MESSAGES,
            COUNT_CONTENT,
        )
    ],
)


async def ask(running: Running, route: Route, *, stream: bool = False) -> Answer:
    async with await trio.open_tcp_stream("127.0.0.1", running.port) as tcp:
        client = Client(tcp)
        await client.send(route.request(CLOSE, stream=stream))
        return parse(await client.rest())


# --- who answered ---------------------------------------------------------------


@EVERY_ROUTE
async def test_every_answer_says_which_replica_gave_it(
    serve: Serve, route: Route
) -> None:
    streams = [True, False] if route in ROUTES.values() else [False]
    async with (
        provider(route.own, otherwise=Happy(text="one")) as (_, deployment),
        serve(deployment) as running,
    ):
        answers = [await ask(running, route, stream=stream) for stream in streams]
    told = f"node={NodeConfig().own_name}; replica=0; reason=only; candidates=1"
    for answer in answers:
        assert answer.status == 200
        assert answer.headers["x-atomr-route"] == told


async def test_requests_of_one_session_go_to_one_replica(serve: Serve) -> None:
    spread = Serving(replicas=3, routing=Routing.SESSION)
    route = ROUTES["chat"]
    async with (
        provider("openai", otherwise=Happy(text="one"), serving=spread) as (_, m),
        serve(m) as running,
    ):
        routes: dict[str, set[str]] = {}
        for number in range(16):
            session = f"s{number % 8}"
            told = f"x-atomr-session: {session}"
            async with await trio.open_tcp_stream("127.0.0.1", running.port) as tcp:
                client = Client(tcp)
                await client.send(route.request(CLOSE, told))
                answer = parse(await client.rest())
            routes.setdefault(session, set()).add(answer.headers["x-atomr-route"])
    assert all(len(found) == 1 for found in routes.values())
    everywhere = set().union(*routes.values())
    assert 1 < len(everywhere) <= 3
    assert all("reason=session; candidates=3" in route for route in everywhere)


@pytest.mark.parametrize("path", ["chat", "embeddings"])
async def test_one_of_a_group_is_not_told_as_if_there_had_been_no_choice(
    serve: Serve, path: str
) -> None:
    route = EMBEDDINGS if path == "embeddings" else ROUTES[path]
    async with (
        provider(route.own, otherwise=Happy(text="one")) as (_, m),
        serve(m, attrs.evolve(m, name="n", serves=("m",))) as running,
    ):
        answers = [await ask(running, route) for _ in range(2)]
    assert {answer.headers["x-atomr-deployment"] for answer in answers} == {"m", "n"}
    told = f"node={NodeConfig().own_name}; replica=0; reason=only; candidates=1"
    assert {x.headers["x-atomr-route"] for x in answers} == {f"{told}; group=2"}


async def test_a_fallback_that_answers_is_none_of_the_group(serve: Serve) -> None:
    async with (
        provider("openai", otherwise=server_error()) as (_, m),
        provider("openai", otherwise=Happy(text="one")) as (_, other),
        serve(
            attrs.evolve(other, name="other", serves=("other",)),
            attrs.evolve(m, fallbacks=("other",)),
            attrs.evolve(m, name="n", serves=("m",)),
        ) as running,
    ):
        answer = await ask(running, ROUTES["chat"])
    assert answer.headers["x-atomr-deployment"] == "other"
    assert answer.headers["x-atomr-route"].endswith("; reason=only; candidates=1")


# --- how much of the time was ours ----------------------------------------------

SLOWER = 100


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_our_own_time_is_told_without_the_engine_s(
    serve: Serve, mock_clock: MockClock, *, stream: bool
) -> None:
    mock_clock.rate = 1
    # On this clock the engine takes long, and our own work next to nothing.
    slow = Deployment(name="m", runtime="mock", options={"delay_s": 0.002, "tokens": 3})
    async with serve(slow) as running:
        mock_clock.rate = 1 / SLOWER
        began_at, began = trio.current_time(), time.perf_counter()
        answer = await chat(running.port, stream=stream)
        took_s = trio.current_time() - began_at
        waited_s = (time.perf_counter() - began) / SLOWER
        mock_clock.rate = 1
    told_s = float(answer.headers["x-atomr-overhead-ms"]) / 1000
    assert took_s >= 0.006
    assert waited_s >= 0.006
    assert 0 <= told_s <= took_s - 0.006


async def test_our_own_time_is_told_without_the_queue_s(
    serve: Serve, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    one = Deployment(
        name="m",
        runtime="mock",
        options={"delay_s": 0.002, "tokens": 3},
        serving=Serving(max_concurrency=1),
    )
    answers: list[Answer] = []

    async def keep(running: Running) -> None:
        answers.append(await chat(running.port))

    async with serve(one) as running:
        (replica,) = await running.cluster.replicas("m")
        mock_clock.rate = 1 / SLOWER
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, running)
            nursery.start_soon(keep, running)
        mock_clock.rate = 1
        assert replica.running == 0
    told_s = [float(a.headers["x-atomr-overhead-ms"]) / 1000 for a in answers]
    assert max(told_s) < 0.004


@pytest.mark.parametrize(
    "route",
    [ROUTES["chat"], EMBEDDINGS, EMBED_CONTENT, COUNT_MESSAGES, COUNT_CONTENT],
    ids=lambda route: route.path,
)
async def test_our_own_time_is_told_without_failed_attempts(
    serve: Serve, mock_clock: MockClock, route: Route
) -> None:
    mock_clock.rate = 1
    again = RetryPolicy(max_attempts=2, backoff_s=0.005)
    async with (
        provider(route.own, server_error(503), retry=again) as (_, deployment),
        serve(deployment) as running,
    ):
        mock_clock.rate = 1 / SLOWER
        answer = await ask(running, route)
        mock_clock.rate = 1
    assert answer.headers["x-atomr-attempts"] == "2"
    assert float(answer.headers["x-atomr-overhead-ms"]) / 1000 < 0.0025


# --- the upstream's word for why it ended -----------------------------------------


@pytest.mark.parametrize(
    ("name", "over", "finish", "told"),
    [
        ("chat", "openai", Finish.STOP, None),
        ("chat", "anthropic", Finish.STOP, "end_turn"),
        ("chat", "anthropic", Finish.PAUSE, "pause_turn"),
        ("chat", "anthropic", Finish.CONTEXT_FULL, "model_context_window_exceeded"),
        ("chat", "gemini", Finish.CONTENT_FILTER, "SAFETY"),
        ("messages", "anthropic", Finish.PAUSE, None),
        ("messages", "gemini", Finish.LENGTH, "MAX_TOKENS"),
        ("generateContent", "gemini", Finish.STOP, None),
        ("generateContent", "anthropic", Finish.LENGTH, "max_tokens"),
        ("responses", "anthropic", Finish.STOP_SEQUENCE, "stop_sequence"),
    ],
)
async def test_a_whole_answer_tells_the_upstream_s_word_where_its_own_differs(
    serve: Serve, name: str, over: str, finish: Finish, told: str | None
) -> None:
    ended = Happy(text="one two", finish=finish)
    async with (
        provider(over, ended) as (_, deployment),
        serve(deployment) as running,
    ):
        answer = await ask(running, ROUTES[name])
    assert answer.status == 200
    assert answer.headers.get("x-atomr-native-finish-reason") == told


def test_words_of_several_choices_are_told_once_each() -> None:
    found = native_finish_headers(["A", "b", "A", "C\r\n"], b'{"finish":"b"}')
    assert found == ((b"x-atomr-native-finish-reason", b"A, C??"),)


# --- when to ask again ------------------------------------------------------------


@EVERY_ROUTE
async def test_a_rate_limit_says_when_to_ask_again(serve: Serve, route: Route) -> None:
    async with (
        provider(route.own, rate_limited("7")) as (_, deployment),
        serve(deployment) as running,
    ):
        answer = await ask(running, route)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["retry-after-ms"] == "7000"
    assert answer.headers["x-atomr-attempts"] == "1"
    assert "x-should-retry" not in answer.headers


@EVERY_ROUTE
async def test_an_open_circuit_says_when_to_ask_again(
    serve: Serve, route: Route
) -> None:
    breaker = BreakerPolicy(max_failures=1, open_s=30)
    async with (
        provider(route.own, server_error(500), breaker=breaker) as (_, deployment),
        serve(deployment) as running,
    ):
        failed = await ask(running, route)
        refused = await ask(running, route)
    assert failed.status == 502
    assert refused.status == (529 if route.own == "anthropic" else 503)
    assert 25 <= int(refused.headers["retry-after"]) <= 31
    assert 25_000 <= int(refused.headers["retry-after-ms"]) <= 31_000


@EVERY_ROUTE
async def test_a_full_queue_says_when_to_ask_again(serve: Serve, route: Route) -> None:
    full = Serving(max_concurrency=1, max_queue=0)
    async with (
        provider(route.own, HangBeforeHeaders(), serving=full) as (up, deployment),
        serve(deployment) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as tcp,
    ):
        await tcp.send_all(route.request())
        await up.wait_for_requests(1)
        refused = await ask(running, route)
        await trio.aclose_forcefully(tcp)
        await until(up.requests[0].client_left.is_set)
    assert refused.status == (529 if route.own == "anthropic" else 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert int(refused.headers["retry-after-ms"]) >= 1


@EVERY_ROUTE
@pytest.mark.parametrize("behaviour", [server_error(503), rate_limited("0.01")])
async def test_who_was_tried_again_here_is_not_to_be_tried_again(
    serve: Serve, route: Route, behaviour: Behaviour
) -> None:
    again = RetryPolicy(max_attempts=2, backoff_s=0.001)
    async with (
        provider(route.own, otherwise=behaviour, retry=again) as (up, deployment),
        serve(deployment) as running,
    ):
        answer = await ask(running, route)
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-atomr-attempts"] == "2"
    assert len(up.requests) == 2


@EVERY_ROUTE
async def test_what_stays_as_it_is_is_not_to_be_tried_again(
    serve: Serve, route: Route
) -> None:
    async with (
        provider(route.own, RefusedAs(Meaning.BAD_KEY)) as (_, deployment),
        serve(deployment) as running,
    ):
        answer = await ask(running, route)
    assert answer.status == 502
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-atomr-attempts"] == "1"
