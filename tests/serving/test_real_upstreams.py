"""Retries, breakers, fallbacks, cut streams and hedges over real connections."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer import errors
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy, Timeouts
from atomr_infer.model.failover import BreakerPolicy, HedgePolicy, OnCut
from atomr_infer.policy.failures.breaker import Circuit
from atomr_infer.testing.upstream import open_openai_upstream, refused_origin
from atomr_infer.testing.upstream_script import (
    CutMidStream,
    ErrorInStream,
    HalfClose,
    HangBeforeHeaders,
    HangMidStream,
    Happy,
    rate_limited,
    server_error,
)
from tests.at_once import at_once, no_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trio.testing import MockClock

    from atomr_infer.cluster import ChatReply
    from atomr_infer.testing.upstream import FakeUpstream
    from atomr_infer.testing.upstream_script import Behaviour

QUICK = RetryPolicy(max_attempts=3, backoff_s=0.01)
WORDS = Happy(text="one two three four five")


def deployment(name: str, endpoint: str, **more: Any) -> Deployment:
    return Deployment(
        name=name,
        runtime="openai",
        model="fake-model",
        options={"endpoint": endpoint},
        **{"retry": QUICK, **more},
    )


@asynccontextmanager
async def cluster_of(
    first: Sequence[Behaviour], second: Sequence[Behaviour] = (), **more: Any
) -> AsyncIterator[tuple[Cluster, FakeUpstream, FakeUpstream]]:
    """Two deployments on two upstreams; ``more`` is the first one's."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        a = await enter(open_openai_upstream(first, otherwise=WORDS))
        b = await enter(open_openai_upstream(second, otherwise=WORDS))
        cluster = await enter(Cluster.connect("inproc://x", environ={}))
        await cluster.deploy(deployment("b", b.base_url))
        await cluster.deploy(deployment("m", a.base_url, **more))
        yield cluster, a, b


async def told(cluster: Cluster) -> list[str]:
    """Return the pieces of a streamed answer."""
    async with cluster.stream("m", "hi") as chunks:
        return [chunk.text async for chunk in chunks if chunk.text]


async def test_a_429_is_waited_out_and_then_answered() -> None:
    async with cluster_of([rate_limited("0.05")]) as (cluster, a, _):
        began_at = trio.current_time()
        reply = await cluster.chat("m", "hi")
        assert trio.current_time() - began_at >= 0.05
    assert (reply.text, reply.attempts) == ("one two three four five", 2)
    assert len(a.requests) == 2


async def test_three_503s_open_the_circuit_and_it_closes_again(
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 1.0
    policy = BreakerPolicy(max_failures=3, open_s=10.0)
    script = [server_error(503)] * 3
    async with cluster_of(script, breaker=policy) as (cluster, a, _):
        with pytest.raises(errors.UpstreamError):
            await cluster.chat("m", "hi")
        with pytest.raises(errors.CircuitOpenError):
            await cluster.chat("m", "hi")
        assert len(a.requests) == 3
        breaker = cluster.breakers()[f"openai {a.base_url}"].breaker
        mock_clock.jump(10.0)
        assert (await cluster.chat("m", "hi")).attempts == 1
        assert [step.after for step in breaker.history] == [
            Circuit.OPEN,
            Circuit.HALF_OPEN,
            Circuit.CLOSED,
        ]


async def test_no_connection_goes_to_the_fallback() -> None:
    with refused_origin() as origin:
        async with cluster_of([]) as (cluster, _, b):
            await cluster.undeploy("m")
            await cluster.deploy(deployment("m", f"{origin}/v1", fallbacks=["b"]))
            reply = await cluster.chat("m", "hi")
            assert (reply.deployment, reply.attempts) == ("b", 4)
            assert len(b.requests) == 1


BROKEN = [
    CutMidStream(after=2, answer=WORDS),
    HalfClose(after=2, answer=WORDS),
    ErrorInStream(after=2, answer=WORDS),
    HangMidStream(after=2, answer=WORDS),
]
IDS = ["cut", "half-closed", "error inside", "stalled"]
BOUNDS = Timeouts(idle_s=0.1)
ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize("broken", BROKEN, ids=IDS)
async def test_a_broken_stream_is_finished_by_the_fallback(
    broken: Behaviour, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    async with cluster_of(
        [broken],
        retry=ONCE,
        fallbacks=["b"],
        on_cut=OnCut.RESTART_MATCH,
        timeouts=BOUNDS,
    ) as (cluster, a, b):
        assert "".join(await told(cluster)) == "one two three four five"
        assert (len(a.requests), len(b.requests)) == (1, 1)
        with no_time(mock_clock):
            await at_once(lambda: not a.requests[0].open, mock_clock)


@pytest.mark.parametrize("broken", BROKEN, ids=IDS)
async def test_a_broken_stream_is_an_error_by_default(broken: Behaviour) -> None:
    got: list[str] = []
    async with cluster_of([broken], fallbacks=["b"], timeouts=BOUNDS) as (
        cluster,
        _,
        b,
    ):
        with pytest.raises(errors.UpstreamError):
            async with cluster.stream("m", "hi") as chunks:
                async for chunk in chunks:
                    got.append(chunk.text)
        assert "".join(got) == "one two"
        assert b.requests == []


async def test_a_whole_answer_that_breaks_is_made_again_by_the_fallback(
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 1.0
    replies: list[ChatReply] = []

    async def ask(cluster: Cluster) -> None:
        replies.append(await cluster.chat("m", "hi"))

    async with cluster_of(
        [HangBeforeHeaders()],
        retry=ONCE,
        fallbacks=["b"],
        timeouts=Timeouts(first_token_s=0.5),
    ) as (cluster, a, _):
        async with trio.open_nursery() as nursery:
            with no_time(mock_clock):
                nursery.start_soon(ask, cluster)
                await at_once(lambda: a.requests, mock_clock)
                mock_clock.jump(0.5)
        [reply] = replies
        assert (reply.deployment, reply.attempts) == ("b", 2)
        await a.requests[0].client_left.wait()


async def test_the_loser_of_a_race_is_hung_up_on_at_once(
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 1.0
    always = HedgePolicy(after_s=0.05, max_fraction=1.0)
    async with cluster_of([HangBeforeHeaders()], fallbacks=["b"], hedge=always) as (
        cluster,
        a,
        b,
    ):
        assert "".join(await told(cluster)) == "one two three four five"
        with no_time(mock_clock):
            await at_once(a.requests[0].client_left.is_set, mock_clock)
        assert len(b.requests) == 1
