"""The best model that a request's budget allows.

A request may cost a fifth of a cent.  A short one has the premium model; one that may
be answered at length costs too much there, and has a cheaper one::

    python examples/tiers.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price, Rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.deployment import OptionValue

# Dollars for a million tokens, read and written.
PRICES = {"premium": (5.0, 20.0), "standard": (1.0, 4.0), "cheap": (0.1, 0.4)}


def deployments() -> list[Deployment]:
    """Return the models, and the tiers over them."""
    models = [
        Deployment(
            name=name,
            runtime="mock",
            options={"reply": f"says {name}"},
            price=Price(rates=Rates(input=read, output=written)),
        )
        for name, (read, written) in PRICES.items()
    ]
    options: dict[str, OptionValue] = {"tiers": [*PRICES], "budget_usd": 0.002}
    return [*models, Deployment(name="auto", runtime="tiers", options=options)]


def show(_: object, __: Mapping[str, float], about: Mapping[str, object]) -> None:
    """Print the stages of a request; called at the end of each."""
    stages = about["stages"]
    assert isinstance(stages, tuple)
    for stage in stages:
        print(f"  {stage.deployment or stage.model}: {stage.verdict or stage.outcome}")


async def main() -> None:
    """Ask for a short answer, and for ever longer ones."""
    telemetry.attach("show", ("atomr_infer", "request", "stop"), show)
    async with Cluster.connect("inproc://app") as cluster:
        for deployment in deployments():
            await cluster.deploy(deployment)
        for tokens in (50, 400, 4000):
            reply = await cluster.chat("auto", "Tell me a story.", max_tokens=tokens)
            print(f"up to {tokens} tokens: {reply.text}")


trio.run(main)
