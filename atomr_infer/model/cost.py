"""What a request cost, and what it may cost before it is made.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from functools import cached_property, reduce
from operator import add, attrgetter
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.prices import (
    BUCKETS,
    CONFIGURED,
    INPUT_BUCKETS,
    OUTPUT_BUCKETS,
    PICO,
    Price,
    Rates,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.model.usage import Usage

REPORTED = "reported"
"""The part of a cost that the upstream told as a whole."""

REQUEST = "request"
"""The part of a cost that is the request's own, whatever its tokens."""


@attrs.frozen(kw_only=True)
class Cost:
    """Money that a request costs; parts add up to the total exactly.

    Attributes:
        parts: pico-dollars by bucket, of those that cost something.
        estimated: True when the tokens were counted by us, or were cut off.
    """

    parts: Mapping[str, int] = attrs.field(factory=dict, hash=False)
    estimated: bool = False

    @cached_property
    def pico_usd(self) -> int:
        """The total in pico-dollars."""
        return sum(self.parts.values())

    @property
    def usd(self) -> Decimal:
        """The total in dollars, exactly.

        >>> Cost(parts={"input_uncached": 150_000}).usd
        Decimal('1.50000E-7')
        """
        return Decimal(self.pico_usd).scaleb(-12)

    @cached_property
    def usd_text(self) -> str:
        """The total in dollars as it is shown, without an exponent.

        >>> Cost(parts={"input_uncached": 150_000}).usd_text
        '0.00000015'
        """
        return f"{Decimal(self.pico_usd).scaleb(-12).normalize():f}"

    def __add__(self, other: Cost) -> Cost:
        """Return both together: the attempts of one request."""
        names = self.parts.keys() | other.parts.keys()
        sums = {n: self.parts.get(n, 0) + other.parts.get(n, 0) for n in sorted(names)}
        return Cost(parts=sums, estimated=self.estimated or other.estimated)


_NOTHING = Cost()
_counts = attrgetter(*BUCKETS)


def total_of(costs: Sequence[Cost]) -> Cost:
    """Return several costs together: most requests have one."""
    return costs[0] if len(costs) == 1 else reduce(add, costs, _NOTHING)


def cost_of(usage: Usage, price: Price | None) -> Cost | None:
    """Return what a generation cost.

    What an upstream says that it cost (``usage.reported_usd``) goes before a
    price that we only know of, and behind one that is configured.

    Args:
        usage: its tokens.
        price: the model's; None: not known.

    Returns:
        None when it cannot be known: there is no price, or none for a bucket
        that holds tokens.

    Laws: grows with each bucket; the sum of two usages in one tier costs the
        sum of their costs, but for the second request's own price.

    >>> from atomr_infer.model.usage import Usage
    >>> rates = Rates(input=0.15, output=0.6)
    >>> usage = Usage(input_uncached=10, output_text=5)
    >>> cost_of(usage, Price(rates=rates)).parts
    {'input_uncached': 1500000, 'output_text': 3000000}
    >>> cost_of(Usage(cache_read=1), Price(rates=rates)) is None
    True
    """
    estimated = usage.estimated or usage.interrupted
    configured = price is not None and price.source == CONFIGURED
    if usage.reported_usd is not None and not configured:
        reported = round(usage.reported_usd * PICO)
        return Cost(parts={REPORTED: reported}, estimated=estimated)
    if price is None:
        return None
    rates = price.rates_for(usage.prompt_tokens) if price.tiers else price.rates
    parts: dict[str, int] = {}
    if price.request is not None:
        parts[REQUEST] = price.request.pico_usd
    for bucket, tokens, pico_usd in zip(
        BUCKETS, _counts(usage), rates.picos, strict=True
    ):
        if tokens:
            if pico_usd is None:
                return None
            if pico_usd:
                parts[bucket] = tokens * pico_usd
    return Cost(parts=parts, estimated=estimated)


