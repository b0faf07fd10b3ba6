"""Virtual keys as plain values, and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import builds, integers, just, lists, none, sampled_from

from atomr_infer.model.budget import Budget, OnExceeded, Per, Window
from atomr_infer.model.key_secret import digest_of
from atomr_infer.model.rate_limits import LimitMode, OnLimit, RateLimits
from atomr_infer.model.virtual_key import KeySecret, VirtualKey
from atomr_infer.policy.tenants.key_records import (
    KeyRecordError,
    ends_of,
    key_of,
    secret_of,
    secret_record,
    terms_record,
)

ID = "key_0123456789abcdef"

LIMITS = builds(
    RateLimits,
    requests_per_minute=integers(60, 10**9),
    max_concurrent=none() | integers(1, 9),
    mode=sampled_from(LimitMode),
    on_exceeded=sampled_from(OnLimit),
)
BUDGETS = builds(
    Budget,
    per=sampled_from(Per),
    tokens=integers(1, 10**9),
    window=sampled_from(Window),
    on_exceeded=sampled_from((OnExceeded.REJECT, OnExceeded.WARN)),
    alert_at=just((0.5, 0.9)),
)
KEYS = builds(
    VirtualKey,
    id=just(ID),
    name=sampled_from(("ci", "team/a:b")),
    team=none() | just("web"),
    created_at_s=integers(0, 2**40),
    expires_at_s=none() | integers(0, 10**11),
    models=lists(sampled_from(("gpt-*", "claude")), max_size=2).map(tuple),
    priority=integers(-100, 100),
    weight=sampled_from((0.5, 1.0, 3.0)),
    rate_limits=none() | LIMITS,
    budgets=none().map(lambda _: ()) | BUDGETS.map(lambda budget: (budget,)),
)


@given(key=KEYS)
def test_a_key_comes_back_as_it_was(key: VirtualKey) -> None:
    carried = msgspec.msgpack.decode(msgspec.msgpack.encode(terms_record(key)))
    assert key_of(ID, carried) == key
    assert key_of(ID, msgspec.json.decode(msgspec.json.encode(carried))) == key


def test_what_is_not_said_is_not_carried() -> None:
    limits = RateLimits(requests_per_minute=60)
    budget = Budget(per=Per.DAY, usd="1.50")
    key = VirtualKey(id=ID, name="ci", rate_limits=limits, budgets=(budget,))
    assert terms_record(key) == {
        "name": "ci",
        "rate_limits": {"requests_per_minute": 60},
        "budgets": [{"per": "day", "usd": "1.5"}],
    }


def test_a_secret_comes_back_as_it_was() -> None:
    secret = KeySecret(digest=digest_of("k"), key=ID, shown="sk-...", created_at_s=5)
    assert secret_of(secret.digest.hex(), secret_record(secret)) == secret


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (None, "NoneType is no record"),
        ({}, "missing 1 required keyword-only argument: 'name'"),
        ({"name": "ci", "x": 1, "a": 2}, "this version does not know a, x"),
        ({"name": 1}, "name: 1 is not a string"),
        ({"name": "ci", "rate_limits": 5}, "rate_limits: 5 is no table"),
        (
            {"name": "ci", "rate_limits": {"rpm": 5}},
            "rate_limits: 'rpm' is unknown; use requests_per_minute, ",
        ),
        (
            {"name": "ci", "rate_limits": {"max_concurrent": 1, "mode": "x"}},
            "rate_limits.mode: 'x' is not allowed; use 'escrow' or 'strict' or 'soft'",
        ),
        ({"name": "ci", "budgets": [{"usd": 1}]}, "is not whole; it needs per"),
        ({"name": "ci", "budgets": {"per": "day"}}, "is no list of budgets"),
        ({"name": "ci", "budgets": ["5"]}, "budgets: '5' is no table"),
    ],
)
def test_what_is_no_key_is_refused(record: Any, problem: str) -> None:
    with pytest.raises(KeyRecordError) as caught:
        key_of(ID, record)
    assert problem in str(caught.value)


@pytest.mark.parametrize("ends", [{"revoked_at_s": "soon"}, {"ends_at_s": True}])
def test_an_end_that_is_no_time_is_no_record(ends: dict[str, object]) -> None:
    with pytest.raises(KeyRecordError, match="no whole number"):
        ends_of(ends)
