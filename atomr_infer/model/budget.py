"""A budget: how much may be spent in a period, and what happens then.

Money is whole microdollars (1e-6 USD), tokens are tokens; either way a budget is a
whole number of *units*, and nothing is rounded on the way.

Pure.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, tzinfo
from decimal import Decimal, DecimalException
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.model.validation import InvalidValueError, non_empty

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_UNITS = 1 << 53
"""Nine billion dollars; more fits no ledger."""

_DECIMALS = 6


class Per(Enum):
    """How long a budget's period is."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Window(Enum):
    """When a budget's period begins."""

    CALENDAR = "calendar"
    """with the hour, day or month of its time zone; all of it is there then"""
    ROLLING = "rolling"
    """always: what is spent is there again a period later"""


class OnExceeded(Enum):
    """What becomes of a request that a budget has no room for."""

    REJECT = "reject"
    """it is refused"""
    WARN = "warn"
    """it is made, and the log says so, once in each period"""
    THROTTLE = "throttle"
    """it is made, later"""
    DOWNGRADE = "downgrade"
    """another model is asked"""


WINDOW_S = {Per.HOUR: 3_600.0, Per.DAY: 86_400.0, Per.MONTH: 30 * 86_400.0}
"""Of rolling budgets; a rolling month has 30 days."""


def microusd_of(usd: Decimal | float | str) -> int:
    """Return dollars as whole microdollars.

    Args:
        usd: more than 0, with at most six decimals; a float is taken as it is
            written (0.1 is a tenth).

    Raises:
        ValueError: it is no such amount.

    >>> microusd_of("10.00"), microusd_of(0.1)
    (10000000, 100000)
    """
    if isinstance(usd, bool) or not isinstance(usd, (Decimal, float, int, str)):
        raise ValueError("is no amount of dollars")  # noqa: TRY004 - one error for all
    try:
        exact = Decimal(repr(usd) if isinstance(usd, float) else usd)
    except DecimalException as error:
        raise ValueError("is no amount of dollars") from error
    if not exact.is_finite() or not 0 < exact <= Decimal(MAX_UNITS).scaleb(-_DECIMALS):
        raise ValueError("is not above 0, or beyond nine billion dollars")
    scaled = exact.scaleb(_DECIMALS)
    if scaled != int(scaled):
        raise ValueError("has more than six decimals")
    return int(scaled)


def usd_text(microusd: int) -> str:
    """Return microdollars as dollars, exactly.

    >>> usd_text(10_000_000), usd_text(1)
    ('10', '0.000001')
    """
    return f"{Decimal(microusd).scaleb(-_DECIMALS).normalize():f}"


def _as_text(usd: Any) -> Any:  # noqa: ANN401 - what is no amount is left as it is
    if usd is None:
        return None
    try:
        return usd_text(microusd_of(usd))
    except ValueError:
        return usd  # refused by the validator, which knows its name


