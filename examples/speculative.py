"""A small model drafts for a large one, on ONNX Runtime: the same answer in fewer runs.

Give the directories of both, as ``optimum-cli export onnx`` writes them; they must have
the same tokenizer::

    python examples/speculative.py MODEL DRAFT
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.deployment import OptionValue


def show(_: object, numbers: Mapping[str, float], __: Mapping[str, object]) -> None:
    """Print what was drafted; called at the end of a request."""
    drafted, accepted = numbers["drafted_tokens"], numbers["drafts_accepted"]
    if drafted:
        print(f"{accepted:g} of {drafted:g} drafted tokens were accepted")


async def main(model: str, draft: str) -> None:
    """Ask the model alone, and with its draft."""
    telemetry.attach("show", ("atomr_infer", "request", "stop"), show)
    drafting: dict[str, OptionValue] = {"draft": draft, "draft_tokens": 4}
    async with Cluster.connect("inproc://app") as cluster:
        answers = []
        for name, options in (("alone", {}), ("drafted", drafting)):
            await cluster.deploy(
                Deployment(name=name, runtime="ort", model=model, options=options)
            )
            reply = await cluster.chat(
                name, "Write a story.", temperature=0.0, max_tokens=24
            )
            answers.append(reply.text)
        print("the same answer" if answers[0] == answers[1] else "ANOTHER answer")


if len(sys.argv) == 3:
    trio.run(main, sys.argv[1], sys.argv[2])
else:
    print("give the directories of a model and of its draft")
