"""What limits and a budget add to a request, in function calls and in memory.

Calls do not depend on the machine: a loop over what is there, or work that is done
again for each gate, shows here.
"""

from __future__ import annotations

import pytest

from atomr_infer.serving.application import open_serving
from tests.benchmarks.bench_gates import GATED, calls_of, kept_bytes, opened

CALLS = {
    "nothing": 5,
    "requests": 70,
    "requests and tokens": 100,
    "a budget": 55,
    "all of them": 120,
}


@pytest.mark.parametrize("name", GATED)
async def test_what_has_room_is_passed_and_settled_in_few_calls(name: str) -> None:
    async with open_serving(environ={}) as serving:
        do = await opened(serving, GATED[name])
        assert calls_of(do) <= CALLS[name]


async def test_of_a_request_that_is_over_nothing_is_kept() -> None:
    async with open_serving(environ={}) as serving:
        do = await opened(serving, GATED["all of them"])
        requests = 2_000
        # Uses share batches; an object for each request would be 50 bytes and more.
        assert kept_bytes(do, requests) < 15 * requests
        [budget] = serving.budgets.shown()
        assert budget["reserved"] == 0
        assert budget["spent"] == 4 * (requests + 1)
