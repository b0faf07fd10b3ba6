"""What tokens cost, by bucket: rates, tiers by the prompt's length, a price.

Money is whole pico-dollars (1e-12 USD).  Providers quote dollars per million
tokens with up to six decimals, and a millionth of a millionth is one of these
units: so a rate is a whole number for one token, a cost is an exact product,
and parts add up to their total to the last digit, in any order.  Floats would
not, and ``Decimal`` rounds by a context that belongs to the thread.

A price that is not known is None and stays so; it is never 0.  A bucket without
a rate of its own is billed as another where every provider does so:

===============  ===========================================
``reasoning``    as ``output``
``tool_prompt``  as ``input``
``input_image``  as ``input``
===============  ===========================================

For the others (what comes from a cache or goes into one, sound) there is no
such rule, and what holds their tokens has no known cost.

Pure.
"""

from __future__ import annotations

from decimal import Decimal, DecimalException
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.model.validation import InvalidValueError, at_least

if TYPE_CHECKING:
    from collections.abc import Mapping

PICO = 1_000_000_000_000
"""Pico-dollars in a dollar."""

PICO_PER_MICRO = 1_000_000
"""Pico-dollars in a microdollar."""

CONFIGURED = "config"
"""The source of prices that an operator wrote."""

_DECIMALS = 6

_MAX_USD_PER_MILLION = 1_000_000


@attrs.frozen(order=True)
class Rate:
    """What one token costs.

    Attributes:
        pico_usd: in pico-dollars.

    >>> Rate.per_million("0.075")
    Rate(pico_usd=75000)
    """

    pico_usd: int = attrs.field(validator=at_least(0))

    @classmethod
    def per_million(cls, usd: Decimal | float | str) -> Rate:
        """Return the rate of so many dollars per million tokens.

        Args:
            usd: 0 to a million, with at most six decimals; a float is taken as
                it is written (0.1 is a tenth).

        Raises:
            ValueError: it is no such number.
        """
        if isinstance(usd, bool) or not isinstance(usd, (Decimal, float, int, str)):
            raise ValueError("is not a number")  # noqa: TRY004 - one error for all
        try:
            exact = Decimal(repr(usd) if isinstance(usd, float) else usd)
        except DecimalException as error:
            raise ValueError("is not a number") from error
        if not exact.is_finite() or not 0 <= exact <= _MAX_USD_PER_MILLION:
            raise ValueError("is no price; write USD per million tokens")
        scaled = exact.scaleb(_DECIMALS)
        if scaled != int(scaled):
            raise ValueError("has more than six decimals")
        return cls(int(scaled))

    @property
    def usd_per_million(self) -> Decimal:
        """The rate as providers quote it.

        >>> str(Rate(75000).usd_per_million)
        '0.075'
        """
        return Decimal(self.pico_usd).scaleb(-_DECIMALS).normalize()


Quote = Rate | Decimal | float | str
"""A rate, or dollars per million tokens."""


def microusd_up(pico_usd: int) -> int:
    """Return pico-dollars as whole microdollars, rounded up.

    What is told or charged in microdollars is rounded here, as a sum and not in its
    parts: so the same spending is the same figure wherever it stands.

    >>> microusd_up(0), microusd_up(1), microusd_up(3_000_000)
    (0, 1, 3)
    """
    return -(-pico_usd // PICO_PER_MICRO)


def to_rate(value: Quote | None) -> Rate | None:
    """Return a number of dollars per million tokens as a rate.

    What is no price is left as it is, for the validator, which knows its name.
    """
    if value is None or isinstance(value, Rate):
        return value
    try:
        return Rate.per_million(value)
    except ValueError:
        return value  # type: ignore[return-value] # refused by is_rate


def is_rate(_: object, field: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - a validator
    """Refuse what is no price."""
    if value is None or isinstance(value, Rate):
        return
    try:
        Rate.per_million(value)
    except ValueError as error:
        raise InvalidValueError(field.name, value, str(error)) from error


@attrs.frozen(kw_only=True)
class Rates:
    """Rates by bucket; None: not known, or as another (see the module).

    In programs and in TOML a number is dollars per million tokens.

    Attributes:
        input: text of the prompt.
        output: text of the answer.
        cache_read: prompt tokens taken from a prompt cache.
        cache_write_5m: prompt tokens stored in a cache for minutes.
        cache_write_1h: prompt tokens stored in a cache for an hour.
        input_audio: sound in the prompt.
        input_image: pictures in the prompt.
        tool_prompt: what the provider's own tools add to the prompt.
        reasoning: output tokens spent on reasoning.
        output_audio: sound in the answer.

    >>> Rates(input=0.15, output=0.6).of("reasoning")
    Rate(pico_usd=600000)
    """

    input: Rate | None = attrs.field(default=None, converter=to_rate, validator=is_rate)
    output: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    cache_read: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    cache_write_5m: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    cache_write_1h: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    input_audio: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    input_image: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    tool_prompt: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    reasoning: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    output_audio: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )

    def of(self, bucket: str) -> Rate | None:
        """Return the rate of a bucket of ``Usage``; None: not known."""
        for name in _FIELDS[bucket]:
            rate: Rate | None = getattr(self, name)
            if rate is not None:
                return rate
        return None

    @cached_property
    def picos(self) -> tuple[int | None, ...]:
        """Pico-dollars for a token of each of ``BUCKETS``; None: not known."""
        rates = map(self.of, BUCKETS)
        return tuple(None if rate is None else rate.pico_usd for rate in rates)

    def over(self, base: Rates) -> Rates:
        """Return these rates, and ``base``'s where there is none here."""
        return Rates(**{**_given(base), **_given(self)})


# Where each bucket's rate is looked for, in order.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "input_uncached": ("input",),
    "cache_read": ("cache_read",),
    "cache_write_5m": ("cache_write_5m",),
    "cache_write_1h": ("cache_write_1h",),
    "input_audio": ("input_audio",),
    "input_image": ("input_image", "input"),
    "tool_prompt": ("tool_prompt", "input"),
    "output_text": ("output",),
    "reasoning": ("reasoning", "output"),
    "output_audio": ("output_audio",),
}

