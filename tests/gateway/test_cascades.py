"""A cascade over providers on real sockets, as clients of several dialects see it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.rate_limits import OnLimit, RateLimits
from atomr_infer.model.virtual_key import VirtualKey
from atomr_infer.testing.upstream_script import (
    CutMidStream,
    EndWithoutFinish,
    ErrorInStream,
    HangBeforeHeaders,
    HangMidStream,
    Happy,
    Meaning,
    RefusedAs,
    server_error,
)
from tests.gateway.dialects import provider
from tests.gateway.http import chat, chat_body, events, head, request, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.testing.upstream import FakeUpstream
    from tests.gateway.conftest import Running, Serve

LARGE = Happy(text="the large answer")


@asynccontextmanager
async def cascaded(
    serve: Serve,
    small: object,
    large: object = LARGE,
    *,
    bound_s: float = 60.0,
    **settings: Any,
) -> AsyncIterator[tuple[Running, FakeUpstream, FakeUpstream]]:
    """Serve ``auto``: OpenAI's first, and then Anthropic's."""
    stages: list[OptionValue] = [
        {"model": "small", "timeout_s": bound_s, "refusals": ["no."]},
        "large",
    ]
    async with (
        provider("openai", otherwise=small) as (cheap, first),
        provider("anthropic", otherwise=large) as (dear, second),
        serve(
            attrs.evolve(first, name="small", serves=("small",)),
            attrs.evolve(second, name="large", serves=("large",)),
            Deployment(name="auto", runtime="cascade", options={"stages": stages}),
            **settings,
        ) as running,
    ):
        yield running, cheap, dear


HANGS = (HangBeforeHeaders, HangMidStream)


@pytest.mark.parametrize(
    ("small", "stream"),
    [
        (server_error(500), True),
        (CutMidStream(), True),
        (CutMidStream(), False),
        (EndWithoutFinish(), True),
        (ErrorInStream(), True),
        (HangBeforeHeaders(), True),
        (HangMidStream(), True),
        (Happy(text="no."), True),
        (Happy(text="no."), False),
    ],
)
async def test_whatever_becomes_of_the_first_one_the_client_has_the_seconds_answer(
    serve: Serve, small: object, stream: bool
) -> None:
    bound_s = 0.3 if isinstance(small, HANGS) else 60.0
    async with cascaded(serve, small, bound_s=bound_s) as (running, cheap, dear):
        answer = await chat(running.port, model="auto", stream=stream)
        # On a busy machine the time may be over before it was asked.
        assert len(cheap.requests) == 1 or isinstance(small, HANGS)
    assert len(dear.requests) == 1
    assert answer.status == 200
    if stream:
        pieces = [json.loads(event) for event in events(answer)[:-1]]
        assert events(answer)[-1] == "[DONE]"
        deltas = [piece["choices"][0]["delta"] for piece in pieces if piece["choices"]]
        text = "".join(delta.get("content") or "" for delta in deltas)
    else:
        text = answer.json["choices"][0]["message"]["content"]
    assert text == "the large answer"
    assert answer.headers["x-atomr-deployment"] == "auto"
    assert answer.headers["x-atomr-stages"].startswith("small openai 0.")
    assert "large" in answer.headers["x-atomr-stages"].partition(", ")[2]


async def test_what_a_provider_withholds_is_not_asked_of_the_next(serve: Serve) -> None:
    withheld = RefusedAs(Meaning.CONTENT_POLICY)
    async with cascaded(serve, withheld) as (running, _, dear):
        answer = await chat(running.port, model="auto")
        assert dear.requests == []
    assert answer.status == 400
    assert answer.json["error"]["code"] == "content_policy_violation"


@pytest.mark.parametrize("hangs", ["small", "large"])
async def test_a_client_that_leaves_closes_the_connection_of_the_stage_that_runs(
    serve: Serve, hangs: str
) -> None:
    small = HangMidStream() if hangs == "small" else Happy(text="no.")
    async with cascaded(serve, small, HangMidStream()) as (running, cheap, dear):
        upstream = cheap if hangs == "small" else dear
        body = chat_body(model="auto", stream=True)
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as tcp:
            await tcp.send_all(head("POST", "/v1/chat/completions", len(body)) + body)
            await until(lambda: len(upstream.requests) == 1)
        with trio.fail_after(10):
            await upstream.requests[0].client_left.wait()


async def test_a_keys_rate_counts_each_stage_and_names_the_cascade_only(
    serve: Serve,
) -> None:
    two = RateLimits(requests_per_minute=2, on_exceeded=OnLimit.REJECT)
    async with cascaded(serve, Happy(text="no."), virtual_keys=True) as (running, *_):
        ring = running.cluster.key_ring
        key = VirtualKey(id=ring.new_id(), name="a", models=("auto",), rate_limits=two)
        secret = (await ring.create(key)).secret.reveal()

        async def ask(model: str) -> int:
            path, body = "/v1/chat/completions", chat_body(model=model, max_tokens=5)
            answer = await request(running.port, "POST", path, body, x_api_key=secret)
            return answer.status

        assert await ask("large") == 403
        assert await ask("auto") == 200
        assert await ask("auto") == 429
