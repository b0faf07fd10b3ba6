"""The specialist that a request is for: by a rule, by what a gate says, or neither.

Code goes to one model by a rule; a gate, which is a function here and may be a model as
well, tells law from art.  The painter is broken, and the default answers in its place::

    python examples/router.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, OptionValue, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.batch import ExecuteBatch

QUESTIONS = [
    "What does `def f(): return f` do?",
    "May my neighbour cut my hedge?",
    "Who painted the Night Watch?",
]


def label_of(batch: ExecuteBatch) -> str:
    """Say what a request is about; the router asks this where no rule holds."""
    return "law" if "neighbour" in batch.messages[-1].text else "art"


def model(name: str, **options: OptionValue) -> Deployment:
    """Return a scripted model."""
    return Deployment(
        name=name,
        runtime="mock",
        options=options,
        retry=RetryPolicy(max_attempts=1),
    )


def deployments() -> list[Deployment]:
    """Return the specialists, and the router over them."""
    routes: list[OptionValue] = [
        {"model": "coder", "matches": r"\bdef \w+\("},
        {"model": "lawyer", "label": "law"},
        {"model": "painter", "label": "art"},
    ]
    auto: dict[str, OptionValue] = {
        "routes": routes,
        "gate": "python:__main__:label_of",
        "default": "general",
    }
    return [
        model("coder", reply="It returns itself."),
        model("lawyer", reply="That depends on the hedge."),
        model("painter", fail_after=0),
        model("general", reply="Rembrandt, I think."),
        Deployment(name="auto", runtime="router", options=auto),
    ]


def show(_: object, __: Mapping[str, float], about: Mapping[str, object]) -> None:
    """Print who was asked; called at the end of each request."""
    stages = about["stages"]
    if isinstance(stages, tuple) and stages:
        print("  " + ", ".join(f"{s.model}: {s.verdict or s.outcome}" for s in stages))


async def main() -> None:
    """Ask three questions."""
    telemetry.attach("show", ("atomr_infer", "request", "stop"), show)
    async with Cluster.connect("inproc://app") as cluster:
        for deployment in deployments():
            await cluster.deploy(deployment)
        for question in QUESTIONS:
            reply = await cluster.chat("auto", question)
            print(f"{question} -> {reply.text}")


trio.run(main)
