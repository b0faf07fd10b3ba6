"""What a model lacks is said of that model, and nothing is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tests.gateway.dialects import EMBEDDINGS, ROUTES, provider
from tests.gateway.http import request

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

CLAUDE = "model 'claude-sonnet-4-5' of deployment 'm' does not support"


@pytest.mark.parametrize(
    ("route", "members", "problem"),
    [
        ("chat", {"logprobs": True}, "logprobs (request field 'logprobs')"),
        (
            "chat",
            {"modalities": ["text", "audio"]},
            "answers as audio (request field 'modalities')",
        ),
        (
            "generateContent",
            {"generationConfig": {"responseModalities": ["IMAGE"]}},
            "answers as image (request field 'generationConfig.responseModalities')",
        ),
    ],
)
async def test_what_a_model_lacks_is_refused_by_its_name(
    serve: Serve, route: str, members: dict[str, Any], problem: str
) -> None:
    async with (
        provider("anthropic") as (upstream, deployment),
        serve(deployment) as running,
    ):
        path = ROUTES[route].path.format(verb="generateContent")
        body = json.dumps({**ROUTES[route].members, **members}).encode()
        answer = await request(running.port, "POST", path, body)
    assert (answer.status, upstream.requests) == (400, [])
    assert answer.json["error"]["message"] == f"{CLAUDE} {problem}"


async def test_a_route_that_a_runtime_lacks_is_refused_by_its_models_name(
    serve: Serve,
) -> None:
    async with (
        provider("anthropic") as (_, deployment),
        serve(deployment) as running,
    ):
        body = json.dumps(EMBEDDINGS.members).encode()
        answer = await request(running.port, "POST", EMBEDDINGS.path, body)
    assert answer.status == 501
    assert answer.json["error"]["message"] == f"{CLAUDE} embeddings"


@pytest.mark.parametrize("told", [["TEXT"], ["text"], ["MODALITY_UNSPECIFIED"], None])
async def test_an_answer_in_text_is_what_everyone_gives(
    serve: Serve, told: list[str] | None
) -> None:
    async with (
        provider("anthropic") as (_, deployment),
        serve(deployment) as running,
    ):
        members = {"generationConfig": {"responseModalities": told}}
        body = json.dumps({**ROUTES["generateContent"].members, **members}).encode()
        path = "/v1beta/models/m:generateContent"
        assert (await request(running.port, "POST", path, body)).status == 200


async def test_where_a_model_lies_is_nothing_that_a_client_is_told(
    serve: Serve,
) -> None:
    # A name that is a path is what a local engine's is; what it lacks is the same.
    async with (
        provider("anthropic") as (_, deployment),
        serve(attrs.evolve(deployment, model="/home/ann/models/m.gguf")) as running,
    ):
        body = json.dumps(EMBEDDINGS.members).encode()
        answer = await request(running.port, "POST", EMBEDDINGS.path, body)
    assert answer.json["error"]["message"] == (
        "deployment 'm' does not support embeddings"
    )
