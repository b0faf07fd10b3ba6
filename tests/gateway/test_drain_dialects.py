"""Past the drain's time each client is told, in its own dialect, that it was cut."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.model.deployment import Serving
from atomr_infer.testing.upstream_script import HangBeforeHeaders, HangMidStream, Happy
from tests.gateway.dialects import (
    COUNT_CONTENT,
    COUNT_MESSAGES,
    EMBED_CONTENT,
    EMBEDDINGS,
    ROUTES,
    Route,
    provider,
)
from tests.gateway.http import parse, unchunk, until
from tests.gateway.http1 import Client

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

TOLD = "the server is shutting down"

WORDS = Happy(tokens=("Hello", " from", " the", " fake"))

OTHER = {"openai": "anthropic", "anthropic": "gemini", "gemini": "openai"}

OVER = pytest.mark.parametrize(
    ("name", "over"),
    [
        pytest.param(name, over, id=f"{name}-{over}")
        for name, route in ROUTES.items()
        for over in (route.own, OTHER[route.own])
    ],
)


def openai_error(code: str = "not_ready") -> dict[str, Any]:
    error = {"message": TOLD, "type": "server_error", "param": None, "code": code}
    return {"error": error}


GEMINI = {"error": {"code": 503, "message": TOLD, "status": "UNAVAILABLE"}}


def refusal(name: str, told: dict[str, Any]) -> None:
    """Check the body of an answer that is refused whole."""
    match name:
        case "messages":
            assert told["error"] == {"type": "overloaded_error", "message": TOLD}
            assert told["type"] == "error"
        case "generateContent":
            error = {name: told["error"][name] for name in GEMINI["error"]}
            assert error == GEMINI["error"]
        case _:
            assert told == openai_error()


def last_event(body: bytes) -> tuple[str, dict[str, Any]]:
    """The name and data of a stream's last event."""
    assert body.endswith(b"\n\n")
    name = ""
    data = b""
    for line in body[:-2].rpartition(b"\n\n")[2].split(b"\n"):
        field, _, value = line.partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            data = value
    return name, json.loads(data)


def cut(name: str, event: str, told: dict[str, Any]) -> None:
    """Check the event that ends a stream."""
    match name:
        case "messages":
            assert event == "error"
            assert told["type"] == "error"
            assert told["error"] == {"type": "overloaded_error", "message": TOLD}
        case "responses":
            assert event == told["type"] == "response.failed"
            assert told["response"]["status"] == "failed"
            assert told["response"]["error"]["message"] == TOLD
        case "generateContent":
            refusal(name, told)
        case _:
            assert told == openai_error()


async def connect(running: Running) -> Client:
    return Client(await trio.open_tcp_stream("127.0.0.1", running.port))


@OVER
async def test_a_stream_that_is_cut_ends_with_an_error_and_nothing_else(
    serve: Serve, name: str, over: str
) -> None:
    hangs = HangMidStream(after=2, answer=WORDS)
    async with (
        provider(over, hangs) as (up, deployment),
        serve(deployment) as running,
    ):
        client = await connect(running)
        await client.send(ROUTES[name].request(stream=True))
        seen = await client.read_until(b" from")
        await running.gateway.drain(timeout_s=0)
        raw = seen + await client.rest()
        await client.stream.aclose()
        await until(up.requests[0].client_left.is_set)
    body = unchunk(raw.partition(b"\r\n\r\n")[2])
    cut(name, *last_event(body))
    for end in (b"[DONE]", b"message_stop", b"response.completed", b'"STOP"'):
        assert end not in body
    assert raw.endswith(b"0\r\n\r\n"), "the body itself is whole"


async def test_a_response_that_is_passed_on_does_not_begin_anew_to_fail(
    serve: Serve,
) -> None:
    hangs = HangMidStream(after=2, answer=WORDS)
    async with (
        provider("openai", hangs, options={"responses": True}) as (up, deployment),
        serve(deployment) as running,
    ):
        client = await connect(running)
        await client.send(ROUTES["responses"].request(stream=True))
        seen = await client.read_until(b" from")
        assert up.requests[0].path == "/v1/responses", "passed on"
        await running.gateway.drain(timeout_s=0)
        raw = seen + await client.rest()
        await client.stream.aclose()
    body = unchunk(raw.partition(b"\r\n\r\n")[2])
    cut("responses", *last_event(body))
    assert body.count(b"event: response.created\n") == 1
    assert body.count(b"event: response.failed\n") == 1
    told = [
        json.loads(event.split(b"data: ")[1]) for event in body.split(b"\n\n") if event
    ]
    assert [each["sequence_number"] for each in told] == list(range(len(told)))
    assert told[-1]["response"]["id"] == told[0]["response"]["id"], "the upstream's"


@OVER
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("queued", [True, False], ids=["queued", "asked"])
async def test_who_has_nothing_yet_is_refused_with_a_status(
    serve: Serve, name: str, over: str, *, stream: bool, queued: bool
) -> None:
    one = Serving(max_concurrency=1, max_queue=1)
    async with (
        provider(over, HangBeforeHeaders(), serving=one) as (up, deployment),
        serve(deployment) as running,
    ):
        (replica,) = await running.cluster.replicas("m")
        clients = [await connect(running) for _ in range(1 + queued)]
        for client in clients:
            await client.send(ROUTES[name].request(stream=stream))
        await up.wait_for_requests(1)
        await until(lambda: replica.waiting == queued)
        await running.gateway.drain(timeout_s=0)
        answers = [parse(await client.rest()) for client in clients]
        for client in clients:
            await client.stream.aclose()
        await until(lambda: (replica.running, replica.waiting) == (0, 0))
        assert len(up.requests) == 1
    for answer in answers:
        assert answer.status == (529 if name == "messages" else 503)
        assert answer.headers["connection"] == "close"
        assert int(answer.headers["retry-after"]) >= 1
        refusal(name, answer.json)


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("embeddings", EMBEDDINGS),
        ("generateContent", EMBED_CONTENT),
        ("messages", COUNT_MESSAGES),
        ("generateContent", COUNT_CONTENT),
    ],
    ids=["embeddings", "embedContent", "count_tokens", "countTokens"],
)
async def test_an_embedding_or_a_count_is_refused_with_a_status(
    serve: Serve, name: str, route: Route
) -> None:
    async with (
        provider(route.own, HangBeforeHeaders()) as (up, deployment),
        serve(deployment) as running,
    ):
        client = await connect(running)
        await client.send(route.request())
        await up.wait_for_requests(1)
        await running.gateway.drain(timeout_s=0)
        answer = parse(await client.rest())
        await client.stream.aclose()
        await until(up.requests[0].client_left.is_set)
    assert answer.status == (529 if name == "messages" else 503)
    refusal(name, answer.json)


@OVER
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_what_ends_in_time_is_whole(
    serve: Serve, name: str, over: str, *, stream: bool
) -> None:
    slow = Happy(tokens=("Hello", " world"), delay_s=0.02)
    async with (
        provider(over, slow) as (up, deployment),
        serve(deployment) as running,
    ):
        client = await connect(running)
        await client.send(ROUTES[name].request(stream=stream))
        await up.wait_for_requests(1)
        await running.gateway.drain(timeout_s=10)
        answer = parse(await client.rest())
        await client.stream.aclose()
    assert answer.status == 200
    assert b"Hello" in answer.body
    assert b" world" in answer.body
    assert b"error" not in answer.body.replace(b'"error":null', b"")
