"""An upstream that said when to come back is not asked before, by anybody."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.errors import RateLimitedError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.failover import Fallback
from atomr_infer.model.secret import Secret
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.request import run_request
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.at_once import no_time
from tests.gateway.http import until
from tests.serving.conftest import Collected

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.serving.shared import Serving as Tree

CLIENTS = 20


def deployment(name: str, base_url: str, *, fallback: str | None = None) -> Deployment:
    return Deployment(
        name=name,
        runtime="openai",
        credential=Secret("k"),
        options={"endpoint": base_url},
        serving=Serving(max_concurrency=8),
        retry=RetryPolicy(max_attempts=1),
        fallbacks=() if fallback is None else (Fallback(to=fallback, model="m"),),
    )


def batch() -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r", model="first", messages=(Message(Role.USER, "hi"),)
    )


async def test_no_client_asks_before_the_time_and_then_all_may(
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 1.0
    async with (
        open_openai_upstream([script.rate_limited("0.3")]) as upstream,
        open_serving(environ={}) as serving,
    ):
        await serving.deploy(deployment("first", upstream.base_url))
        codes: set[str | None] = set()
        with no_time(mock_clock):
            with pytest.raises(RateLimitedError):
                await run_request(serving, batch(), Collected())
            for _ in range(CLIENTS):
                with pytest.raises(RateLimitedError) as caught:
                    await run_request(serving, batch(), Collected())
                codes.add(caught.value.code)
                assert 0 < (caught.value.retry_after_s or 0) <= 0.3
            assert codes == {"key_resting"}
            assert len(upstream.requests) == 1
            assert serving.key_states("first") == ("resting",)
        mock_clock.jump(0.31)
        await run_request(serving, batch(), Collected())
        assert len(upstream.requests) == 2


async def test_while_it_rests_the_fallback_answers_at_once() -> None:
    async with (
        open_openai_upstream([script.rate_limited("60")]) as first,
        open_openai_upstream() as second,
        open_serving(environ={}) as serving,
    ):
        await serving.deploy(deployment("second", second.base_url))
        await serving.deploy(deployment("first", first.base_url, fallback="second"))
        for _ in range(CLIENTS):
            await run_request(serving, batch(), Collected())
        assert (len(first.requests), len(second.requests)) == (1, CLIENTS)


async def test_what_nobody_was_asked_for_does_not_lower_the_limit() -> None:
    slow = [script.Happy(delay_s=0.02)] * 7
    async with (
        open_openai_upstream([*slow, script.rate_limited("60")]) as upstream,
        open_serving(environ={}) as serving,
    ):
        await serving.deploy(deployment("first", upstream.base_url))
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(_ask, serving)
        replica = serving.replicas("first")[0]
        await until(lambda: replica.running == 0)
        assert replica.limit >= 5
        limit = replica.limit
        for _ in range(CLIENTS):
            await _ask(serving)
        await until(lambda: replica.running == 0)
        assert len(upstream.requests) == 8
        assert replica.limit == limit


async def _ask(serving: Tree) -> None:
    with suppress(RateLimitedError):
        await run_request(serving, batch(), Collected())