def _is_usd(_: object, field: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - a validator
    if value is None:
        return
    try:
        microusd_of(value)
    except ValueError as error:
        raise InvalidValueError(field.name, value, str(error)) from error


def _is_tokens(_: object, field: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - a validator
    if value is None:
        return
    if type(value) is not int or not 0 < value <= MAX_UNITS:
        problem = "is no number of tokens above 0"
        raise InvalidValueError(field.name, value, problem)


def _is_time_zone(_: object, field: attrs.Attribute[str], value: object) -> None:
    try:
        zone_of(str(value))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        problem = (
            'is no time zone that this machine knows; write one as "Europe/Berlin", and'
            " install tzdata where there are none"
        )
        raise InvalidValueError(field.name, value, problem) from error


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name.

    Raises:
        ValueError: it is no name of one.
        zoneinfo.ZoneInfoNotFoundError: this machine does not know it.
    """
    return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def _fractions(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value,)
    return tuple(sorted(value)) if isinstance(value, (list, tuple)) else value


def _are_fractions(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidValueError(field.name, value, "is no list of fractions")
    for each in value:
        if isinstance(each, bool) or not isinstance(each, (int, float)):
            raise InvalidValueError(field.name, each, "is no number")
        if not 0.0 < each <= 1.0:
            raise InvalidValueError(field.name, each, "is not above 0 and at most 1")


@attrs.frozen(kw_only=True)
class Budget:
    """How much may be spent in a period; ``usd`` or ``tokens``, one of them.

    Attributes:
        per: the period: ``hour``, ``day`` or ``month``.
        usd: dollars, with at most six decimals; text or a number.
        tokens: input and output together.
        window: ``calendar``: the period begins with the hour, the day or the month.
            ``rolling``: what is spent is there again a period later.
        time_zone: whose hours, days and months these are.
        on_exceeded: what becomes of a request that there is no room for.  ``reject``:
            it is refused.  ``warn``: it is made, and the log says so, once in each
            period.  ``throttle``: it is made some seconds later.  ``downgrade``:
            ``downgrade_to`` is asked in its place.
        downgrade_to: the public name of another model.
        alert_at: the log says so when this share of it is spent, once in each period.

    >>> Budget(per=Per.DAY, usd="10.00").units
    10000000
    """

    per: Per = attrs.field(validator=attrs.validators.instance_of(Per))
    usd: str | None = attrs.field(default=None, converter=_as_text, validator=_is_usd)
    tokens: int | None = attrs.field(default=None, validator=_is_tokens)
    window: Window = attrs.field(
        default=Window.CALENDAR, validator=attrs.validators.instance_of(Window)
    )
    time_zone: str = attrs.field(default="UTC", validator=_is_time_zone)
    on_exceeded: OnExceeded = attrs.field(
        default=OnExceeded.REJECT, validator=attrs.validators.instance_of(OnExceeded)
    )
    downgrade_to: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(non_empty)
    )
    alert_at: tuple[float, ...] = attrs.field(
        default=(0.8,), converter=_fractions, validator=_are_fractions
    )

    def __attrs_post_init__(self) -> None:
        if self.usd is None and self.tokens is None:
            problem = 'is missing; write usd = "10.00", or tokens = 1_000_000'
            raise InvalidValueError("usd", self.usd, problem)
        if self.usd is not None and self.tokens is not None:
            problem = "stands beside usd; write two budgets"
            raise InvalidValueError("tokens", self.tokens, problem)
        downgrades = self.on_exceeded is OnExceeded.DOWNGRADE
        if downgrades and self.downgrade_to is None:
            problem = "is missing; on_exceeded is downgrade"
            raise InvalidValueError("downgrade_to", self.downgrade_to, problem)
        if self.downgrade_to is not None and not downgrades:
            problem = 'needs on_exceeded = "downgrade"'
            raise InvalidValueError("downgrade_to", self.downgrade_to, problem)

    @property
    def is_money(self) -> bool:
        """Whether its units are microdollars; else they are tokens."""
        return self.usd is not None

    @property
    def units(self) -> int:
        """How much it is, in microdollars or tokens."""
        if self.usd is not None:
            return microusd_of(self.usd)
        assert self.tokens is not None, "one of the two is there"
        return self.tokens

    @property
    def kind(self) -> str:
        """What tells it from other budgets of the same owner.

        >>> Budget(per=Per.MONTH, tokens=5, time_zone="Europe/Berlin").kind
        'tokens/month@Europe/Berlin'
        """
        unit = "usd" if self.is_money else "tokens"
        if self.window is Window.ROLLING:
            return f"{unit}/rolling-{self.per.value}"
        zone = "" if self.time_zone == "UTC" else f"@{self.time_zone}"
        return f"{unit}/{self.per.value}{zone}"

    def said(self, units: int) -> str:
        """Return an amount of it in words.

        >>> Budget(per=Per.DAY, usd=10).said(2_500_000)
        '$2.5'
        """
        return f"${usd_text(units)}" if self.is_money else f"{units:,} tokens"

    def __str__(self) -> str:
        """Return it in words: ``$10 per day``."""
        window = "rolling " if self.window is Window.ROLLING else ""
        return f"{self.said(self.units)} per {window}{self.per.value}"


def budgets(value: object) -> object:
    """Return budgets as a tuple; one stands for itself."""
    if isinstance(value, Budget):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def are_budgets(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require budgets, of which each is told from the others."""
    if not isinstance(value, tuple):
        raise InvalidValueError(field.name, value, "is no list of budgets")
    seen: set[str] = set()
    for each in value:
        if not isinstance(each, Budget):
            raise InvalidValueError(field.name, each, "is no budget")
        if each.kind in seen:
            problem = f"is the second one of {each.kind}; write one of them"
            raise InvalidValueError(field.name, str(each), problem)
        seen.add(each.kind)


def budgets_by_name(owned: Iterable[OwnedBudget]) -> dict[str, OwnedBudget]:
    """Return budgets by what tells one from the others: ``team web, usd/day``."""
    return {f"{each.owner}, {each.budget.kind}": each for each in owned}


@attrs.frozen(kw_only=True)
class OwnedBudget:
    """A table ``[[budget]]``: the budget of a team or of a virtual key.

    Attributes:
        budget: how much may be spent.
        team: whose it is, together; None: a key's.
        key: the id of the virtual key whose it is; None: a team's.
    """

    budget: Budget = attrs.field(validator=attrs.validators.instance_of(Budget))
    team: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(non_empty)
    )
    key: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(non_empty)
    )

    @property
    def owner(self) -> str:
        """Whose it is, as its ledgers are called."""
        return f"team {self.team}" if self.team is not None else f"key {self.key}"
