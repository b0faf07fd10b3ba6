"""What requests cost in the serving tree, before and after they are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr import telemetry
from atomr_infer.errors import ModelNotFoundError
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling, Usage
from atomr_infer.model.cost import Cost
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.prices import Price, Rates
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.prices import Prices
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.served import Spent
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import Collected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trio.testing import MockClock

    from atomr_infer.serving.requests.served import Served
    from tests.serving.conftest import OpenTree, Tree

PRICE = Price(rates=Rates(input=1, output=10))
LAB = Deployment(
    name="m", runtime="lab", price=PRICE, retry=RetryPolicy(backoff_s=0.01)
)


def batch(**members: object) -> ExecuteBatch:
    plain = ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, "one two three"),)
    )
    return attrs.evolve(plain, **members)  # type: ignore[arg-type] # the test's own


async def served(tree: Tree) -> Served:
    return await run_request(tree.serving, batch(), Collected())


@pytest.fixture
def stops() -> Iterator[list[Mapping[str, object]]]:
    """What is told at each request's end: measurements and metadata together."""
    seen: list[Mapping[str, object]] = []

    def keep(
        _: telemetry.Event,
        measurements: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        seen.append({**metadata, **measurements})

    telemetry.attach("test-prices", ("atomr_infer", "request", "stop"), keep)
    yield seen
    telemetry.detach("test-prices")


async def test_a_request_s_cost_is_told_at_its_end(
    open_tree: OpenTree, stops: list[Mapping[str, object]]
) -> None:
    async with open_tree(LAB) as tree:
        done = await served(tree)
    (spent,) = done.spent
    assert spent.usage == Usage(input_uncached=3, output_text=3)
    cost = Cost(parts={"input_uncached": 3_000_000, "output_text": 30_000_000})
    assert done.cost == cost
    assert stops[0]["cost"] == cost
    assert stops[0]["cost_usd"] == pytest.approx(33e-6)


async def test_a_cost_that_nobody_knows_is_not_zero(
    open_tree: OpenTree,
    stops: list[Mapping[str, object]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with open_tree(attrs.evolve(LAB, price=None)) as tree:
        assert (await served(tree)).cost is None
    assert stops[0]["cost"] is None
    assert isinstance(stops[0]["cost_usd"], float)
    assert math.isnan(stops[0]["cost_usd"])
    assert "cost=unknown" in caplog.text


async def test_a_lost_attempt_is_part_of_the_cost(
    open_tree: OpenTree,
    stops: list[Mapping[str, object]],
    autojump_clock: MockClock,
) -> None:
    async with open_tree(LAB) as tree:
        tree.lab.runners[0].script = MockScript(hang_after=2)
        with trio.move_on_after(5.0):
            await served(tree)
    (stop,) = stops
    assert isinstance(stop["cost"], Cost)
    assert stop["cost"].estimated
    assert stop["cost"].pico_usd > 0


# --- before the call --------------------------------------------------------


async def test_an_estimate_needs_no_call(open_tree: OpenTree) -> None:
    async with open_tree(LAB) as tree:
        asked = batch(sampling=Sampling(max_tokens=5))
        estimate = await tree.serving.estimate_cost(asked)
        assert estimate is not None
        assert estimate.high is not None
        # 13 bytes: 5 tokens, and 8 of the message.
        assert estimate.low.pico_usd == 3_000_000
        assert estimate.high.pico_usd == 13_000_000 + 50_000_000
        assert tree.lab.runners[0].active == 0
        done = await run_request(tree.serving, asked, Collected())
        assert done.cost is not None
        low, high = estimate.low.pico_usd, estimate.high.pico_usd
        assert low <= done.cost.pico_usd <= high


async def test_an_estimate_is_answered_while_the_engine_loads(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree, trio.open_nursery() as nursery:
        tree.lab.plan.append(MockScript(load_s=100.0))
        nursery.start_soon(tree.serving.deploy, LAB)
        await trio.sleep(1.0)
        estimate = await tree.serving.estimate_cost(batch())
        assert estimate is not None
        assert estimate.high is None, "how long its answers get is not known yet"


async def test_an_estimate_for_a_model_that_nobody_serves_says_so() -> None:
    async with open_serving(environ={}) as serving:
        with pytest.raises(ModelNotFoundError):
            await serving.estimate_cost(batch())


# --- where prices come from -------------------------------------------------


def openai(price: Price | None = None) -> Deployment:
    return Deployment(name="o", runtime="openai", serves=("*",), price=price)


async def test_the_configured_price_goes_first() -> None:
    prices = Prices()
    prices.add(openai(), "https://api.openai.com/v1")
    assert prices.price(openai(PRICE), "gpt-4o") is PRICE
    known = prices.price(openai(), "gpt-4o")
    assert known is not None
    assert known.source == "genai-prices"


@pytest.mark.parametrize(
    "endpoint", [None, "http://127.0.0.1:8000/v1", "https://own.example/v1"]
)
async def test_an_own_server_has_no_price(endpoint: str | None) -> None:
    prices = Prices()
    if endpoint is not None:
        prices.add(openai(), endpoint)
    assert prices.price(openai(), "gpt-4o") is None


@pytest.mark.parametrize(
    ("endpoint", "price", "loads"),
    [
        ("https://api.openai.com/v1", None, 1),
        ("https://api.openai.com/v1", PRICE, 0),
        ("http://127.0.0.1:8000/v1", None, 0),
    ],
)
def test_the_table_is_loaded_ahead_and_only_where_it_can_be_needed(
    endpoint: str, price: Price | None, loads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[None] = []
    monkeypatch.setattr(
        "atomr_infer.serving.requests.prices.load", lambda: loaded.append(None)
    )
    Prices().add(openai(price), endpoint)
    assert len(loaded) == loads


async def test_what_is_remembered_is_bounded_and_looked_up_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def find(model: str, endpoint: str, *, now: object) -> None:
        asked.append(model)

    monkeypatch.setattr("atomr_infer.serving.requests.prices.find_price", find)
    prices = Prices()
    prices.add(openai(), "https://api.openai.com/v1")
    for _ in range(3):
        prices.price(openai(), "a")
    assert asked == ["a"], "what is not known is remembered, too"
    await trio.sleep(60.0)
    prices.price(openai(), "a")
    assert asked == ["a", "a"]
    for number in range(5000):
        prices.price(openai(), f"made-up-{number}")
    assert len(prices._found) <= 1000
    prices.remove("o")
    assert prices._found == {}


def test_the_cost_of_attempts_at_one_that_is_gone_is_unknown() -> None:
    spent = [Spent("gone", "x", Usage(input_uncached=1))]
    assert Prices().cost(spent, {}) is None
    assert Prices().cost([], {}) == Cost()
