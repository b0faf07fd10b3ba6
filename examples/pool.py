"""Three deployments that answer for each other, one of which breaks and comes back.

The provider of ``east``, a fake one on a loopback port, fails three times.  The pool
asks another member each time, and leaves ``east`` alone for a second; then it is
on trial with one request, and serves again::

    python examples/pool.py
"""

from __future__ import annotations

import logging
from collections import Counter

import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import server_error


def deployments(endpoint: str) -> list[Deployment]:
    """Return the members and the pool."""
    east = Deployment(
        name="east",
        runtime="openai",
        model="gpt-4.1-mini",
        options={"endpoint": endpoint},
        retry=RetryPolicy(max_attempts=1),
    )
    west, south = (Deployment(name=name, runtime="mock") for name in ("west", "south"))
    pool = Deployment(
        name="mini",
        runtime="pool",
        options={
            "members": ["east", "west", "south"],
            "policy": "round_robin",
            "ejection": {"failures": 3, "rest_s": 1.0},
        },
    )
    return [east, west, south, pool]


async def main() -> None:
    """Ask until the member that broke is back."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    async with (
        open_openai_upstream([server_error(503)] * 3) as upstream,
        Cluster.connect("inproc://app") as cluster,
    ):
        for deployment in deployments(upstream.base_url):
            await cluster.deploy(deployment)
        replies: Counter[str] = Counter()
        for _ in range(12):
            replies[(await cluster.chat("mini", "Hello!")).text] += 1
        print(f"12 answers, {len(upstream.requests)} requests to the east: {replies}")
        await trio.sleep(1.0)
        replies.clear()
        for _ in range(6):
            replies[(await cluster.chat("mini", "Hello!")).text] += 1
        print(f"after its rest: {replies}")


trio.run(main)
