"""A model of your own: ten lines, and every client can ask it.

Run it to see it answer from a process of its own, or serve it with a configuration
that names it::

    [[deployment]]
    name = "parrot"
    runtime = "python:examples/own_model.py:answer"
    options = { times = 2 }
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer_python import Request


async def answer(request: Request, *, times: int = 1) -> AsyncIterator[str]:
    """Say what was said, a word at a time, as often as the deployment says."""
    for word in request.text.split() * times:
        await trio.sleep(0.01)  # here, your model makes its next token
        yield f"{word} "


async def main() -> None:
    """Deploy the function above, and ask it as any other model."""
    parrot = Deployment(
        name="parrot", runtime=f"python:{__file__}:answer", options={"times": 2}
    )
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(parrot)
        reply = await cluster.chat("parrot", "Who is there?")
        print(f"chat: {reply.text!r}")
        print("stream:", end="")
        async with cluster.stream("parrot", "Say this.", max_tokens=3) as chunks:
            async for chunk in chunks:
                print(f"|{chunk.text}", end="")
        print()


if __name__ == "__main__":
    trio.run(main)
