"""Prices of the known providers' models, from the package ``genai-prices``.

Only the table that the installed package holds is read; its updates from the
network are never started, because a table that changes under way once replaced
right prices by stale ones.  A newer table is a newer package.

The package prices a bucket without a price of its own as the one around it (a
cached token as any prompt token); here that is written out, so that
:class:`~atomr_infer.model.prices.Price` needs no second set of rules.

Cost: the package's import takes 0.4 s, so :func:`load` does it ahead of a
look-up, which then takes some milliseconds at most.
"""

from __future__ import annotations

from decimal import Decimal
from importlib.util import find_spec
from typing import TYPE_CHECKING

from atomr_infer.model.prices import Price, Rate, Rates, Tier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from genai_prices.types import TieredPrices

SOURCE = "genai-prices"

# Where each rate is looked for, the most special first.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "input": ("input_mtok", "input_text_mtok"),
    "output": ("output_mtok", "output_text_mtok"),
    "cache_read": ("cache_read_mtok", "input_mtok"),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
    "input_audio": ("input_audio_mtok", "input_mtok"),
    "input_image": ("input_image_mtok", "input_mtok"),
    "reasoning": ("output_reasoning_mtok", "output_mtok"),
    "output_audio": ("output_audio_mtok", "output_mtok"),
}
_REQUESTS = "requests_kcount"

# The package's few floating-point leftovers (0.19999999999999998) go.
_QUANTUM = Decimal("0.000001")

_Quotes = dict[str, "Decimal | TieredPrices"]


def installed() -> bool:
    """Return whether the package is there (extra ``prices``)."""
    return find_spec("genai_prices") is not None


def load() -> None:
    """Load the table, where the package is there; the first time takes 0.4 s."""
    if installed():
        from genai_prices import data_snapshot  # noqa: PLC0415 - see find_price

        data_snapshot.get_snapshot()


def find_price(model: str, endpoint: str, *, now: datetime) -> Price | None:
    """Return what a provider asks for a model.

    Args:
        model: the provider's name for it.
        endpoint: the provider's base URL, by which it is known.
        now: some prices depend on the date or the hour.

    Returns:
        None when the package is not there, or knows no such provider, model or
        price.
    """
    if not installed():
        return None
    # Here, because only a deployment of a known provider pays for the import.
    from genai_prices import data_snapshot  # noqa: PLC0415

    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(
            model, None, None, endpoint
        )
    except LookupError:
        return None
    prices = found.get_prices(now)
    return _price({k: v for k, v in vars(prices).items() if v is not None})


def _price(quotes: _Quotes) -> Price | None:
    rates = _rates(quotes, above=None)
    if rates.input is None and rates.output is None:
        return None  # it is billed by the hour, the page, the picture
    tiers = tuple(
        Tier(above_prompt_tokens=start, rates=_rates(quotes, above=start))
        for start in sorted(set(_starts(quotes)))
    )
    request = quotes.get(_REQUESTS)
    if request is None:
        return Price(rates=rates, tiers=tiers, source=SOURCE)
    per_million = _at(request, None) * 1000
    return Price(rates=rates, tiers=tiers, request=per_million, source=SOURCE)


def _rates(quotes: _Quotes, above: int | None) -> Rates:
    found: dict[str, Rate] = {}
    for name, keys in _KEYS.items():
        quote = next((quotes[key] for key in keys if key in quotes), None)
        if quote is not None:
            found[name] = Rate.per_million(_at(quote, above).quantize(_QUANTUM))
    return Rates(**found)


def _starts(quotes: _Quotes) -> Iterator[int]:
    for quote in quotes.values():
        if not isinstance(quote, Decimal):
            yield from (tier.start for tier in quote.tiers)


def _at(quote: Decimal | TieredPrices, above: int | None) -> Decimal:
    """Return a quote for prompts that are longer than ``above``."""
    if isinstance(quote, Decimal):
        return quote
    passed = [t for t in quote.tiers if above is not None and t.start <= above]
    return passed[-1].price if passed else quote.base
