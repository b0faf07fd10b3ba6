"""What virtual keys and teams may use, as a client meets it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from atomr_infer.model.budget import Budget, Per
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.rate_limits import OnLimit, RateLimits
from atomr_infer.model.team import Team
from atomr_infer.model.virtual_key import VirtualKey
from tests.gateway.http import Answer, chat_body, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.cluster import Cluster
    from atomr_infer.serving.limits.key_ring import KeyRing
    from tests.gateway.conftest import Running, Serve

MOCK = Deployment(name="m", runtime="mock")
TWO = RateLimits(requests_per_minute=2, on_exceeded=OnLimit.REJECT)


@asynccontextmanager
async def opened(serve: Serve) -> AsyncIterator[tuple[Running, KeyRing]]:
    async with serve(MOCK, virtual_keys=True) as running:
        yield running, running.cluster.key_ring


async def make(ring: KeyRing, name: str, **terms: Any) -> str:
    key = VirtualKey(id=ring.new_id(), name=name, **terms)
    return (await ring.create(key)).secret.reveal()


async def ask(running: Running, key: str, **members: Any) -> Answer:
    path, body = "/v1/chat/completions", chat_body(**members)
    return await request(running.port, "POST", path, body, x_api_key=key)


async def statuses(running: Running, *keys: str) -> list[int]:
    return [(await ask(running, key, max_tokens=5)).status for key in keys]


async def test_a_keys_limit_is_its_own(serve: Serve) -> None:
    async with opened(serve) as (running, ring):
        a = await make(ring, "a", rate_limits=TWO)
        b = await make(ring, "b", rate_limits=TWO)
        free = await make(ring, "free")
        assert await statuses(running, a, a, a) == [200, 200, 429]
        assert await statuses(running, b, free, free, free) == [200] * 4
        answer = await ask(running, a)
    assert answer.json["error"]["code"] == "rate_limit_exceeded"
    assert int(answer.headers["retry-after"]) > 1
    assert "the rate limit of key 'a' is reached" in answer.json["error"]["message"]


async def test_a_team_shares_its_limit(serve: Serve) -> None:
    async with opened(serve) as (running, ring):
        ring.take_teams([Team(name="web", rate_limits=TWO)])
        a, b = await make(ring, "a", team="web"), await make(ring, "b", team="web")
        assert await statuses(running, a, b, a, b) == [200, 200, 429, 429]
        ring.take_teams([Team(name="web")])
        assert await statuses(running, a, b) == [200, 200]


async def test_a_rotated_key_keeps_its_limit(serve: Serve) -> None:
    async with opened(serve) as (running, ring):
        old = await make(ring, "a", rate_limits=TWO)
        new = (await ring.rotate("a", grace_s=60)).secret.reveal()
        assert await statuses(running, old, new, old, new) == [200, 200, 429, 429]


async def test_a_keys_budget_is_its_own(serve: Serve) -> None:
    async with opened(serve) as (running, ring):
        small = Budget(per=Per.DAY, tokens=60)
        a = await make(ring, "a", budgets=(small,))
        b = await make(ring, "b", budgets=(small,))
        spent = await ask(running, a, max_tokens=40)
        refused = await ask(running, a, max_tokens=60)
        assert (spent.status, refused.status) == (200, 402)
        assert refused.json["error"]["code"] == "budget_exceeded"
        assert (await ask(running, b, max_tokens=40)).status == 200


async def test_of_a_revoked_key_nothing_is_left(serve: Serve) -> None:
    async with opened(serve) as (running, ring):
        await make(
            ring, "a", rate_limits=TWO, budgets=(Budget(per=Per.DAY, tokens=60),)
        )
        assert kept(running.cluster) == (1, 1)
        await ring.revoke("a")
        assert kept(running.cluster) == (0, 0)


def kept(cluster: Cluster) -> tuple[int, int]:
    serving = cluster._serving
    return len(serving.limits.shown()), len(serving.budgets.gates)


async def test_an_answer_says_what_is_left_of_the_keys_own_limit(serve: Serve) -> None:
    limits = RateLimits(requests_per_minute=5, tokens_per_minute=10_000)
    async with opened(serve) as (running, ring):
        limited = await make(ring, "a", rate_limits=limits)
        free = await make(ring, "free")
        for stream in (False, True):
            answer = await ask(running, limited, max_tokens=5, stream=stream)
            assert answer.status == 200
            told = {
                name: value
                for name, value in answer.headers.items()
                if name.startswith("x-ratelimit-")
            }
            left = int(told.pop("x-ratelimit-remaining-tokens"))
            assert 9_000 < left < 10_000
            assert told == {
                "x-ratelimit-limit-requests": "5",
                "x-ratelimit-remaining-requests": "3" if stream else "4",
                "x-ratelimit-reset-requests": "60s",
                "x-ratelimit-limit-tokens": "10000",
                "x-ratelimit-reset-tokens": "60s",
            }
        answer = await ask(running, free, max_tokens=5)
    assert not [name for name in answer.headers if name.startswith("x-ratelimit-")]


async def test_a_refusal_says_what_is_left_as_well(serve: Serve) -> None:
    limits = RateLimits(requests_per_minute=1, on_exceeded=OnLimit.REJECT)
    async with opened(serve) as (running, ring):
        key = await make(ring, "a", rate_limits=limits)
        first, second = await ask(running, key), await ask(running, key)
    assert (first.status, second.status) == (200, 429)
    assert second.headers["x-ratelimit-limit-requests"] == "1"
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert float(second.headers["retry-after"]) > 0
