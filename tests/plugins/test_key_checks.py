"""What each provider's client asks to find out whether its key is taken."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.errors import InferenceError, UpstreamAuthError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import EnvSecret, PooledSecret, Secret
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.remote.credentials.fetched import FetchedReader
from atomr_infer.remote.credentials.keys import OneKey, fixed
from atomr_infer.remote.key_check import is_about_key
from atomr_infer.runtimes.contract import ChecksKey, RunnerContext
from atomr_infer.runtimes.credentials import Fetched
from atomr_infer.testing.upstream import (
    open_anthropic_upstream,
    open_gemini_upstream,
    open_litellm_upstream,
    open_openai_upstream,
)
from atomr_infer_anthropic.plugin import PLUGIN as ANTHROPIC
from atomr_infer_gemini.plugin import PLUGIN as GEMINI
from atomr_infer_litellm.plugin import PLUGIN as LITELLM
from atomr_infer_openai.config import AZURE, OpenAIOptions
from atomr_infer_openai.plugin import PLUGIN as OPENAI
from atomr_infer_openai.requests import models_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.runtimes.contract import RuntimePlugin

KEY = "sk-test-0123456789"

CASES = [
    (OPENAI, open_openai_upstream, "/v1/models", ("authorization", f"Bearer {KEY}")),
    (ANTHROPIC, open_anthropic_upstream, "/v1/models?limit=1", ("x-api-key", KEY)),
    (
        GEMINI,
        open_gemini_upstream,
        "/v1beta/models?pageSize=1",
        ("x-goog-api-key", KEY),
    ),
    (LITELLM, open_litellm_upstream, "/v1/models", ("authorization", f"Bearer {KEY}")),
]

IDS = ["openai", "anthropic", "gemini", "litellm"]


def deployment(plugin: RuntimePlugin, endpoint: str, **options: Any) -> Deployment:
    return Deployment(
        name="up", runtime=plugin.name, options={"endpoint": endpoint, **options}
    )


@pytest.mark.parametrize(("plugin", "open_upstream", "path", "shown"), CASES, ids=IDS)
async def test_a_key_is_taken_or_refused_by_the_list_of_models(
    plugin: RuntimePlugin, open_upstream: Any, path: str, shown: tuple[str, str]
) -> None:
    async with open_upstream(api_key=KEY) as upstream:
        wanted = deployment(plugin, upstream.base_url)
        for key in (KEY, "sk-other"):
            context = RunnerContext(credentials=fixed(Secret(key)))
            async with plugin.open_runner(wanted, context) as runner:
                assert isinstance(runner, ChecksKey)
                if key is KEY:
                    await runner.check_key()
                else:
                    with pytest.raises(UpstreamAuthError) as caught:
                        await runner.check_key()
        assert [(c.method, c.path, c.body) for c in upstream.checks] == [
            ("GET", path, b"")
        ] * 2
        name, value = shown
        assert upstream.checks[0].headers[name] == value
        assert (upstream.requests, "sk-other" in str(caught.value)) == ([], False)


async def test_each_key_of_several_may_be_the_one_that_is_taken() -> None:
    environ = {"A": "sk-revoked", "B": KEY}
    async with open_openai_upstream(api_key=KEY) as upstream:
        wanted = Deployment(
            name="up",
            runtime="openai",
            credentials=(PooledSecret(EnvSecret("A")), PooledSecret(EnvSecret("B"))),
            options={"endpoint": upstream.base_url},
        )
        keys = make_credentials(wanted, environ)
        context = RunnerContext(credentials=keys)
        async with OPENAI.open_runner(wanted, context) as runner:
            assert isinstance(runner, ChecksKey)
            await runner.check_key()
            upstream.api_keys = {"sk-none"}
            with pytest.raises(UpstreamAuthError, match="refuses all 2 keys"):
                await runner.check_key()
        assert keys.states == ("dead", "dead")


@asynccontextmanager
async def says(answer: bytes) -> AsyncIterator[str]:
    """A server that answers whatever it is asked, once for each connection."""

    async def answer_it(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            partial(trio.serve_tcp, answer_it, 0, host="127.0.0.1")
        )
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
        nursery.cancel_scope.cancel()


def http(status: str, body: str = "{}") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


@pytest.mark.parametrize(
    "answer",
    [
        http("403 Forbidden", '{"message": "Missing Authentication Token"}'),
        http("402 Payment Required"),
        http("404 Not Found"),
        http("500 Internal Server Error"),
        http("429 Too Many Requests"),
        http("401 Unauthorized", '{"error": {"message": "Missing scopes: api.model"}}'),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"220 mail.example ESMTP\r\n",
        b"",
    ],
    ids=[
        "proxy",
        "unpaid",
        "no list",
        "broken",
        "limited",
        "scope",
        "cut",
        "ftp",
        "gone",
    ],
)
async def test_what_says_nothing_of_the_key_leaves_it_alone(answer: bytes) -> None:
    async with says(answer) as endpoint:
        wanted = Deployment(
            name="up",
            runtime="openai",
            credentials=(PooledSecret(EnvSecret("A")), PooledSecret(EnvSecret("B"))),
            options={"endpoint": endpoint},
        )
        keys = make_credentials(wanted, {"A": KEY, "B": "sk-second-123"})
        context = RunnerContext(credentials=keys)
        async with OPENAI.open_runner(wanted, context) as runner:
            assert isinstance(runner, ChecksKey)
            with pytest.raises(InferenceError) as caught:
                await runner.check_key()
        assert not isinstance(caught.value, UpstreamAuthError)
        assert "dead" not in keys.states


def test_a_403_is_about_the_key_where_the_provider_itself_says_it() -> None:
    refused = UpstreamAuthError("Country not supported", status=403)
    assert is_about_key(refused, is_own=True)
    assert not is_about_key(refused, is_own=False)
    fetched = UpstreamAuthError("the credential provider 'google' failed")
    assert is_about_key(fetched, is_own=False)


def test_azure_s_list_has_a_version_and_no_deployment() -> None:
    options = OpenAIOptions(
        endpoint=f"https://me{AZURE}", azure_api_version="2024-10-21"
    )
    assert models_path(options) == "/openai/models?api-version=2024-10-21"


async def test_vertex_is_asked_nothing_and_its_token_is_fetched() -> None:
    fetched = 0

    async def fetch() -> Fetched:
        nonlocal fetched
        fetched += 1
        if fetched == 2:
            raise UpstreamAuthError("invalid_grant")
        return Fetched(Secret("ya29"))

    async with open_gemini_upstream(api_key="other") as upstream:
        wanted = deployment(GEMINI, upstream.base_url, project="p")
        for taken in (True, False):
            keys = OneKey(FetchedReader(fetch, label="google"))
            context = RunnerContext(credentials=keys)
            async with GEMINI.open_runner(wanted, context) as runner:
                assert isinstance(runner, ChecksKey)
                if taken:
                    await runner.check_key()
                else:
                    with pytest.raises(UpstreamAuthError, match="invalid_grant"):
                        await runner.check_key()
        assert (fetched, upstream.checks, upstream.requests) == (2, [], [])
