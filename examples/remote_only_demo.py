"""What a failing provider costs the one who asks: no GPU, no key, no network.

A fake OpenAI upstream on a loopback port answers as its script says, and a
gateway's deployment asks it: a plain answer; a 429 whose ``Retry-After`` is
waited for; three 503s that open the circuit, after which nothing is asked at
all until the endpoint has had its rest; and one question that finds it well::

    python examples/remote_only_demo.py
"""

from __future__ import annotations

import trio

from atomr_infer.cluster import ChatReply, Cluster
from atomr_infer.errors import InferenceError
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.failover import BreakerPolicy
from atomr_infer.testing.upstream import FakeUpstream, open_openai_upstream
from atomr_infer.testing.upstream_script import (
    Behaviour,
    Happy,
    rate_limited,
    server_error,
)

OPEN_S = 0.5

SCRIPT: list[Behaviour] = [
    Happy(text="Hello."),
    rate_limited(retry_after="1"),
    Happy(text="Hello after a while."),
    server_error(503),
    server_error(503),
    server_error(503),
]


def deployment(upstream: FakeUpstream) -> Deployment:
    """Return a deployment whose circuit opens at the third failure."""
    return Deployment(
        name="remote",
        runtime="openai",
        model="gpt-4.1-mini",
        options={"endpoint": upstream.base_url},
        retry=RetryPolicy(max_attempts=2, backoff_s=0.01),
        breaker=BreakerPolicy(max_failures=3, open_s=OPEN_S),
    )


async def ask(cluster: Cluster, upstream: FakeUpstream, what: str) -> ChatReply | None:
    """Ask once, and print what came of it and what the upstream saw."""
    seen = len(upstream.requests)
    reply, error = None, None
    try:
        reply = await cluster.chat("remote", "Say hello.")
    except InferenceError as problem:
        error = problem
    asked = len(upstream.requests) - seen
    times = f"the upstream was asked {asked} {'time' if asked == 1 else 'times'}"
    if error is None:
        assert reply is not None
        print(f"{what}: {reply.text!r}; {times}")
    else:
        print(f"{what}: {error.kind}; {times}")
    return reply


async def main() -> None:
    """Run the script from its first line to its last."""
    async with (
        open_openai_upstream(SCRIPT) as upstream,
        Cluster.connect("inproc://demo") as cluster,
    ):
        await cluster.deploy(deployment(upstream))

        await ask(cluster, upstream, "happy path")

        began = trio.current_time()
        await ask(cluster, upstream, "429, then success")
        waited = trio.current_time() - began
        print(f"Retry-After was waited for: {waited >= 1}")

        await ask(cluster, upstream, "503 twice")
        await ask(cluster, upstream, "503 once more")
        await ask(cluster, upstream, "circuit open")

        await trio.sleep(OPEN_S)
        await ask(cluster, upstream, "after its rest")


if __name__ == "__main__":
    trio.run(main)
