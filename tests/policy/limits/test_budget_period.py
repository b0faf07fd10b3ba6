"""Which period of a budget it is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.budget import Budget, Per, Window
from atomr_infer.policy.limits.budget_period import ledger_name, period_at


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("per", "zone", "now", "label", "begins", "ends"),
    [
        (
            Per.DAY,
            "UTC",
            "2026-11-27T23:59:59+00:00",
            "2026-11-27",
            "2026-11-27T00:00:00+00:00",
            "2026-11-28T00:00:00+00:00",
        ),
        (
            Per.DAY,
            "Europe/Berlin",
            "2026-11-27T23:30:00+00:00",
            "2026-11-28",
            "2026-11-28T00:00:00+01:00",
            "2026-11-29T00:00:00+01:00",
        ),
        # The day on which the clocks go back has 25 hours.
        (
            Per.DAY,
            "Europe/Berlin",
            "2026-10-25T12:00:00+00:00",
            "2026-10-25",
            "2026-10-25T00:00:00+02:00",
            "2026-10-26T00:00:00+01:00",
        ),
        (
            Per.MONTH,
            "America/New_York",
            "2027-01-01T01:00:00+00:00",
            "2026-12",
            "2026-12-01T00:00:00-05:00",
            "2027-01-01T00:00:00-05:00",
        ),
        (
            Per.HOUR,
            "Asia/Kolkata",
            "2026-11-27T10:10:00+00:00",
            "2026-11-27T15+0530",
            "2026-11-27T15:00:00+05:30",
            "2026-11-27T16:00:00+05:30",
        ),
        # The hour that comes twice is two.
        (
            Per.HOUR,
            "Europe/Berlin",
            "2026-10-25T01:10:00+00:00",
            "2026-10-25T02+0100",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T03:00:00+01:00",
        ),
    ],
)
def test_a_period_is_that_of_its_time_zone(
    per: Per, zone: str, now: str, label: str, begins: str, ends: str
) -> None:
    found = period_at(Budget(per=per, usd=1, time_zone=zone), at(now))
    assert found.label == label
    assert (found.begins_at_s, found.ends_at_s) == (at(begins), at(ends))


@given(
    st.sampled_from([Per.DAY, Per.MONTH]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
    st.floats(0.0, 4e9),
)
def test_periods_follow_each_other_without_a_gap(
    per: Per, zone: str, now_s: float
) -> None:
    budget = Budget(per=per, usd=1, time_zone=zone)
    period = period_at(budget, now_s)
    assert period.ends_at_s is not None
    assert period.begins_at_s <= now_s < period.ends_at_s
    following = period_at(budget, period.ends_at_s)
    assert following.begins_at_s == period.ends_at_s
    assert following.label > period.label


def test_a_rolling_budget_has_one_ledger_for_good() -> None:
    budget = Budget(per=Per.DAY, usd=1, window=Window.ROLLING)
    period = period_at(budget, datetime.now(UTC).timestamp())
    assert (period.begins_at_s, period.ends_at_s) == (0.0, None)
    assert ledger_name("team web", budget, period) == "team web/usd/rolling-day"
