"""Vertex AI: a service account's token, the project's paths, and its own methods."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from atomr_infer import errors
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.secret import FileSecret, PluginSecret
from atomr_infer.model.usage import Usage
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_gemini_upstream
from atomr_infer.testing.upstreams.gemini import ACCESS_TOKEN
from atomr_infer_gemini.runner import GeminiRunner, open_gemini_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.testing.upstream_script import Behaviour
    from atomr_infer.testing.upstreams.fake import FakeUpstream

ROOT = "/v1/projects/proj-1/locations/europe-west4/publishers/google/models"


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


OpenVertex = Any


@pytest.fixture
def vertex(private_key: str, tmp_path: Path) -> OpenVertex:
    """Open a runner with a service account, and the upstream that serves both."""

    @asynccontextmanager
    async def open_vertex(
        *behaviours: Behaviour,
    ) -> AsyncIterator[tuple[GeminiRunner, FakeUpstream]]:
        async with open_gemini_upstream(behaviours) as upstream:
            path = tmp_path / "account.json"
            account = {
                "type": "service_account",
                "client_email": "me@proj-1.iam.gserviceaccount.com",
                "private_key": private_key,
                "private_key_id": "1",
                "token_uri": f"{upstream.origin}/token",
            }
            path.write_bytes(msgspec.json.encode(account))
            wanted = Deployment(
                name="vertex",
                runtime="gemini",
                credential=PluginSecret("google", {"key": FileSecret(str(path))}),
                options={
                    "project": "proj-1",
                    "region": "europe-west4",
                    "endpoint": upstream.base_url,
                },
            )
            credentials = make_credentials(wanted, {})
            async with open_gemini_runner(wanted, credentials) as runner:
                yield runner, upstream

    return open_vertex


async def test_token_is_bought_once_and_sent_as_bearer(
    vertex: OpenVertex, batch: Callable[..., ExecuteBatch]
) -> None:
    async with vertex() as (runner, upstream):
        for _ in range(2):
            async with runner.execute(batch()) as chunks:
                assert (await anext(chunks)).text == "Hello"
        assert [request.path for request in upstream.requests] == [
            "/token",
            f"{ROOT}/gemini-2.5-flash:streamGenerateContent?alt=sse",
            f"{ROOT}/gemini-2.5-flash:streamGenerateContent?alt=sse",
        ]
        headers = upstream.requests[1].headers
        assert headers["authorization"] == f"Bearer {ACCESS_TOKEN}"
        assert "x-goog-api-key" not in headers


async def test_section_7_rate_limit_of_vertex_has_no_wait(
    vertex: OpenVertex, batch: Callable[..., ExecuteBatch]
) -> None:
    limited = script.Refused(status=429, message="Resource exhausted.")
    async with vertex(limited) as (runner, _):
        with pytest.raises(errors.RateLimitedError) as caught:
            async with runner.execute(batch()):
                pytest.fail("entered")
    assert (caught.value.retry_after_s, caught.value.code) == (None, None)


async def test_prompt_is_counted_without_a_wrapping(
    vertex: OpenVertex, batch: Callable[..., ExecuteBatch]
) -> None:
    async with vertex() as (runner, upstream):
        assert await runner.count_tokens(batch()) == 3
        assert upstream.requests[1].path == f"{ROOT}/gemini-2.5-flash:countTokens"
        assert list(upstream.requests[1].json) == ["contents"]


async def test_gemini_embeds_one_text_in_each_request(vertex: OpenVertex) -> None:
    request = EmbedRequest(
        request_id="e-1",
        model="gemini-embedding-001",
        inputs=("a b", "c"),
        dimensions=3,
        task="CLUSTERING",
    )
    async with vertex() as (runner, upstream):
        found = await runner.embed(request)
        assert len(found.vectors) == 2
        sent = upstream.requests[1:]
        assert [r.path for r in sent] == [
            f"{ROOT}/gemini-embedding-001:embedContent"
        ] * 2
        assert sent[1].json == {
            "content": {"parts": [{"text": "c"}]},
            "embedContentConfig": {"taskType": "CLUSTERING", "outputDimensionality": 3},
        }


async def test_older_models_predict(vertex: OpenVertex) -> None:
    request = EmbedRequest(
        request_id="e-1",
        model="text-embedding-005",
        inputs=("a b", "c"),
        dimensions=3,
        task="CLUSTERING",
        title="t",
    )
    async with vertex() as (runner, upstream):
        found = await runner.embed(request)
        assert [len(vector) for vector in found.vectors] == [3, 3]
        assert not found.usage.estimated
        assert found.usage == Usage(input_uncached=found.usage.prompt_tokens)
        assert upstream.requests[1].json == {
            "instances": [
                {"content": "a b", "task_type": "CLUSTERING", "title": "t"},
                {"content": "c", "task_type": "CLUSTERING", "title": "t"},
            ],
            "parameters": {"outputDimensionality": 3},
        }
