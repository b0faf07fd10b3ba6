"""Texts of many clients in one request, and what each of them pays.

Forty clients ask a gateway for the vector of one text each, all at once.  Behind it is
a provider, here a fake one on a loopback port: it is asked by each at first, and then
through a batching deployment::

    python examples/batching.py
"""

from __future__ import annotations

import json

import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.prices import Price, Rates
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.testing.upstream import open_openai_upstream

CLIENTS = 40


def deployments(endpoint: str) -> list[Deployment]:
    """Return the provider's model, and the deployment that asks it in tens."""
    vectors = Deployment(
        name="vectors",
        runtime="openai",
        model="text-embedding-3-small",
        options={"endpoint": endpoint},
        price=Price(rates=Rates(input=0.02, output=0.0)),
    )
    # Full batches wait for nobody; else the wait would better be "adaptive".
    rules: dict[str, OptionValue] = {
        "model": "vectors",
        "max_batch": 10,
        "wait": "always",
        "max_wait_s": 5.0,
    }
    return [vectors, Deployment(name="batched", runtime="batching", options=rules)]


async def embed(client: HttpClient, model: str, text: str) -> tuple[int, str, str]:
    """Return the tokens that a vector took, who was asked, and what it cost."""
    body = json.dumps({"model": model, "input": text}).encode()
    headers = [("content-type", "application/json")]
    async with client.request(
        "POST", "/embeddings", headers=headers, body=body
    ) as answer:
        told = json.loads(await answer.read())
        stages = answer.headers.get("x-atomr-stages") or ""
        cost = answer.headers.get("x-atomr-cost-usd") or ""
    return told["usage"]["total_tokens"], stages, cost


async def embed_all(client: HttpClient, model: str) -> list[tuple[int, str, str]]:
    """Have all clients ask at once."""
    found: list[tuple[int, str, str]] = []

    async def one(number: int) -> None:
        text = "hello there, " * (1 + number % 3)
        found.append(await embed(client, model, text))

    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(one, number)
    return found


async def main() -> None:
    """Ask for forty vectors, twice."""
    async with (
        open_openai_upstream() as upstream,
        Cluster.connect("inproc://app") as cluster,
    ):
        for deployment in deployments(upstream.base_url):
            await cluster.deploy(deployment)
        gateway = await cluster.serve("127.0.0.1:0")
        async with HttpClient(f"{gateway.url}/v1") as client:
            for model in ("vectors", "batched"):
                before = len(upstream.requests)
                found = await embed_all(client, model)
                asked = len(upstream.requests) - before
                tokens = sum(each[0] for each in found)
                dollars = sum(float(each[2]) for each in found)
                print(f"{model}: {asked} requests, {tokens} tokens, ${dollars:.8f}")
        print("one of them:", found[0][1].split("(")[-1].rstrip(")"))


trio.run(main)
