"""A base URL that leads nowhere is the operator's mistake, and says what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from tests.gateway.dialects import provider
from tests.gateway.http import Answer, chat

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve


async def ask(
    serve: Serve, upstream: str, runtime: str, path: str
) -> tuple[str, Answer]:
    """Ask a fake of one dialect by the runtime of another."""
    async with provider(upstream) as (fake, deployment):
        endpoint = fake.base_url.removesuffix("/v1") + path
        wrong = attrs.evolve(
            deployment, runtime=runtime, options={"endpoint": endpoint}
        )
        async with serve(wrong) as running:
            return endpoint, await chat(running.port)


OPENAI = "an OpenAI-like API"
VERSION = 'try endpoint = "{}/v1"'
DIALECT = "it speaks another dialect: try runtime = "


@pytest.mark.parametrize(
    ("upstream", "runtime", "path", "api", "fix"),
    [
        ("openai", "openai", "", OPENAI, VERSION),
        ("openai", "litellm", "", OPENAI, VERSION),
        ("openai", "openai", "/v1/v1", OPENAI, "check the deployment's endpoint"),
        ("anthropic", "openai", "/v1", OPENAI, f"{DIALECT}'anthropic'"),
        ("gemini", "openai", "", OPENAI, f"{DIALECT}'gemini'"),
        ("openai", "anthropic", "", "the Messages API", f"{DIALECT}'openai'"),
        ("openai", "gemini", "", "the Gemini API", f"{DIALECT}'openai'"),
    ],
)
async def test_the_error_names_the_deployment_its_endpoint_and_the_fix(
    serve: Serve, upstream: str, runtime: str, path: str, api: str, fix: str
) -> None:
    endpoint, answer = await ask(serve, upstream, runtime, path)
    assert answer.status == 502
    assert answer.json["error"]["code"] == "not_an_api"
    assert answer.json["error"]["message"] == (
        f"deployment 'm': {endpoint} answered 404 and not as {api} does; "
        + fix.format(endpoint)
    )
