"""What a chat may cost, asked through the facade."""

from __future__ import annotations

import pytest

from atomr_infer.cluster import Cluster
from atomr_infer.errors import ModelNotFoundError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price, Rates


async def test_a_chat_is_estimated_without_being_asked() -> None:
    price = Price(rates=Rates(input=1, output=10))
    async with Cluster.connect("inproc://cost") as cluster:
        await cluster.deploy(Deployment(name="m", runtime="mock", price=price))
        await cluster.deploy(Deployment(name="free", runtime="mock"))
        estimate = await cluster.estimate_cost("m", "one two three", max_tokens=5)
        assert estimate is not None
        assert estimate.high is not None
        assert (estimate.low.pico_usd, estimate.high.pico_usd) == (
            3_000_000,
            63_000_000,
        )
        assert await cluster.estimate_cost("free", "hi") is None
        with pytest.raises(ModelNotFoundError):
            await cluster.estimate_cost("nobody", "hi")
        assert [r.running for r in await cluster.replicas("m")] == [0]
