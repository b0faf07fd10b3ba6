"""A LiteLLM proxy as an upstream: OpenAI's format, tags, and its own figures."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer import errors
from atomr_infer.errors import ConfigError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.secret import Secret
from atomr_infer.model.source import Source
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import FakeUpstream, open_litellm_upstream
from atomr_infer_litellm.config import parse_litellm_options
from atomr_infer_litellm.plugin import PLUGIN
from atomr_infer_litellm.runner import LiteLLMRunner, open_litellm_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


ASK = ExecuteBatch(
    request_id="r", model="m", messages=(Message(Role.USER, "one two"),), stream=False
)


def deployment(**options: Any) -> Deployment:
    endpoint = {"endpoint": "http://127.0.0.1:1/v1"}
    return Deployment(name="up", runtime="litellm", options=endpoint | options)


@attrs.frozen
class Pair:
    runner: LiteLLMRunner
    upstream: FakeUpstream


@asynccontextmanager
async def over_socket(*behaviours: Any, **options: Any) -> AsyncIterator[Pair]:
    async with open_litellm_upstream(behaviours) as upstream:
        wanted = deployment(endpoint=upstream.base_url, **options)
        key = fixed(Secret("sk-litellm-1"))
        async with open_litellm_runner(wanted, key) as runner:
            yield Pair(runner, upstream)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_runner_keeps_the_contract(check: Check) -> None:
    async with over_socket() as pair:
        await check(pair.runner, ConformanceCase(model="tiny"))
        assert pair.runner.active == 0


def test_plugin_keeps_the_contract() -> None:
    check_plugin(PLUGIN, deployment(), heavy={"litellm", "openai"})


@pytest.mark.parametrize("straight", [False, True])
async def test_what_the_proxy_says_that_it_cost_is_in_the_usage(straight: bool) -> None:
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "one two"}]}
    ).encode()
    source = Source(Dialect.OPENAI_CHAT, body, "m") if straight else None
    batch = attrs.evolve(ASK, source=source)
    async with over_socket() as pair, pair.runner.execute(batch) as chunks:
        usages = [c.usage async for c in chunks if c.usage is not None]
    assert [usage.reported_usd for usage in usages] == [Decimal("0.000123")]


async def test_tags_metadata_and_few_retries_go_in_headers() -> None:
    options = {"tags": ["a", "b"], "metadata": {"team": "x"}}
    async with over_socket(**options) as pair:
        async with pair.runner.execute(ASK) as chunks:
            assert [chunk async for chunk in chunks]
        headers = pair.upstream.requests[0].headers
    assert headers["x-litellm-tags"] == "a,b"
    assert headers["x-litellm-spend-logs-metadata"] == '{"team":"x"}'
    assert headers["x-litellm-num-retries"] == "0"
    assert headers["authorization"] == "Bearer sk-litellm-1"


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [
        (script.Meaning.BAD_KEY, errors.UpstreamAuthError),
        (script.Meaning.CONTENT_POLICY, errors.ContentFilterError),
        (script.Meaning.CONTEXT_TOO_LONG, errors.ContextLengthError),
        (script.Meaning.OUT_OF_QUOTA, errors.UpstreamAuthError),
        (script.Meaning.OVERLOADED, errors.UpstreamError),
    ],
)
async def test_the_class_that_litellm_names_says_more_than_its_400(
    meaning: script.Meaning, expected: type[errors.InferenceError]
) -> None:
    async with over_socket(script.RefusedAs(meaning)) as pair:
        with pytest.raises(errors.InferenceError) as raised:
            async with pair.runner.execute(ASK) as chunks:
                assert [chunk async for chunk in chunks]
    assert type(raised.value) is expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tags": "a"}, "'tags' must be a list of texts"),
        ({"tags": ["a,b"]}, "'tags' holds 'a,b'"),
        ({"metadata": {"a": 1}}, "'metadata.a' must be a text, not 1"),
        ({"num_retries": True}, "'num_retries' must be a whole number"),
        ({"num_retries": 11}, "from 0 to 10, not 11"),
        ({"tag": ["a"]}, "'tag' is not known"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_litellm_options(deployment(**options))


def test_the_endpoint_is_needed() -> None:
    with pytest.raises(ConfigError, match="'endpoint' is needed"):
        parse_litellm_options(Deployment(name="up", runtime="litellm"))


def test_the_environment_can_name_a_proxy() -> None:
    environ = {"LITELLM_PROXY_API_BASE": "http://x:4000", "LITELLM_PROXY_API_KEY": "k"}
    [found] = PLUGIN.environment_deployments(environ)
    assert found.serves == ("litellm/*",)
    assert PLUGIN.environment_deployments({}) == ()
