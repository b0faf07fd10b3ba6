"""What gates cost a request: functions called, and time, with rate limits and without.

    python tests/benchmarks/bench_gates.py [REQUESTS]

A request is taken in by the straight way and given up again, so what is counted is
what happens before anything is sent; and the same with limits that all have room.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.policy.demand import Used
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.gates import demand_for, enter_both

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.serving.shared import Serving

BATCH = ExecuteBatch(
    request_id="r",
    model="m",
    messages=(Message(Role.USER, "How are you?"),),
    sampling=Sampling(max_tokens=20),
)
USED = Used(input_tokens=4, output_tokens=9)
PLAIN = Deployment(name="m", runtime="mock")
LIMITS = {
    "no limit": None,
    "requests": RateLimits(requests_per_minute=10**9),
    "requests and tokens": RateLimits(
        requests_per_minute=10**9, tokens_per_minute=10**12
    ),
}


def pass_gates(serving: Serving) -> None:
    """Do what the straight way does, and settle what it holds."""
    gates = serving.gates
    if not (gates.of_requests or gates.of_attempts):
        return
    demand = demand_for(serving, serving.deployments["m"], BATCH)
    entered = enter_both((), gates.of_attempts["m"], demand)
    assert entered is not None
    assert entered.of_attempt is not None
    entered.of_attempt.end(USED)


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


async def main(requests: int) -> None:
    """Print a line for each."""
    for name, limits in LIMITS.items():
        async with open_serving(environ={}) as serving:
            await serving.deploy(attrs.evolve(PLAIN, rate_limits=limits))
            calls = calls_of(lambda tree=serving: pass_gates(tree))  # type: ignore[misc]
            began_s = time.process_time()
            for _ in range(requests):
                pass_gates(serving)
            each_us = 1e6 * (time.process_time() - began_s) / requests
            print(f"{name:22} {calls:4} calls {each_us:7.2f} us")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
