"""One answer for requests that are the same, and one request for all of them.

Five clients ask the same at once: the model is asked once, and each has the whole
stream.  Who asks later has the same answer again, at once and for nothing::

    python examples/cache.py
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

QUESTION = "Name three rivers, please."
VERDICTS: list[str] = []


def deployments() -> list[Deployment]:
    """Return a model that takes its time, and a cache before it."""
    small = Deployment(
        name="small",
        runtime="mock",
        options={"delay_s": 0.01},
        price=Price(rates=Rates(input=0.1, output=0.4)),
    )
    cached = Deployment(name="cached", runtime="cache", options={"model": "small"})
    return [small, cached]


def note(_: object, numbers: Mapping[str, float], about: Mapping[str, object]) -> None:
    """Note what the stages of a request did; called at the end of each."""
    stages = about["stages"]
    if isinstance(stages, tuple) and stages:
        told = stages[0].verdict or "asked"
        VERDICTS.append(f"{told}, ${numbers['cost_usd']:.7f}")


async def main() -> None:
    """Ask five times at once, and twice later."""
    telemetry.attach("note", ("atomr_infer", "request", "stop"), note)
    async with Cluster.connect("inproc://app") as cluster:
        for deployment in deployments():
            await cluster.deploy(deployment)
        texts = set()

        async def ask(temperature: float = 0.0) -> None:
            reply = await cluster.chat("cached", QUESTION, temperature=temperature)
            texts.add(reply.text)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        print("at once:", *sorted(VERDICTS), sep="\n  ")
        VERDICTS.clear()
        await ask()
        await ask(temperature=0.7)  # drawn: another answer is as good
        print("later:", *VERDICTS, sep="\n  ")
    print(texts)


trio.run(main)
