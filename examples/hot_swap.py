"""A deployment is taken over step by step, once well and once not.

Clients ask all the time.  The first model that comes answers, and takes over; the
second breaks when it is asked, so that all goes back, and no client notices::

    python examples/hot_swap.py
"""

from __future__ import annotations

import attrs
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.swap_plan import SwapPlan

FIRST = Deployment(name="chat", runtime="mock", options={"reply": "first"})
SECOND = Deployment(name="chat", runtime="mock", options={"reply": "second"})
BROKEN = attrs.evolve(SECOND, options={"reply": "third", "fail_after": 0})

PLAN = SwapPlan(steps=(0.25, 0.5), step_s=0.05, min_requests=5)


async def ask(cluster: Cluster, heard: set[str]) -> None:
    """Ask for ever; an error would end the program."""
    while True:
        heard.add((await cluster.chat("chat", "Hello")).text)
        await trio.sleep(0.002)


async def main() -> None:
    """Swap twice, while clients ask."""
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(FIRST)
        for wanted in (SECOND, BROKEN):
            heard: set[str] = set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, cluster, heard)
                # What breaks when it is asked is found out by requests, here.
                plan = attrs.evolve(PLAN, probe=None)
                ended = await cluster.hot_swaps.swap(wanted, plan)
                nursery.cancel_scope.cancel()
            print(f"{ended.phase.value}; clients heard {sorted(heard)}")
        reply = await cluster.chat("chat", "Hello")
        print(f"now: {reply.text}")


trio.run(main)
