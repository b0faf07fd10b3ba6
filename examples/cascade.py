"""A cheap model first: three questions, and what each stage did and cost.

A model on this machine is asked first, and a provider (here a fake one, on a loopback
port) where its answer will not do.  The third time the provider is broken, and the
answer that was not accepted is better than none::

    python examples/cascade.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, OptionValue, RetryPolicy
from atomr_infer.model.prices import Price, Rates
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import Behaviour, Happy, server_error

if TYPE_CHECKING:
    from collections.abc import Mapping

QUESTIONS = ["Say hello.", "What is 17 times 23?", "And 17 times 24?"]


def deployments(endpoint: str) -> list[Deployment]:
    """Return a small model, a large one, and the cascade over both."""
    cheap, dear = Rates(input=0.1, output=0.4), Rates(input=2.0, output=8.0)
    small = Deployment(name="small", runtime="mock", price=Price(rates=cheap))
    large = Deployment(
        name="large",
        runtime="openai",
        model="gpt-4.1",
        options={"endpoint": endpoint},
        price=Price(rates=dear),
        retry=RetryPolicy(max_attempts=1),
    )
    stages: list[OptionValue] = [
        {"model": "small", "matches": r"hello|\bis \d+\."},
        {"model": "large"},
    ]
    auto = Deployment(name="auto", runtime="cascade", options={"stages": stages})
    return [small, large, auto]


def show(_: object, numbers: Mapping[str, float], about: Mapping[str, object]) -> None:
    """Print what the stages of a request did; called at the end of each."""
    stages = about["stages"]
    if not isinstance(stages, tuple) or not stages:
        return
    for stage in stages:
        cost = "unknown" if stage.cost is None else f"${stage.cost.usd_text}"
        became = stage.verdict or stage.outcome
        print(f"  {stage.deployment} ({stage.runtime}): {became}, {cost}")
    print(f"  together: ${numbers['cost_usd']:.7f}")


async def main() -> None:
    """Ask the cascade three times."""
    answers: list[Behaviour] = [Happy(text="17 times 23 is 391."), server_error(503)]
    telemetry.attach("show", ("atomr_infer", "request", "stop"), show)
    async with (
        open_openai_upstream(answers) as upstream,
        Cluster.connect("inproc://app") as cluster,
    ):
        for deployment in deployments(upstream.base_url):
            await cluster.deploy(deployment)
        for question in QUESTIONS:
            reply = await cluster.chat("auto", question)
            print(f"{question} -> {reply.text}")


trio.run(main)
