"""What an answer cost is in its headers, where somebody knows."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.secret import Secret
from atomr_infer.testing.upstream import open_openai_upstream
from tests.gateway.http import chat, chat_body, request

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve


def mock(**members: Any) -> Deployment:
    return Deployment(name="m", runtime="mock", **members)


async def test_a_whole_answer_says_what_it_cost(serve: Serve) -> None:
    price = Price(rates=Rates(input="0.15", output="0.6"))
    async with serve(mock(price=price)) as running:
        answer = await chat(running.port)
    # Three tokens each way.
    assert answer.headers["x-atomr-cost-usd"] == "0.00000225"


async def test_what_costs_nothing_says_so(serve: Serve) -> None:
    async with serve(mock(price=Price(rates=Rates(input=0, output=0)))) as running:
        answer = await chat(running.port)
    assert answer.headers["x-atomr-cost-usd"] == "0"


async def test_a_cost_that_nobody_knows_is_not_said(serve: Serve) -> None:
    async with serve(mock()) as running:
        answer = await chat(running.port)
    assert answer.status == 200
    assert "x-atomr-cost-usd" not in answer.headers


PRICE = Price(rates=Rates(input="0.15", output="0.6"))


async def test_vectors_say_what_they_cost(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = json.dumps({"model": "m", "input": "one two three"}).encode()
    async with (
        open_openai_upstream() as upstream,
        serve(embedder(upstream.base_url)) as running,
    ):
        answer = await request(running.port, "POST", "/v1/embeddings", body)
        gemini = await request(
            running.port,
            "POST",
            "/v1beta/models/m:embedContent",
            b'{"content":{"parts":[{"text":"one two three"}]}}',
        )
    assert answer.json["usage"]["prompt_tokens"] == 3
    assert answer.headers["x-atomr-cost-usd"] == "0.00000045"
    assert gemini.headers["x-atomr-cost-usd"] == "0.00000045"
    assert caplog.text.count("cost=$0.00000045") == 2


def embedder(base_url: str) -> Deployment:
    return Deployment(
        name="m",
        runtime="openai",
        model="text-embedding-3-small",
        credential=Secret("k"),
        price=PRICE,
        options={"endpoint": base_url},
    )


PATHS: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "one two"}]},
    "/v1/completions": {"prompt": "one two"},
    "/v1/responses": {"input": "one two"},
    "/v1/messages": {
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "one two"}],
    },
}


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_says_what_it_cost_when_it_is_asked_to(
    serve: Serve, path: str
) -> None:
    body = json.dumps({"model": "m", "stream": True, **PATHS[path]}).encode()
    async with serve(mock(price=PRICE)) as running:
        asked = {"x_atomr_stream_cost": "true"}
        told = await request(running.port, "POST", path, body, **asked)
        untold = await request(running.port, "POST", path, body)
    # Two tokens each way, behind the last event.
    assert told.body.endswith(b"\n\n: x-atomr-cost-usd: 0.0000015\n\n")
    assert b"x-atomr-cost-usd" not in untold.body


async def test_where_nobody_knows_or_comments_break_nothing_is_said(
    serve: Serve,
) -> None:
    asked = {"x_atomr_stream_cost": "true"}
    async with serve(mock()) as running:
        body = chat_body(stream=True)
        path = "/v1/chat/completions"
        answer = await request(running.port, "POST", path, body, **asked)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    async with serve(mock(price=PRICE)) as running:
        body = b'{"contents":[{"parts":[{"text":"one two"}]}]}'
        path = "/v1beta/models/m:streamGenerateContent"
        for query in ("?alt=sse", ""):
            answer = await request(running.port, "POST", path + query, body, **asked)
            assert answer.status == 200
            assert b"x-atomr" not in answer.body


async def test_bytes_that_are_passed_on_have_the_comment_behind_them(
    serve: Serve,
) -> None:
    async with open_openai_upstream() as upstream:
        deployment = Deployment(
            name="m",
            runtime="openai",
            credential=Secret("k"),
            price=PRICE,
            options={"endpoint": upstream.base_url},
        )
        async with serve(deployment) as running:
            asked = {"x_atomr_stream_cost": "true"}
            path = "/v1/chat/completions"
            body = chat_body(stream=True)
            answer = await request(running.port, "POST", path, body, **asked)
    before, _, comment = answer.body.rpartition(b": x-atomr-cost-usd: ")
    assert before.endswith(b"data: [DONE]\n\n")
    assert float(comment) > 0
