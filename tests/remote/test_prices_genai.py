"""The package's prices are ours: the same total for every model that it knows."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import data_snapshot
from genai_prices import types as genai

from atomr_infer.model.cost import cost_of
from atomr_infer.model.prices import Price, Rates, Tier
from atomr_infer.model.usage import Usage
from atomr_infer.remote.prices_genai import _price, find_price

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)

# A short prompt, and one behind every tier there is.
USAGES = (
    Usage(input_uncached=1000, cache_read=2000, output_text=300, reasoning=200),
    Usage(
        input_uncached=1_500_000,
        cache_read=900_000,
        cache_write_5m=70_000,
        cache_write_1h=30_000,
        output_text=40_000,
        reasoning=1,
    ),
)


def theirs(usage: Usage) -> genai.Usage:
    return genai.Usage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        cache_write_5m_tokens=usage.cache_write_5m,
        cache_write_1h_tokens=usage.cache_write_1h,
        output_tokens=usage.output_tokens,
        output_reasoning_tokens=usage.reasoning,
    )


@pytest.mark.parametrize("usage", USAGES, ids=["short", "long"])
def test_every_model_costs_what_the_package_says(usage: Usage) -> None:
    compared = 0
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            quotes = {
                k: v for k, v in vars(model.get_prices(NOW)).items() if v is not None
            }
            price = _price(quotes)
            if price is None or not {"input_mtok", "output_mtok"} <= quotes.keys():
                continue
            cost = cost_of(usage, price)
            assert cost is not None
            expected = model.calc_price(
                theirs(usage), provider, genai_request_timestamp=NOW
            ).total_price
            # Their few quotes with more than six decimals are rounded.
            slack = Decimal(usage.total_tokens) / 10**12
            assert abs(cost.usd - expected) <= slack, (provider.id, model.id)
            compared += 1
    assert compared > 1000


def test_a_model_is_found_by_its_provider_s_address() -> None:
    price = find_price("claude-sonnet-4-5", "https://api.anthropic.com", now=NOW)
    assert price == Price(
        rates=Rates(
            input=3,
            output=15,
            cache_read="0.3",
            cache_write_5m="3.75",
            cache_write_1h=6,
            input_audio=3,
            input_image=3,
            reasoning=15,
            output_audio=15,
        ),
        tiers=(
            Tier(
                above_prompt_tokens=200_000,
                rates=Rates(
                    input=6,
                    output="22.5",
                    cache_read="0.6",
                    cache_write_5m="7.5",
                    cache_write_1h=12,
                    input_audio=6,
                    input_image=6,
                    reasoning="22.5",
                    output_audio="22.5",
                ),
            ),
        ),
        source="genai-prices",
    )


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [
        ("no-such-model", "https://api.openai.com/v1"),
        ("gpt-4o", "http://127.0.0.1:8000/v1"),
        ("gpt-4o", "https://api.openai.example/v1"),
        ("", "https://api.openai.com/v1"),
    ],
)
def test_what_it_does_not_know_is_unknown(model: str, endpoint: str) -> None:
    assert find_price(model, endpoint, now=NOW) is None


def test_what_is_billed_by_something_else_is_unknown() -> None:
    assert _price({"audio_hours": Decimal(1)}) is None


_NO_NETWORK = """
import socket, sys, threading
from datetime import UTC, datetime

def refuse(*_):
    raise AssertionError("a connection")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
from atomr_infer.remote.prices_genai import find_price
assert find_price("gpt-4o", "https://api.openai.com/v1", now=datetime.now(UTC))
assert threading.active_count() == 1, threading.enumerate()
"""


def test_nothing_is_asked_of_the_network() -> None:
    subprocess.run([sys.executable, "-c", _NO_NETWORK], check=True, timeout=60)


def test_without_the_package_every_price_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atomr_infer.remote.prices_genai.installed", lambda: False)
    assert find_price("gpt-4o", "https://api.openai.com/v1", now=NOW) is None
