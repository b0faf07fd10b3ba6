"""A deployment says how long an answer is to a request that does not say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.model.budget import Budget, Per
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price, Rates
from atomr_infer.testing.upstream import open_openai_upstream
from tests.gateway.http import request

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve
    from tests.gateway.http import Answer

HI = {"messages": [{"role": "user", "content": "hi"}]}


def deployment(base_url: str, **more: Any) -> Deployment:
    given: dict[str, Any] = {"model": "own-model", **more}
    return Deployment(
        name="m",
        runtime="openai",
        price=Price(rates=Rates(input=1, output=1)),
        budget=(Budget(per=Per.DAY, usd="0.01"),),
        options={"endpoint": base_url},
        **given,
    )


async def ask(port: int, path: str, **members: Any) -> Answer:
    body = json.dumps({"model": "m", **members}).encode()
    return await request(port, "POST", path, body)


async def test_a_budget_is_kept_to_without_a_word_of_the_client(serve: Serve) -> None:
    async with (
        open_openai_upstream() as upstream,
        serve(deployment(upstream.base_url, default_max_tokens=77)) as running,
    ):
        for stream in (False, True):
            answer = await ask(
                running.port, "/v1/chat/completions", stream=stream, **HI
            )
            assert answer.status == 200
        answer = await ask(running.port, "/v1/responses", input="hi")
        assert answer.status == 200
        answer = await ask(running.port, "/v1/completions", prompt="hi")
        assert answer.status == 200
        said = [each.json["max_tokens"] for each in upstream.requests]
    assert said == [77, 77, 77, 77]


@pytest.mark.parametrize(
    ("model", "member"),
    [("own-model", "max_tokens"), ("gpt-5-mini", "max_completion_tokens")],
)
async def test_it_is_spelled_as_the_model_knows_it(
    serve: Serve, model: str, member: str
) -> None:
    async with (
        open_openai_upstream() as upstream,
        serve(
            deployment(upstream.base_url, default_max_tokens=77, model=model)
        ) as running,
    ):
        answer = await ask(running.port, "/v1/chat/completions", **HI)
        assert answer.status == 200
        asked = upstream.requests[0].json
    assert asked[member] == 77
    assert len({"max_tokens", "max_completion_tokens"} & asked.keys()) == 1


@pytest.mark.parametrize("tokens", [5, 500])
async def test_what_the_client_says_goes_before_it(serve: Serve, tokens: int) -> None:
    async with (
        open_openai_upstream() as upstream,
        serve(deployment(upstream.base_url, default_max_tokens=77)) as running,
    ):
        answer = await ask(
            running.port, "/v1/chat/completions", max_tokens=tokens, **HI
        )
        assert answer.status == 200
        assert upstream.requests[0].json["max_tokens"] == tokens


async def test_what_it_sets_aside_is_bounded_by_it(serve: Serve) -> None:
    # A microdollar for each token, and ten thousand of them.
    async with (
        open_openai_upstream() as upstream,
        serve(deployment(upstream.base_url, default_max_tokens=10_001)) as running,
    ):
        answer = await ask(running.port, "/v1/chat/completions", **HI)
        assert answer.status == 402
        assert answer.json["error"]["code"] == "budget_exceeded"
        assert upstream.requests == []


async def test_without_it_the_error_says_what_to_write(serve: Serve) -> None:
    async with (
        open_openai_upstream() as upstream,
        serve(deployment(upstream.base_url)) as running,
    ):
        answer = await ask(running.port, "/v1/chat/completions", **HI)
    assert answer.status == 402
    assert "write default_max_tokens for 'm'" in answer.json["error"]["message"]
