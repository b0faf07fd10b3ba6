"""What is believed of the limits that a provider tells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.policy.limits.rate_permits import Dimension
from atomr_infer.policy.limits.told_limits import ToldLimits, above, lowered

REQUESTS, TOKENS = Dimension.REQUESTS, Dimension.TOKENS


def openai(limit: int, left: int, reset: str, what: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(left),
        f"x-ratelimit-reset-{what}": reset,
    }


def believed(*answers: dict[str, str]) -> dict[Dimension, int]:
    told = ToldLimits()
    for headers in answers:
        told.hear(headers)
    return dict(told.believed)


@pytest.mark.parametrize(
    "answers",
    [
        [openai(500, 499, "120ms")] * 3,
        [openai(500, 499, "120ms"), openai(500, 400, "12s"), openai(500, 0, "1m0s")],
        [openai(500, 250, "0m30.1s")] * 3,
    ],
    ids=["one at a time", "more and more", "half of it"],
)
def test_what_shows_a_minute_three_times_is_believed(
    answers: list[dict[str, str]],
) -> None:
    assert believed(*answers[:2]) == {}
    assert believed(*answers) == {REQUESTS: 500}


@pytest.mark.parametrize(
    "headers",
    [
        openai(10_000, 9_999, "8.64s"),  # of a day
        openai(10, 4, "1s"),  # of a second, all at once, as a gateway tells it
        openai(500, 500, "0s"),
        openai(30_000_000, 29_999_990, "0s"),
        openai(500, 600, "120ms"),
        {"x-ratelimit-limit-requests": "500"},
        openai(500, 499, "soon"),
        openai(500, 499, "9" * 400 + "s"),
        openai(500, -1, "1m"),
        {
            **openai(500, 499, "120ms"),
            "x-ratelimit-limit-requests": "\u0665\u0660\u0660",
        },
        {**openai(500, 499, "120ms"), "x-ratelimit-limit-requests": "9" * 5000},
        {**openai(500, 499, "120ms"), "x-ratelimit-limit-requests": "0"},
        {"anthropic-ratelimit-requests-limit": "many"},
    ],
    ids=repr,
)
def test_what_shows_no_minute_is_not_believed(headers: dict[str, str]) -> None:
    assert believed(*[headers] * 9) == {}


def test_what_has_shown_something_else_once_is_not_believed_any_more() -> None:
    minute = openai(100, 90, "6s")
    assert believed(minute, openai(100, 50, "6s"), *[minute] * 9) == {}
    # Another number is another limit.
    assert believed(openai(100, 50, "6s"), *[openai(60, 59, "1s")] * 3) == {
        REQUESTS: 60
    }


def test_a_raised_limit_is_believed_as_the_first_one_was() -> None:
    told = ToldLimits()
    for limit, reset in ((500, "120ms"), (5_000, "24ms")):
        left = limit - 1 if limit == 500 else limit - 2
        changes = [told.hear(openai(limit, left, reset)) for _ in range(4)]
        assert changes[2:] == [True, False]
        assert told.believed == {REQUESTS: limit}


def test_anthropic_s_are_of_a_minute_and_are_believed_at_once() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-tokens-limit": "48000",
    }
    assert believed(headers) == {
        REQUESTS: 50,
        Dimension.INPUT_TOKENS: 40_000,
        Dimension.OUTPUT_TOKENS: 8_000,
        TOKENS: 48_000,
    }
    told = ToldLimits()
    assert told.hear(headers)
    assert not told.hear(headers)
    assert told.hear({**headers, "anthropic-ratelimit-requests-limit": "60"})


def test_a_part_of_what_is_believed_confirms_it_unless_another_part_is_other() -> None:
    told = ToldLimits()
    requests = {"anthropic-ratelimit-requests-limit": "50"}
    tokens = {"anthropic-ratelimit-tokens-limit": "48000"}
    assert not told.confirms(requests)
    told.hear(requests | tokens)
    # The routes of a provider tell of what they count.
    assert [told.confirms(each) for each in (requests, tokens, requests | tokens)] == [
        True
    ] * 3
    other = {"anthropic-ratelimit-tokens-limit": "1"}
    unread = {"anthropic-ratelimit-tokens-limit": "many"}
    said: list[dict[str, str]] = [requests | other, other, unread, {}]
    assert [told.confirms(each) for each in said] == [False] * 4
    assert told.confirms(requests | unread)


def test_only_what_is_above_what_is_told_is_lowered() -> None:
    limits = RateLimits(
        requests_per_minute=400, input_tokens_per_minute=9_000, tokens_per_minute=9_500
    )
    told = {REQUESTS: 500, TOKENS: 8_000}
    assert above(limits, told) == {
        "input_tokens_per_minute": (9_000, 8_000),
        "tokens_per_minute": (9_500, 8_000),
    }
    assert lowered(limits, told) == RateLimits(
        requests_per_minute=400, input_tokens_per_minute=8_000, tokens_per_minute=8_000
    )
    assert lowered(limits, {REQUESTS: 400, TOKENS: 9_500}) is limits


def test_a_window_in_which_there_would_be_nothing_becomes_a_minute() -> None:
    limits = RateLimits(requests_per_minute=600, window_s=1.0)
    assert lowered(limits, {REQUESTS: 60}) == RateLimits(
        requests_per_minute=60, window_s=1.0
    )
    assert lowered(limits, {REQUESTS: 59}) == RateLimits(requests_per_minute=59)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *openai(1, 1, ""),
                *openai(1, 1, "", "tokens"),
                "anthropic-ratelimit-tokens-limit",
            ]
        ),
        st.text(max_size=30) | st.integers().map(str),
    ),
    st.integers(1, 10**6),
)
def test_whatever_is_told_limits_are_never_raised(
    headers: dict[str, str], declared: int
) -> None:
    limits = RateLimits(requests_per_minute=declared, tokens_per_minute=declared)
    kept = lowered(limits, believed(*[headers] * 4))
    assert 1 <= (kept.requests_per_minute or 0) <= declared
    assert 1 <= (kept.tokens_per_minute or 0) <= declared
