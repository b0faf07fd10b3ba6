"""What virtual keys may use, on all nodes together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from atomr.cluster.permits import Past
from atomr_infer.errors import RateLimitedError
from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.rate_limits import OnLimit, RateLimits
from atomr_infer.model.virtual_key import VirtualKey
from atomr_infer.policy.limits.demand import Demand
from atomr_infer.serving.limits.gates import enter
from tests.gateway.http import until
from tests.serving.test_key_ring import is_open, two_nodes

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.serving.shared import Serving

TWENTY = RateLimits(requests_per_minute=20, on_exceeded=OnLimit.REJECT)


async def granted(serving: Serving, key: str) -> bool:
    """Whether a request of a key passes its gates."""
    asker = Asker(key)
    batch = ExecuteBatch(request_id="r", model="m", messages=(), asker=asker)
    demand = Demand(deployment="m", model="m", asker=asker, input_tokens=1)
    try:
        await enter(serving.gates.for_request(batch), demand)
    except RateLimitedError:
        return False
    return True


async def test_a_new_keys_limit_is_there_at_once_and_one_for_two_nodes(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (a, b):
        for serving in (a, b):
            # As nodes that have been up for a minute: they know that it is new.
            serving.key_ring._began_at_s -= 60.0
            serving.limits.announced.past = Past(quiet_s=61.0)
        key = VirtualKey(
            id=a.key_ring.new_id(),
            name="ci",
            created_at_s=int(time.time()),
            rate_limits=TWENTY,
        )
        issued = await a.key_ring.create(key)
        await until(lambda: is_open(b.key_ring, issued))
        passed = {"a": 0, "b": 0}
        for _ in range(13):
            for name, serving in (("a", a), ("b", b)):
                passed[name] += await granted(serving, key.id)
        assert 10 <= sum(passed.values()) <= 20, "never more, and no window is waited"
        assert min(passed.values()) >= 2, "each has what it keeps for good"
        await b.key_ring.revoke("ci")
        await until(lambda: not a.limits.shown())
        assert (
            a.gates.for_request(
                ExecuteBatch(
                    request_id="r", model="m", messages=(), asker=Asker(key.id)
                )
            )
            == ()
        )