INPUT_BUCKETS = (
    "input_uncached",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "input_image",
    "tool_prompt",
)
OUTPUT_BUCKETS = ("output_text", "reasoning", "output_audio")
BUCKETS = (*INPUT_BUCKETS, *OUTPUT_BUCKETS)
"""All buckets of ``Usage``."""


def _given(rates: Rates) -> dict[str, Rate]:
    found = ((f.name, getattr(rates, f.name)) for f in attrs.fields(Rates))
    return {name: rate for name, rate in found if rate is not None}


@attrs.frozen(kw_only=True)
class Tier:
    """Rates of requests with a long prompt; all their tokens are billed by them.

    Attributes:
        above_prompt_tokens: prompts longer than this, cached tokens included.
        rates: what differs from the price's own rates.
    """

    above_prompt_tokens: int = attrs.field(validator=at_least(0))
    rates: Rates = Rates()


def _ascending(tiers: tuple[Tier, ...] | list[Tier]) -> tuple[Tier, ...]:
    return tuple(sorted(tiers, key=lambda tier: tier.above_prompt_tokens))


@attrs.frozen(kw_only=True)
class Price:
    """What one model costs.

    Attributes:
        rates: by bucket.
        tiers: by the prompt's length, shortest first.
        request: what each request costs besides its tokens, None: nothing; a
            number is dollars per million requests.
        source: where the price is from, in a word: ``config``, ...
    """

    rates: Rates
    tiers: tuple[Tier, ...] = attrs.field(default=(), converter=_ascending)
    request: Rate | None = attrs.field(
        default=None, converter=to_rate, validator=is_rate
    )
    source: str = CONFIGURED

    def rates_for(self, prompt_tokens: int) -> Rates:
        """Return the rates of a request with a prompt of this length."""
        for tier in reversed(self.tiers):
            if prompt_tokens > tier.above_prompt_tokens:
                return tier.rates.over(self.rates)
        return self.rates

    def rates_between(self, low_tokens: int, high_tokens: int) -> tuple[Rates, ...]:
        """Return all rates that a prompt of a length in this range may have."""
        crossed = [
            tier.rates.over(self.rates)
            for tier in self.tiers
            if low_tokens <= tier.above_prompt_tokens < high_tokens
        ]
        return (self.rates_for(low_tokens), *crossed)

    @cached_property
    def text_ceilings(self) -> tuple[tuple[int, int, int], ...]:
        """The most that a token of text may cost, by the prompt's length.

        For prompts longer than the first number, pico-dollars for a token of the
        prompt and of the answer; the shortest first.  None of them: not known.
        """
        ceilings: list[tuple[int, int, int]] = []
        most_in = most_out = 0
        tables = [(-1, self.rates)]
        tables += [
            (tier.above_prompt_tokens, tier.rates.over(self.rates))
            for tier in self.tiers
        ]
        for above, rates in tables:
            text, answer = rates.of("input_uncached"), rates.of("output_text")
            if text is None or answer is None:
                return ()
            # Nobody charges more for what is cached than for what is not, unless
            # it is written here.
            cached, thoughts = rates.cache_read or text, rates.reasoning or answer
            most_in = max(most_in, text.pico_usd, cached.pico_usd)
            most_out = max(most_out, answer.pico_usd, thoughts.pico_usd)
            ceilings.append((above, most_in, most_out))
        return tuple(ceilings)
