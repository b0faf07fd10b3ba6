"""Amounts of a budget: nothing is rounded on the way."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.budget import MAX_UNITS, Budget, Per, microusd_of, usd_text


@given(st.integers(1, MAX_UNITS))
def test_dollars_are_microdollars_and_back(microusd: int) -> None:
    assert microusd_of(usd_text(microusd)) == microusd
    assert microusd_of(Decimal(microusd).scaleb(-6)) == microusd


@given(st.integers(1, 10**12))
def test_a_number_of_toml_is_what_is_written(microusd: int) -> None:
    # A float is read as people write it: 0.1 is a tenth.
    assert microusd_of(float(usd_text(microusd))) == microusd


def test_the_same_amount_is_the_same_budget() -> None:
    one = Budget(per=Per.DAY, usd="10.00")
    assert one == Budget(per=Per.DAY, usd=10) == Budget(per=Per.DAY, usd=10.0)
    assert (one.usd, one.units, str(one)) == ("10", 10_000_000, "$10 per day")


@pytest.mark.parametrize("usd", [0, -1, True, "x", "nan", "inf", 1e300, "0.0000001"])
def test_what_is_no_amount_is_refused(usd: object) -> None:
    with pytest.raises(ValueError, match="usd"):
        Budget(per=Per.DAY, usd=usd)
