"""One client beside a flood: alone, with a key of its own, and with the flood's.

    python tests/benchmarks/bench_fair_share.py [--flood N] [--requests N]

A replica that does four requests at once, of 20 ms each (a scripted model: what is
measured is the queue).  The flood is so many requests that wait all the time.  The
quiet client asks for one thing after the other.  With a virtual key of its own it waits
for who runs and for one of the flood, and with the flood's key it is in its line.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from typing import TYPE_CHECKING

from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.sinks import CollectingSink

if TYPE_CHECKING:
    from atomr_infer.serving.shared import Serving as Tree

AT_ONCE, TAKES_S = 4, 0.02
FLOOD, QUIET = Asker("flood"), Asker("quiet")


async def ask(tree: Tree, name: str, asker: Asker) -> None:
    batch = ExecuteBatch(
        request_id=name,
        model="m",
        messages=(Message(Role.USER, "hello"),),
        sampling=Sampling(max_tokens=1),
        asker=asker,
    )
    await run_request(tree, batch, CollectingSink())


async def flood(tree: Tree, number: int) -> None:
    turn = 0
    while True:
        turn += 1
        await ask(tree, f"flood-{number}-{turn}", FLOOD)


async def quiet(tree: Tree, asker: Asker, requests: int) -> list[float]:
    took_s = []
    for number in range(requests):
        began_at = time.perf_counter()
        await ask(tree, f"quiet-{asker.key}-{number}", asker)
        took_s.append(time.perf_counter() - began_at)
    return sorted(took_s)


def told(name: str, took_s: list[float]) -> str:
    most = took_s[min(len(took_s) - 1, int(len(took_s) * 0.99))]
    half = statistics.median(took_s)
    return f"{name:24} p50 {half * 1e3:7.1f} ms   p99 {most * 1e3:7.1f} ms"


async def measure(waiting: int, requests: int) -> None:
    serving = Serving(
        max_concurrency=AT_ONCE, max_queue=waiting + 10, queue_timeout_s=600.0
    )
    deployment = Deployment(
        name="m",
        runtime="mock",
        options={"reply": "x", "delay_s": TAKES_S},
        serving=serving,
    )
    async with open_serving(environ={}) as tree:
        await tree.deploy(deployment)
        print(told("alone", await quiet(tree, QUIET, requests)))
        async with trio.open_nursery() as nursery:
            for number in range(waiting):
                nursery.start_soon(flood, tree, number)
            await trio.sleep(4 * TAKES_S)
            with_own = await quiet(tree, QUIET, requests)
            print(told(f"beside {waiting}, own key", with_own))
            in_line = await quiet(tree, FLOOD, 3)
            print(told(f"beside {waiting}, their key", in_line))
            nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flood", type=int, default=200)
    parser.add_argument("--requests", type=int, default=100)
    arguments = parser.parse_args()
    trio.run(measure, arguments.flood, arguments.requests)


if __name__ == "__main__":
    main()
