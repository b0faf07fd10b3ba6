"""Actors: Python code that answers by asking deployments, and is a deployment itself.

::

    @inference_actor(asks=("tiny",))
    async def shorten(ctx: Context, text: str) -> str:
        reply = await ctx.lookup("tiny").chat(f"In one sentence: {text}")
        return reply.text

    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(Deployment(name="tiny", runtime="mock"))
        await cluster.deploy(deployment_of(shorten, "shorten"))
        print(await ask(cluster.lookup("shorten", shorten), "A long text."))

As a deployment it has a queue, permits, limits, restarts and replicas, other nodes ask
it by its name, and so does every client of the gateway.

A request and its reply are values: they cross as JSON, in this process too, so an actor
cannot tell where it is asked from, and nobody shares what it holds.
"""

from __future__ import annotations

from atomr_infer.actors.context import Context
from atomr_infer.actors.decorators import deployment_of, gpu_actor, inference_actor
from atomr_infer.actors.refs import Ref, Reply, ask
from atomr_infer.actors.request import Request

__all__ = [
    "Context",
    "Ref",
    "Reply",
    "Request",
    "ask",
    "deployment_of",
    "gpu_actor",
    "inference_actor",
]
