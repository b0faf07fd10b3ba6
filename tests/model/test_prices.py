"""Money is exact: parts add up, nothing is free that is only unknown."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis.strategies import (
    SearchStrategy,
    booleans,
    builds,
    decimals,
    integers,
    lists,
    none,
    one_of,
    sampled_from,
)

from atomr_infer.model.cost import (
    Cost,
    CostEstimate,
    TokenRange,
    cost_of,
    estimate_cost,
    most_for_text,
)
from atomr_infer.model.prices import (
    INPUT_BUCKETS,
    OUTPUT_BUCKETS,
    Price,
    Rate,
    Rates,
    Tier,
)
from atomr_infer.model.usage import Usage

BUCKETS = (*INPUT_BUCKETS, *OUTPUT_BUCKETS)
FLAGS = ("estimated", "interrupted")
DRAFTS = ("drafted", "drafts_accepted")
OTHERS = (*FLAGS, *DRAFTS, "reported_usd")

GPT = Rates(input=0.15, output=0.6, cache_read=0.075)

tokens = integers(0, 1_000_000)
usages: SearchStrategy[Usage] = builds(
    Usage, **dict.fromkeys(BUCKETS, tokens), **dict.fromkeys(FLAGS, booleans())
)
quotes = builds(Rate, integers(0, 10**9))
all_rates: SearchStrategy[Rates] = builds(
    Rates, **{field.name: quotes for field in attrs.fields(Rates)}
)
some_rates: SearchStrategy[Rates] = builds(
    Rates, **{field.name: one_of(none(), quotes) for field in attrs.fields(Rates)}
)
tiers = lists(
    builds(Tier, above_prompt_tokens=integers(0, 2_000_000), rates=some_rates),
    max_size=3,
)
prices: SearchStrategy[Price] = builds(
    Price, rates=all_rates, tiers=tiers, request=one_of(none(), quotes)
)
untiered: SearchStrategy[Price] = builds(Price, rates=all_rates)


def test_every_bucket_of_usage_has_a_place_for_its_rate() -> None:
    counted = {f.name for f in attrs.fields(Usage)} - {*OTHERS}
    assert counted == {*BUCKETS}
    assert all(Rates(**{n.name: 1 for n in attrs.fields(Rates)}).of(b) for b in BUCKETS)


# --- rates ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quoted", "pico_usd"),
    [(0, 0), (0.1, 100_000), ("0.000001", 1), (15, 15_000_000), (1e6, 10**12)],
)
def test_a_quoted_price_is_a_whole_number_for_a_token(
    quoted: float | str, pico_usd: int
) -> None:
    assert Rate.per_million(quoted).pico_usd == pico_usd


@given(decimals(0, 1000, places=6))
def test_a_rate_is_shown_as_it_was_quoted(quoted: Decimal) -> None:
    assert Rate.per_million(quoted).usd_per_million == quoted


@pytest.mark.parametrize("bad", [-0.1, "x", "", "inf", float("nan"), True, 1e7, 1e-7])
def test_what_is_no_price_is_refused(bad: float | str) -> None:
    with pytest.raises(ValueError, match=r"is no|has more than six|is not a number"):
        Rate.per_million(bad)
    with pytest.raises(ValueError, match=r"^output: "):
        Rates(input=1, output=bad)


def test_evolving_a_price_does_not_convert_it_again() -> None:
    price = Price(rates=GPT, request=3)
    assert attrs.evolve(price, source="x").request == price.request
    assert attrs.evolve(GPT, output=1).input == GPT.input


# --- what it cost -----------------------------------------------------------


def test_each_bucket_is_billed_at_its_own_rate() -> None:
    usage = Usage(input_uncached=1000, cache_read=2000, output_text=300, reasoning=200)
    cost = cost_of(usage, Price(rates=GPT, request=1))
    assert cost == Cost(
        parts={
            "request": 1_000_000,
            "input_uncached": 150_000_000,
            "cache_read": 150_000_000,
            "output_text": 180_000_000,
            "reasoning": 120_000_000,
        }
    )
    assert cost.usd == Decimal("0.000601")


@given(usages, prices)
def test_parts_add_up_to_the_total_exactly(usage: Usage, price: Price) -> None:
    cost = cost_of(usage, price)
    assert cost is not None
    rates = price.rates_for(usage.prompt_tokens)
    exact = Decimal(0) if price.request is None else price.request.usd_per_million
    for bucket in BUCKETS:
        rate = rates.of(bucket)
        assert rate is not None
        exact += getattr(usage, bucket) * rate.usd_per_million
    assert sum(cost.parts.values()) == cost.pico_usd
    assert cost.usd * 1_000_000 == exact
    assert cost.estimated == (usage.estimated or usage.interrupted)


@given(usages, untiered, sampled_from(BUCKETS), integers(0, 1000))
def test_more_tokens_never_cost_less(
    usage: Usage, price: Price, bucket: str, more: int
) -> None:
    grown = attrs.evolve(usage, **{bucket: getattr(usage, bucket) + more})
    before, after = cost_of(usage, price), cost_of(grown, price)
    assert before is not None
    assert after is not None
    rate = price.rates.of(bucket)
    assert rate is not None
    assert after.pico_usd - before.pico_usd == more * rate.pico_usd


@given(usages, usages, untiered)
def test_attempts_together_cost_what_they_cost_apart(
    one: Usage, two: Usage, price: Price
) -> None:
    apart = [cost_of(usage, price) for usage in (one, two)]
    together = cost_of(one + two, price)
    assert together is not None
    assert apart[0] is not None
    assert apart[1] is not None
    assert (apart[0] + apart[1]).pico_usd == together.pico_usd
    assert (apart[0] + apart[1]).estimated == together.estimated


@given(usages, builds(Price, rates=some_rates, tiers=tiers))
def test_unknown_stays_unknown_and_known_does_not_become_it(
    usage: Usage, price: Price
) -> None:
    rates = price.rates_for(usage.prompt_tokens)
    lacking = [b for b in BUCKETS if getattr(usage, b) and rates.of(b) is None]
    assert (cost_of(usage, price) is None) == bool(lacking)


def test_no_price_is_no_cost_and_a_price_of_zero_is_zero() -> None:
    usage = Usage(input_uncached=1, output_text=1)
    assert cost_of(usage, None) is None
    assert cost_of(usage, Price(rates=Rates(input=0, output=0))) == Cost()
    assert cost_of(Usage(), Price(rates=Rates())) == Cost()


def test_what_the_upstream_reports_goes_before_what_we_only_know_of() -> None:
    usage = Usage(input_uncached=1, reported_usd=Decimal("0.000012"), estimated=True)
    reported = Cost(parts={"reported": 12_000_000}, estimated=True)
    assert cost_of(usage, None) == reported
    assert cost_of(usage, Price(rates=GPT, source="genai-prices")) == reported
    ours = cost_of(usage, Price(rates=GPT))
    assert ours == Cost(parts={"input_uncached": 150_000}, estimated=True)


def test_a_long_prompt_is_billed_by_its_tier_from_the_first_token_on() -> None:
    price = Price(
        rates=Rates(input=1, output=10, cache_read=0.1),
        tiers=(
            Tier(above_prompt_tokens=500, rates=Rates(input=4)),
            Tier(above_prompt_tokens=200, rates=Rates(input=2, output=15)),
        ),
    )

    def parts(usage: Usage) -> dict[str, int]:
        cost = cost_of(usage, price)
        assert cost is not None
        return {name: amount // 100_000 for name, amount in cost.parts.items()}

    assert parts(Usage(input_uncached=200, output_text=1)) == {
        "input_uncached": 2000,
        "output_text": 100,
    }
    # Cached tokens are part of the prompt's length.
    assert parts(Usage(input_uncached=200, cache_read=1, output_text=1)) == {
        "input_uncached": 4000,
        "cache_read": 1,
        "output_text": 150,
    }
    # What a tier does not say is the price's own.
    assert parts(Usage(input_uncached=501, output_text=1)) == {
        "input_uncached": 20040,
        "output_text": 100,
    }


# --- before the call --------------------------------------------------------


@given(prices, tokens, tokens, tokens, tokens, integers(0, 100), integers(0, 100))
def test_what_it_costs_in_the_end_is_between_the_bounds(
    price: Price,
    prompt: int,
    prompt_more: int,
    output: int,
    output_more: int,
    cached_percent: int,
    reasoning_percent: int,
) -> None:
    estimate = estimate_cost(
        price,
        prompt=TokenRange(prompt // 2, prompt + prompt_more),
        output=TokenRange(output // 2, output + output_more),
    )
    cached = prompt * cached_percent // 100
    reasoning = output * reasoning_percent // 100
    usage = Usage(
        input_uncached=prompt - cached,
        cache_read=cached,
        output_text=output - reasoning,
        reasoning=reasoning,
    )
    cost = cost_of(usage, price)
    assert estimate is not None
    assert estimate.high is not None
    assert cost is not None
    assert estimate.low.pico_usd <= cost.pico_usd <= estimate.high.pico_usd


@given(prices, tokens, tokens)
def test_the_most_that_text_may_cost_is_the_estimates_upper_bound(
    price: Price, prompt: int, output: int
) -> None:
    estimate = estimate_cost(
        price, prompt=TokenRange(0, prompt), output=TokenRange(0, output)
    )
    assert estimate is not None
    assert estimate.high is not None
    assert most_for_text(price, prompt, output) == estimate.high.pico_usd
    assert most_for_text(price, prompt, None) is None


def test_an_estimate_by_example() -> None:
    estimate = estimate_cost(
        Price(rates=GPT, request=1),
        prompt=TokenRange(10, 100),
        output=TokenRange(1, 50),
    )
    assert estimate == CostEstimate(
        low=Cost(
            parts={"request": 1_000_000, "input": 750_000, "output": 600_000},
            estimated=True,
        ),
        high=Cost(
            parts={"request": 1_000_000, "input": 15_000_000, "output": 30_000_000},
            estimated=True,
        ),
    )


@pytest.mark.parametrize(
    "rates",
    [
        Rates(),
        Rates(input=1),
        Rates(output=1),
        Rates(cache_read=1, output=1),
        Rates(input=1, reasoning=1),
    ],
)
def test_without_a_price_for_text_there_is_no_estimate(rates: Rates) -> None:
    span = TokenRange(1, 1)
    assert most_for_text(Price(rates=rates), 1, 1) is None
    assert most_for_text(None, 1, 1) is None
    assert estimate_cost(Price(rates=rates), prompt=span, output=span) is None
    assert estimate_cost(None, prompt=span, output=span) is None


@pytest.mark.parametrize(
    ("prompt", "output", "buckets"),
    [
        (TokenRange(1, None), TokenRange(1, 1), {"input_uncached", "output_text"}),
        (TokenRange(1, 1), TokenRange(1, None), {"input_uncached", "output_text"}),
        (
            TokenRange(1, 1),
            TokenRange(1, 1),
            {"input_uncached", "input_audio", "output_text"},
        ),
    ],
)
def test_what_nobody_can_bound_has_no_upper_bound(
    prompt: TokenRange, output: TokenRange, buckets: set[str]
) -> None:
    estimate = estimate_cost(
        Price(rates=GPT), prompt=prompt, output=output, buckets=buckets
    )
    assert estimate is not None
    assert estimate.low.pico_usd > 0
    assert estimate.high is None
