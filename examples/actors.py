"""Code of your own that asks models, and is asked as one.

Run it to see actors ask a model and each other, or serve one with a configuration that
names it, and ask it with any client::

    [[deployment]]
    name = "helper"
    runtime = "actor:examples/actors.py:helper"
    options = { asks = ["tiny", "notes"] }
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.actors import (
    Context,
    Request,
    ask,
    deployment_of,
    gpu_actor,
    inference_actor,
)
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@attrs.frozen
class Note:
    """What is written down, under a name."""

    name: str
    text: str = ""


@inference_actor
class Notes:
    """Keeps what it is told: one object, asked one request at a time."""

    def __init__(self, *, most: int = 100) -> None:
        self.most = most
        self.texts: dict[str, list[str]] = {}

    async def handle(self, _: Context, note: Note) -> list[str]:
        """Write a note down, and return all of its name."""
        texts = self.texts.setdefault(note.name, [])
        if note.text and len(texts) < self.most:
            texts.append(note.text)
        return texts


@inference_actor(asks=("tiny", "notes"))
async def helper(ctx: Context, request: Request) -> AsyncIterator[str]:
    """Answer as the model does, and keep what was asked."""
    notes = ctx.lookup("notes", Notes)
    asked = await ask(notes, Note("asked", request.text), timeout_s=5.0)
    yield f"{len(asked)}. "
    async with ctx.lookup("tiny").stream(request.messages) as chunks:
        async for chunk in chunks:
            yield chunk.text


@gpu_actor(devices=0)  # 1 where your code uses a GPU
class Squares:
    """Computes in a process of its own, in one thread."""

    def handle(self, numbers: list[float]) -> list[float]:
        """Return the square of each."""
        return [number**2 for number in numbers]


async def main() -> None:
    """Deploy a model and three actors, and ask them."""
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(Deployment(name="tiny", runtime="mock"))
        await cluster.deploy(deployment_of(Notes, "notes", most=10))
        await cluster.deploy(deployment_of(helper, "helper"))
        await cluster.deploy(deployment_of(Squares, "squares"))

        for text in ("Who is there?", "And who else?"):
            print((await cluster.chat("helper", text)).text)
        print(await ask(cluster.lookup("notes", Notes), Note("asked")))
        print((await cluster.chat("notes", '{"name": "asked", "text": "Hm."}')).text)
        print(await ask(cluster.lookup("squares", Squares), [2.0, 3.0]))


if __name__ == "__main__":
    trio.run(main)
