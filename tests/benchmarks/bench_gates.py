"""What gates cost a request: functions called, time and memory, by what there is.

    python tests/benchmarks/bench_gates.py [REQUESTS]

A request is taken in by the straight way and its answer settled, with nothing sent in
between: so what is counted is the limits' and the budget's own.  All have room.

Calls are the same on each machine; ``tests/serving/test_gate_calls.py`` holds them to a
bound.  Memory is what is left when a request is over: a limit's uses share a few
batches for each window, and a budget remembers none, so that it is nothing for each.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr_infer.model.budget import Budget, Per
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.usage import Usage
from atomr_infer.policy.limits.demand import used_of
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.limits.gates import demand_for, enter_both
from atomr_infer.wire.ingress import Call
from atomr_infer.wire.openai.chat_glance import glance_at_chat_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.serving.shared import Serving

BODY = (
    b'{"model": "m", "max_tokens": 20,'
    b' "messages": [{"role": "user", "content": "How are you?"}]}'
)
USAGE = Usage(input_uncached=4, output_text=9)
PLAIN = Deployment(
    name="m", runtime="mock", price=Price(rates=Rates(input="0.1", output="0.4"))
)
TOKENS = RateLimits(requests_per_minute=10**9, tokens_per_minute=10**12)
DAY = Budget(per=Per.DAY, usd="1000000")
GATED = {
    "nothing": PLAIN,
    "requests": attrs.evolve(PLAIN, rate_limits=RateLimits(requests_per_minute=10**9)),
    "requests and tokens": attrs.evolve(PLAIN, rate_limits=TOKENS),
    "a budget": attrs.evolve(PLAIN, budget=(DAY,)),
    "all of them": attrs.evolve(PLAIN, rate_limits=TOKENS, budget=(DAY,)),
}


def passing(serving: Serving) -> Callable[[], None]:
    """Return what the straight way does for a request that a glance has taken."""
    batch, gates = glance(), serving.gates
    deployment = serving.deployments["m"]

    def pass_gates() -> None:
        of_attempt = gates.of_attempts.get("m", ())
        if not of_attempt:
            return
        demand = demand_for(serving, deployment, batch, reread=lambda: batch)
        entered = enter_both((), of_attempt, demand)
        assert entered is not None
        assert entered.of_attempt is not None
        entered.of_attempt.end(used_of(USAGE, deployment.price))

    return pass_gates


async def opened(serving: Serving, deployment: Deployment) -> Callable[[], None]:
    """Deploy it, and let its first request wait for what it has to."""
    await serving.deploy(deployment)
    do = passing(serving)
    for budget_gate in serving.budgets.gates:
        demand = demand_for(serving, deployment, glance(), reread=glance)
        hold = await budget_gate.enter(demand, deadline_s=trio.current_time() + 5.0)
        hold.cancel()
    return do


def glance() -> ExecuteBatch:
    """Return a request as it is before its conversation is read."""
    glanced = glance_at_chat_request(Call(request_id="r", body=BODY, headers={}))
    assert glanced is not None, "it is a plain request"
    return glanced.batch


def calls_of(do: Callable[[], None]) -> int:
    """Return how many functions are called, in Python and in C."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    do()
    sys.setprofile(count)
    do()
    sys.setprofile(None)
    return calls - 1  # of the profiler itself


def kept_bytes(do: Callable[[], None], requests: int) -> int:
    """Return how many bytes more there are after so many requests."""
    do()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(requests):
        do()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


async def main(requests: int) -> None:
    """Print a line for each."""
    for name, deployment in GATED.items():
        async with open_serving(environ={}) as serving:
            do = await opened(serving, deployment)
            calls = calls_of(do)
            began_s = time.process_time()
            for _ in range(requests):
                do()
            each_us = 1e6 * (time.process_time() - began_s) / requests
            kept = kept_bytes(do, requests)
            print(
                f"{name:22} {calls:4} calls {each_us:7.2f} us"
                f" {kept:7} bytes kept of {requests:,} requests"
            )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
