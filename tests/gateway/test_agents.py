"""What coding agents send is taken for each provider, and answered in their form.

The requests in ``agents/`` are the agents' own, with their texts cut short and most
of their tools left out: Claude Code 2.1, Codex 0.171 and Gemini CLI 0.61.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from atomr_infer.testing import upstream as kit
from atomr_infer.testing.upstream_script import Happy, ToolCall, tool_calls
from tests.gateway.http import Answer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.testing.upstream import FakeUpstream

AGENTS = Path(__file__).parent / "agents"
MESSAGES, RESPONSES = "/v1/messages?beta=true", "/v1/responses"
GEMINI = "/v1beta/models/m:streamGenerateContent?alt=sse"
BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27"
)
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+zebra\n*** End Patch\n"
HI = Happy(text="Hi there.")


@attrs.frozen
class Provider:
    """A runtime, a model that it is asked for, and the fake behind it."""

    runtime: str
    model: str
    open: Callable[..., Any]
    options: dict[str, Any] = attrs.field(factory=dict)


PROVIDERS = {
    "anthropic": Provider(
        "anthropic", "claude-sonnet-4-5", kit.open_anthropic_upstream
    ),
    "gemini": Provider("gemini", "gemini-2.5-pro", kit.open_gemini_upstream),
    "compatible": Provider("openai", "qwen3", kit.open_litellm_upstream),
}
RESPONDING = Provider(
    "openai", "gpt-5.5", kit.open_openai_upstream, {"responses": True}
)
each_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)


@asynccontextmanager
async def gateway(
    provider: Provider, *script: Any
) -> AsyncIterator[tuple[int, FakeUpstream]]:
    """Serve a provider's fake under the name m; yields the gateway's port."""
    async with (
        provider.open(script) as fake,
        Cluster.connect("inproc://agents") as cluster,
    ):
        options = {"endpoint": fake.base_url, **provider.options}
        await cluster.deploy(
            Deployment(
                name="m",
                runtime=provider.runtime,
                model=provider.model,
                credential=Secret("sk-agents"),
                options=options,
            )
        )
        served = await cluster.serve("127.0.0.1:0")
        yield int(served.url.rpartition(":")[2]), fake


def sent(agent: str) -> dict[str, Any]:
    """Return what an agent sent, for the model m."""
    body: dict[str, Any] = json.loads((AGENTS / f"{agent}.json").read_bytes())
    if "model" in body:
        body["model"] = "m"
    return body


async def ask(port: int, path: str, body: dict[str, Any], **headers: str) -> Answer:
    answer = await request(port, "POST", path, json.dumps(body).encode(), **headers)
    assert answer.status == 200, answer.body
    return answer


def called(answer: Answer) -> dict[str, Any]:
    """Return the last item that a streamed response finished."""
    lines = answer.body.decode().split("\n")
    found = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    items = [e["item"] for e in found if e["type"] == "response.output_item.done"]
    assert found[-1]["response"]["output"] == items
    item: dict[str, Any] = items[-1]
    return item


@each_provider
async def test_claude_code_is_answered(provider: Provider) -> None:
    async with gateway(provider, HI) as (port, fake):
        answer = await ask(
            port,
            MESSAGES,
            sent("claude_code"),
            anthropic_version="2023-06-01",
            anthropic_beta=BETAS,
        )
        assert b"there." in answer.body
        assert b"message_stop" in answer.body
        assert [upstream.call is not None for upstream in fake.requests] == [True]


@each_provider
async def test_claude_code_brings_a_tools_result(provider: Provider) -> None:
    async with gateway(provider, HI) as (port, fake):
        answer = await ask(
            port,
            MESSAGES,
            sent("claude_code_tool_result"),
            anthropic_version="2023-06-01",
            anthropic_beta=BETAS,
        )
        assert b"there." in answer.body
        assert [upstream.call is not None for upstream in fake.requests] == [True]
        assert b"zebra" in fake.requests[0].body


@pytest.mark.parametrize(
    "provider", [*PROVIDERS.values(), RESPONDING], ids=[*PROVIDERS, "responses"]
)
@pytest.mark.parametrize("turn", ["codex_tool_result", "codex_apply_patch"])
async def test_codex_brings_a_tools_result(provider: Provider, turn: str) -> None:
    async with gateway(provider, HI) as (port, fake):
        answer = await ask(port, RESPONSES, sent(turn))
        assert called(answer)["content"][0]["text"] == "Hi there."
        (upstream,) = fake.requests
        assert upstream.call is not None
        assert b"zebra" in upstream.body


@each_provider
async def test_codex_gets_its_patch_as_free_text(provider: Provider) -> None:
    patching = ToolCall(name="apply_patch", arguments=(json.dumps({"input": PATCH}),))
    async with gateway(provider, tool_calls(patching)) as (port, _):
        answer = await ask(port, RESPONSES, sent("codex_apply_patch"))
        item = called(answer)
        assert (item["type"], item["name"]) == ("custom_tool_call", "apply_patch")
        assert item["input"] == PATCH
        assert (
            "tools[1] became a function that takes one text"
            in (answer.headers["x-atomr-warnings"])
        )


@each_provider
async def test_codex_gets_a_call_of_a_namespaces_function(provider: Provider) -> None:
    closing = ToolCall(name="multi_agent_v1__close_agent", arguments=("{}",))
    async with gateway(provider, tool_calls(closing)) as (port, _):
        item = called(await ask(port, RESPONSES, sent("codex_tool_result")))
        assert (item["type"], item["namespace"], item["name"], item["arguments"]) == (
            "function_call",
            "multi_agent_v1",
            "close_agent",
            "{}",
        )


@each_provider
async def test_gemini_cli_brings_a_tools_result(provider: Provider) -> None:
    async with gateway(provider, HI) as (port, fake):
        answer = await ask(port, GEMINI, sent("gemini_cli_tool_result"))
        assert b"there." in answer.body
        (upstream,) = fake.requests
        assert upstream.call is not None
        assert b"zebra" in upstream.body
