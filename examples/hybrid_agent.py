"""A hybrid agent: a model here answers, and a provider plans what is hard.

The router and the executor are on this machine; the planners are providers (here fake
ones, on loopback ports).  The first is saturated when the second question comes, so
the other one plans::

    python examples/hybrid_agent.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.prices import Price, Rates
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import Happy, server_error

if TYPE_CHECKING:
    from collections.abc import Mapping

QUESTIONS = ["Plan a trip to Rome.", "Plan a trip to Oslo."]


def deployments(first: str, second: str) -> list[Deployment]:
    """Return the models here, the providers' ones, and the agent over all."""
    router = Deployment(name="router", runtime="mock", options={"reply": "plan"})
    executor = Deployment(
        name="executor", runtime="mock", options={"reply": "Go by train, then walk."}
    )
    providers = [
        Deployment(
            name=name,
            runtime="openai",
            model="gpt-4.1",
            options={"endpoint": endpoint},
            price=Price(rates=Rates(input=2.0, output=8.0)),
            retry=RetryPolicy(max_attempts=1),
        )
        for name, endpoint in (("first", first), ("second", second))
    ]
    agent = Deployment(
        name="agent",
        runtime="hybrid",
        options={
            "router": "router",
            "executor": "executor",
            "planner": "first",
            "fallbacks": ["second"],
        },
    )
    return [router, executor, *providers, agent]


def show(_: object, __: Mapping[str, float], about: Mapping[str, object]) -> None:
    """Print the stages of a request; called at the end of each."""
    stages = about["stages"]
    assert isinstance(stages, tuple)
    for stage in stages:
        became = stage.verdict or stage.outcome
        cost = "" if stage.cost is None else f", ${stage.cost.usd_text}"
        print(f"  {stage.deployment} ({stage.runtime}): {became}{cost}")


async def main() -> None:
    """Ask the agent twice."""
    telemetry.attach("show", ("atomr_infer", "request", "stop"), show)
    async with (
        open_openai_upstream(
            [Happy(text="1. Book. 2. Pack."), server_error(503)]
        ) as first,
        open_openai_upstream([Happy(text="1. Ask. 2. Go.")]) as second,
        Cluster.connect("inproc://app") as cluster,
    ):
        for deployment in deployments(first.base_url, second.base_url):
            await cluster.deploy(deployment)
        for question in QUESTIONS:
            reply = await cluster.chat("agent", question)
            print(f"{question} -> {reply.text}")


trio.run(main)