def pico_usd_of(usage: Usage, price: Price | None) -> int | None:
    """Return what a generation cost in all, in pico-dollars.

    Laws: it is the total of what :func:`cost_of` returns.

    >>> from atomr_infer.model.usage import Usage
    >>> usage = Usage(input_uncached=10, output_text=5)
    >>> pico_usd_of(usage, Price(rates=Rates(input=0.15, output=0.6)))
    4500000
    """
    if price is None or price.tiers or usage.reported_usd is not None:
        cost = cost_of(usage, price)
        return None if cost is None else cost.pico_usd
    total = 0 if price.request is None else price.request.pico_usd
    for tokens, pico_usd in zip(_counts(usage), price.rates.picos, strict=True):
        if tokens:
            if pico_usd is None:
                return None
            total += tokens * pico_usd
    return total


@attrs.frozen
class TokenRange:
    """How many tokens there may be.

    Attributes:
        low: at least so many.
        high: at most so many; None: nobody can say.
    """

    low: int
    high: int | None


@attrs.frozen(kw_only=True)
class CostEstimate:
    """What a request may cost.

    Attributes:
        low: at least this, everything cached and the answer short.
        high: at most this; None: the answer has no bound, or something in the
            request has no known price.
    """

    low: Cost
    high: Cost | None


TEXT_BUCKETS = frozenset({"input_uncached", "cache_read", "output_text", "reasoning"})
"""What a request of text may be billed as."""


def estimate_cost(
    price: Price | None,
    *,
    prompt: TokenRange,
    output: TokenRange,
    buckets: Collection[str] = TEXT_BUCKETS,
) -> CostEstimate | None:
    """Return what a request may cost, before it is made.

    Args:
        price: the model's; None: not known.
        prompt: tokens of its prompt.
        output: tokens of all its answers together.
        buckets: what its tokens may be billed as; add those of a cache that it
            asks to write, and of sound.

    Returns:
        None when the price of text is not known.

    Laws: ``low`` is at most ``high``, and what it costs in the end is between
        them when the tokens are; both grow with the tokens.
    """
    if price is None:
        return None
    most = prompt.low if prompt.high is None else prompt.high
    tables = price.rates_between(prompt.low, most)
    inputs = _spread(tables, [b for b in INPUT_BUCKETS if b in buckets])
    outputs = _spread(tables, [b for b in OUTPUT_BUCKETS if b in buckets])
    if inputs is None or outputs is None:
        return None
    low = _both(price, prompt.low * inputs.low, output.low * outputs.low)
    if prompt.high is None or output.high is None:
        return CostEstimate(low=low, high=None)
    if inputs.high is None or outputs.high is None:
        return CostEstimate(low=low, high=None)
    high = _both(price, prompt.high * inputs.high, output.high * outputs.high)
    return CostEstimate(low=low, high=high)


def most_for_text(
    price: Price | None, prompt_tokens: int, output_tokens: int | None
) -> int | None:
    """Return the most that a request of text may cost, in pico-dollars.

    Args:
        price: the model's; None: not known.
        prompt_tokens: of its prompt, at most.
        output_tokens: of all its answers, at most; None: nobody can say.

    Returns:
        None when nobody can say.

    Laws: it is ``estimate_cost``'s ``high``, for any prompt up to that length.
    """
    if price is None or output_tokens is None:
        return None
    most: int | None = None
    for above, input_pico_usd, output_pico_usd in price.text_ceilings:
        if prompt_tokens <= above:
            break
        most = prompt_tokens * input_pico_usd + output_tokens * output_pico_usd
    if most is not None and price.request is not None:
        most += price.request.pico_usd
    return most


@attrs.frozen
class _Spread:
    """The least and the most that a token may cost; ``high`` None: not known."""

    low: int
    high: int | None


def _spread(tables: tuple[Rates, ...], buckets: list[str]) -> _Spread | None:
    rates = [(bucket, table.of(bucket)) for table in tables for bucket in buckets]
    known = [rate.pico_usd for _, rate in rates if rate is not None]
    if not known or rates[0][1] is None:
        return None  # text itself has no price
    # Nobody charges more for what is cached than for what is not.
    gaps = any(rate is None and bucket != "cache_read" for bucket, rate in rates)
    return _Spread(min(known), None if gaps else max(known))


def _both(price: Price, input_pico_usd: int, output_pico_usd: int) -> Cost:
    parts = {
        REQUEST: 0 if price.request is None else price.request.pico_usd,
        "input": input_pico_usd,
        "output": output_pico_usd,
    }
    named = {name: amount for name, amount in parts.items() if amount}
    return Cost(parts=named, estimated=True)
