"""A provider's own tool can be chosen where that provider answers, and there only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.testing.upstream_script import Happy
from tests.gateway.dialects import ROUTES, provider
from tests.gateway.http import Answer, request

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

SEARCH = {"type": "web_search"}
FUNCTION = {"type": "function", "name": "f"}

CHOICES = pytest.mark.parametrize(
    "choice",
    [
        SEARCH,
        {"type": "mcp", "server_label": "s", "name": "t"},
        {"type": "allowed_tools", "mode": "required", "tools": [SEARCH, FUNCTION]},
    ],
    ids=lambda choice: choice["type"],
)


async def respond(port: int, **members: Any) -> Answer:
    route = ROUTES["responses"]
    body = json.dumps({**route.members, "tools": [FUNCTION], **members}).encode()
    return await request(port, "POST", route.path, body)


@CHOICES
async def test_where_its_provider_answers_it_is_passed_on(
    serve: Serve, choice: dict[str, Any]
) -> None:
    async with (
        provider("openai", Happy(), options={"responses": True}) as (up, deployment),
        serve(deployment) as running,
    ):
        answer = await respond(running.port, tool_choice=choice)
    assert answer.status == 200
    assert up.requests[0].json["tool_choice"] == choice


@CHOICES
async def test_elsewhere_it_is_refused_by_name(
    serve: Serve, choice: dict[str, Any]
) -> None:
    async with (
        provider("anthropic") as (up, deployment),
        serve(deployment) as running,
    ):
        answer = await respond(running.port, tool_choice=choice)
    assert (answer.status, up.requests) == (400, [])
    assert answer.json["error"]["param"] == "tool_choice"
    kind = "mcp" if choice["type"] == "mcp" else "web_search"
    assert f"does not support the tool '{kind}'" in answer.json["error"]["message"]


async def test_a_chat_has_no_such_tools(serve: Serve) -> None:
    async with (
        provider("openai") as (up, deployment),
        serve(deployment) as running,
    ):
        members = {**ROUTES["chat"].members, "tool_choice": SEARCH}
        body = json.dumps(members).encode()
        answer = await request(running.port, "POST", ROUTES["chat"].path, body)
    assert (answer.status, up.requests) == (400, [])
    assert answer.json["error"]["param"] == "tool_choice.type"
