"""Which period of a budget it is, and what its ledger is called.

Each period of a calendar budget is a budget of its own, whose name says when it
begins.  So nodes whose clocks differ agree on what there is: at the turn of a day both
days are open, each request counts where it began, and neither day is ever overspent.

Pure: the wall's time is an argument.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

import attrs

from atomr_infer.model.budget import WINDOW_S, Budget, Per, Window, zone_of

_HOUR_S = 3_600.0


@attrs.frozen
class Period:
    """A period of a budget.

    Attributes:
        label: tells it from the budget's other periods.
        begins_at_s: Unix time.
        ends_at_s: Unix time; None: it does not end, as a rolling budget.
    """

    label: str
    begins_at_s: float
    ends_at_s: float | None


_ALWAYS = Period("", 0.0, None)


def period_at(budget: Budget, wall_s: float) -> Period:
    """Return the period that it is at a time.

    >>> period_at(Budget(per=Per.DAY, usd=1), 1_800_000_000.0)
    Period(label='2027-01-15', begins_at_s=1799971200.0, ends_at_s=1800057600.0)
    """
    if budget.window is Window.ROLLING:
        return _ALWAYS
    zone = zone_of(budget.time_zone)
    now = datetime.fromtimestamp(wall_s, zone)
    if budget.per is Per.HOUR:
        return _hour(now, wall_s)
    first = 1 if budget.per is Per.MONTH else now.day
    begins = datetime(now.year, now.month, first, tzinfo=zone)
    ends = _next_month(begins, zone) if budget.per is Per.MONTH else _next_day(begins)
    label = f"{begins:%Y-%m}" if budget.per is Per.MONTH else f"{begins:%Y-%m-%d}"
    return Period(label, begins.timestamp(), ends.timestamp())


def _hour(now: datetime, wall_s: float) -> Period:
    """Hours are counted by the zone's offset: some are half an hour off."""
    offset = now.utcoffset() or timedelta()
    past_s = (wall_s + offset.total_seconds()) % _HOUR_S
    begins_at_s = wall_s - past_s
    begins = datetime.fromtimestamp(begins_at_s, now.tzinfo)
    # An hour that comes twice in autumn is two.
    return Period(f"{begins:%Y-%m-%dT%H%z}", begins_at_s, begins_at_s + _HOUR_S)


def _next_day(begins: datetime) -> datetime:
    # By the calendar: a day has 23 or 25 hours, too.
    return begins + timedelta(days=1)


def _next_month(begins: datetime, zone: tzinfo) -> datetime:
    year, month = begins.year, begins.month + 1
    if month > 12:
        year, month = year + 1, 1
    return datetime(year, month, 1, tzinfo=zone)


def owner_of(deployment: str) -> str:
    """Return the owner of a deployment's budgets, as their ledgers are called."""
    return f"deployment {deployment}"


def ledger_name(owner: str, budget: Budget, period: Period) -> str:
    """Return what a period's ledger is called.

    >>> day = Budget(per=Per.DAY, usd=1)
    >>> ledger_name("team web", day, period_at(day, 1_800_000_000.0))
    'team web/usd/day/2027-01-15'
    """
    name = f"{owner}/{budget.kind}"
    return f"{name}/{period.label}" if period.label else name


def window_s(budget: Budget) -> float | None:
    """Return how long what was spent is gone; None: for good."""
    return WINDOW_S[budget.per] if budget.window is Window.ROLLING else None
