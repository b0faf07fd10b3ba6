"""Which model is asked, where and at what price is the deployment's to say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer.testing.upstream_script import Happy
from tests.gateway.dialects import EMBEDDINGS, ROUTES, provider
from tests.gateway.http import Answer, request

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

OWN = {
    "chat": "openai",
    "completions": "openai",
    "responses": "openai",
    "messages": "anthropic",
    "generateContent": "gemini",
}


async def post(port: int, route: str, **members: Any) -> Answer:
    path, plain = ROUTES[route].path, ROUTES[route].members
    body = json.dumps({**plain, **members}).encode()
    return await request(port, "POST", path.format(verb="generateContent"), body)


@pytest.mark.parametrize("route", list(ROUTES))
@pytest.mark.parametrize(
    "member", ["models", "fallbacks", "api_base", "Models", "base_url", "provider"]
)
async def test_a_client_cannot_choose_another_model_or_endpoint(
    serve: Serve, route: str, member: str
) -> None:
    options = {"responses": True} if route == "responses" else {}
    async with (
        provider(OWN[route], Happy(), options=options) as (upstream, deployment),
        serve(deployment) as running,
    ):
        answer = await post(running.port, route, **{member: ["https://other.example"]})
    assert (answer.status, upstream.requests) == (400, [])
    assert " is not allowed: which model is asked" in answer.json["error"]["message"]


async def test_an_embedding_cannot_either(serve: Serve) -> None:
    async with (
        provider("openai", Happy()) as (upstream, deployment),
        serve(deployment) as running,
    ):
        body = json.dumps({**EMBEDDINGS.members, "api_base": "https://o.example"})
        answer = await request(running.port, "POST", EMBEDDINGS.path, body.encode())
    assert (answer.status, upstream.requests) == (400, [])
    assert answer.json["error"]["param"] == "api_base"


async def test_no_fallback_takes_what_is_refused(serve: Serve) -> None:
    async with (
        provider("openai") as (first, deployment),
        provider("openai", Happy()) as (second, other),
        serve(
            attrs.evolve(other, name="other"),
            attrs.evolve(deployment, fallbacks=("other",)),
        ) as running,
    ):
        answer = await post(running.port, "chat", models=["dear"])
    assert answer.status == 400
    assert (first.requests, second.requests) == ([], [])


async def test_a_litellm_proxys_tags_are_the_deployments(serve: Serve) -> None:
    async with (
        provider("openai", Happy()) as (upstream, deployment),
        serve(attrs.evolve(deployment, runtime="litellm")) as running,
    ):
        tagged = await post(running.port, "chat", metadata={"tags": ["paid"]})
        plain = await post(running.port, "chat", metadata={"a": "b"})
    assert (tagged.status, tagged.json["error"]["param"]) == (400, "metadata.tags")
    assert (plain.status, len(upstream.requests)) == (200, 1)


async def test_what_does_not_reach_a_provider_is_only_told(serve: Serve) -> None:
    async with (
        provider("anthropic", Happy()) as (_, deployment),
        serve(deployment) as running,
    ):
        answer = await post(running.port, "chat", models=["other"])
    assert answer.status == 200
    assert "models" in answer.headers["x-atomr-warnings"]


@pytest.mark.parametrize(("route", "n"), [("chat", 17), ("completions", 128)])
async def test_one_request_is_not_made_into_any_number_of_them(
    serve: Serve, route: str, n: int
) -> None:
    async with (
        provider("anthropic") as (upstream, deployment),
        serve(deployment) as running,
    ):
        answer = await post(running.port, route, n=n)
    assert (answer.status, upstream.requests) == (400, [])
    assert answer.json["error"]["param"] == "n"
    assert "at most 16 answers per request; n is" in answer.json["error"]["message"]


async def test_up_to_the_bound_each_answer_is_a_request(serve: Serve) -> None:
    async with (
        provider("anthropic", otherwise=Happy()) as (upstream, deployment),
        serve(deployment) as running,
    ):
        answer = await post(running.port, "chat", n=16)
    assert (answer.status, len(answer.json["choices"])) == (200, 16)
    assert len(upstream.requests) == 16
