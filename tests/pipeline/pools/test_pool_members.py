"""Which member of a pool is asked, and which is left alone for a while."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer import errors
from atomr_infer.errors import ConfigError, InferenceError
from atomr_infer.pipeline.asking.options import from_table
from atomr_infer.pipeline.pools.pool import (
    Asked,
    Ejected,
    Ended,
    Pool,
    PoolOptions,
    Standing,
    ended_by,
)

FAILED, ANSWERED, UNKNOWN = Ended.FAILED, Ended.ANSWERED, Ended.UNKNOWN


def pool(*members: Any, **options: Any) -> Pool:
    return Pool(PoolOptions(members=members or ("a", "b"), **options))


def take(of: Pool, now: float = 0.0, *, tried: tuple[str, ...] = ()) -> Asked:
    asked = of.take(now, tried=tried, random=random.Random(7).random)
    assert asked is not None
    return asked


def fail(of: Pool, model: str, times: int, now: float = 0.0) -> list[Ejected | None]:
    """Let requests fail at a member, whoever else there is."""
    others = tuple({"a", "b", "c", "d"} - {model})
    return [of.ended(take(of, now, tried=others), FAILED, now) for _ in range(times)]


def test_turns_are_taken_by_weight_and_spread() -> None:
    turns = pool("a", {"model": "b", "weight": 2.0}, "c", policy="round_robin")
    asked = "".join(take(turns).model for _ in range(8))
    assert asked == "bacbbacb"


def test_who_has_the_fewest_requests_by_weight_is_next() -> None:
    loads = pool("a", {"model": "b", "weight": 2.0})
    under_way = [take(loads) for _ in range(6)]
    assert Counter(each.model for each in under_way) == {"a": 2, "b": 4}
    for each in under_way:
        if each.model == "a":
            loads.ended(each, ANSWERED, 0.0)
    assert [take(loads).model for _ in range(2)] == ["a", "a"]


def test_members_that_have_nothing_to_do_take_turns() -> None:
    loads = pool("a", "b", "c")
    asked = []
    for _ in range(6):
        each = take(loads)
        asked.append(each.model)
        loads.ended(each, ANSWERED, 0.0)
    assert Counter(asked) == {"a": 2, "b": 2, "c": 2}


def test_the_better_one_of_two_that_are_drawn_is_next() -> None:
    names = [f"m{number}" for number in range(20)]
    drawn, rng = pool(*names, policy="two_choices"), random.Random(1)
    asked = [drawn.take(0.0, random=rng.random) for _ in range(2000)]
    counts = Counter(each.model for each in asked if each is not None)
    # By chance alone the spread would be about 40.
    assert max(counts.values()) - min(counts.values()) <= 6


def test_who_fails_so_often_in_a_row_is_left_alone_and_comes_back_on_trial() -> None:
    found = pool()
    assert fail(found, "a", 4) == [None] * 4
    assert fail(found, "a", 1) == [Ejected("a", 30.0, "5 failures in a row")]
    assert [take(found, 29.9).model for _ in range(3)] == ["b"] * 3
    # On trial it has one request at a time, until one is answered.
    trial = take(found, 30.0)
    assert (trial.model, take(found, 30.0).model) == ("a", "b")
    assert found.standings(30.0)["a"] is Standing.ON_TRIAL
    found.ended(trial, ANSWERED, 31.0)
    assert [take(found, 31.0).model for _ in range(3)] == ["a"] * 3


def test_each_rest_is_longer_and_as_long_in_health_makes_up_for_it() -> None:
    found = pool(ejection={"failures": 1, "rest_s": 10.0, "max_rest_s": 25.0})
    rests, now = [], 0.0
    for _ in range(4):
        [news] = fail(found, "a", 1, now)
        assert news is not None
        rests.append(news.rest_s)
        now += news.rest_s
    assert rests == [10.0, 20.0, 25.0, 25.0]
    found.ended(take(found, now, tried=("b",)), ANSWERED, now)
    [news] = fail(found, "a", 1, now + 35.0)
    assert news == Ejected("a", 20.0, "1 failures in a row")


def test_who_fails_half_of_the_time_is_left_alone_too() -> None:
    found = pool(ejection={"of_last": 10})
    news = []
    for number in range(10):
        asked = take(found, tried=("b",))
        news.append(found.ended(asked, (ANSWERED, FAILED)[number % 2], 0.0))
    assert news == [None] * 9 + [Ejected("a", 30.0, "5 of 10 requests failed")]


def test_what_was_asked_before_an_ejection_says_nothing_after_it() -> None:
    found = pool(ejection={"failures": 1})
    late, later = (take(found, tried=("b",)) for _ in range(2))
    fail(found, "a", 1)
    trial = take(found, 30.0, tried=("b",))
    assert found.ended(late, ANSWERED, 30.0) is None
    assert found.standings(30.0)["a"] is Standing.ON_TRIAL
    assert found.ended(later, FAILED, 30.0) is None
    found.ended(trial, ANSWERED, 30.0)
    assert found.standings(30.0)["a"] is Standing.SERVES


def test_a_request_that_says_nothing_changes_nothing() -> None:
    found = pool(ejection={"failures": 1})
    fail(found, "a", 1)
    for _ in range(3):
        # A client that leaves gives its place on trial back.
        trial = take(found, 30.0, tried=("b",))
        found.ended(trial, UNKNOWN, 30.0)
    assert found.standings(30.0)["a"] is Standing.ON_TRIAL


def test_so_many_rest_at_once_and_never_all() -> None:
    found = pool("a", "b", "c", "d", ejection={"failures": 1})
    news = [fail(found, name, 1)[0] for name in "abcd"]
    assert [each is not None for each in news] == [True, True, False, False]
    alone = pool("a", ejection={"failures": 1, "most": 1.0})
    assert fail(alone, "a", 3) == [None] * 3


def test_where_all_others_were_tried_one_that_rests_is_asked() -> None:
    found = pool(ejection={"failures": 1})
    fail(found, "a", 1)
    assert take(found, 1.0, tried=("b",)).model == "a"
    assert found.take(1.0, tried=("a", "b"), random=random.random) is None


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (errors.UpstreamTimeoutError("x"), FAILED),
        (errors.UpstreamAuthError("x", status=401), FAILED),
        (errors.NotReadyError("x"), FAILED),
        (errors.CircuitOpenError("x"), FAILED),
        (errors.EngineCrashedError("x"), FAILED),
        (errors.OverloadedError("x"), UNKNOWN),
        (errors.RateLimitedError("x", status=429), ANSWERED),
        (errors.InvalidRequestError("x", status=400), ANSWERED),
        (errors.BudgetExceededError("x"), UNKNOWN),
    ],
    ids=lambda each: each.kind if isinstance(each, InferenceError) else each.value,
)
def test_an_error_says_something_of_the_member_or_nothing(
    error: InferenceError, ended: Ended
) -> None:
    assert ended_by(error) is ended


STEPS = st.lists(
    st.tuples(st.sampled_from([*Ended, None]), st.integers(0, 9), st.floats(0, 40)),
    max_size=80,
)


@given(STEPS, st.sampled_from(["least_loaded", "two_choices", "round_robin"]))
def test_there_is_always_somebody_and_nobody_rests_longer_than_the_longest_rest(
    steps: list[tuple[Ended | None, int, float]], policy: str
) -> None:
    rules = {"failures": 2, "of_last": 4, "rest_s": 10.0, "max_rest_s": 35.0}
    found = pool("a", "b", "c", policy=policy, ejection=rules)
    rng, now = random.Random(3), 0.0
    under_way: list[Asked] = []
    resting: dict[str, float] = {}
    for ended, which, pause in steps:
        now += pause
        if ended is None:
            asked = found.take(now, random=rng.random)
            assert asked is not None
            under_way.append(asked)
            assert resting.get(asked.model, 0.0) <= now
        elif under_way:
            news = found.ended(under_way.pop(which % len(under_way)), ended, now)
            if news is not None:
                assert 10.0 <= news.rest_s <= 35.0
                resting[news.model] = now + news.rest_s
        standings = found.standings(now)
        ejected = [m for m, each in standings.items() if each is Standing.EJECTED]
        assert len(ejected) <= 1
        assert {m for m, until in resting.items() if until > now} == {*ejected}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"members": []}, "there must be one at least"),
        ({"members": ["a", "a"]}, "one is named twice; give it a weight"),
        ({"members": ["a"], "policy": "best"}, "policy: 'best' is none of"),
        ({"members": [{"model": "a", "weight": 0}]}, "must be a number above 0"),
        ({"members": ["a"], "ejection": {"most": 2}}, "it must be at most 1"),
        ({"members": ["a"], "ejection": {"failure": 2}}, "did you mean 'failures'"),
    ],
)
def test_what_no_pool_can_be_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        from_table(PoolOptions, options, where="options")
