"""What an answer cost is in its headers, where somebody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price, Rates
from tests.gateway.http import chat

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve


def mock(**members: Any) -> Deployment:
    return Deployment(name="m", runtime="mock", **members)


async def test_a_whole_answer_says_what_it_cost(serve: Serve) -> None:
    price = Price(rates=Rates(input="0.15", output="0.6"))
    async with serve(mock(price=price)) as running:
        answer = await chat(running.port)
    # Three tokens each way.
    assert answer.headers["x-atomr-cost-usd"] == "0.00000225"


async def test_what_costs_nothing_says_so(serve: Serve) -> None:
    async with serve(mock(price=Price(rates=Rates(input=0, output=0)))) as running:
        answer = await chat(running.port)
    assert answer.headers["x-atomr-cost-usd"] == "0"


async def test_a_cost_that_nobody_knows_is_not_said(serve: Serve) -> None:
    async with serve(mock()) as running:
        answer = await chat(running.port)
    assert answer.status == 200
    assert "x-atomr-cost-usd" not in answer.headers
