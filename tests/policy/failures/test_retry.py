"""Retry decisions, rule by rule."""

import attrs
import pytest

from atomr_infer import errors
from atomr_infer.model.deployment import Jitter, RetryPolicy
from atomr_infer.policy.failures.retry import Attempt, retry_wait_s

POLICY = RetryPolicy(
    max_attempts=4, backoff_s=1.0, max_backoff_s=8.0, jitter=Jitter.NONE
)
FIRST = Attempt(number=1, content_sent=False, remaining_s=60.0)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequestError("x"),
        errors.ContextLengthError("x"),
        errors.ContentFilterError("x"),
        errors.UpstreamAuthError("x"),
        errors.EngineStartError("x"),
        errors.DeadlineError("x"),
        errors.InternalError("x"),
    ],
    ids=lambda error: error.kind,
)
def test_an_error_that_says_so_is_final(error: errors.InferenceError) -> None:
    assert retry_wait_s(POLICY, FIRST, error, 0.5) is None


@pytest.mark.parametrize(
    "error",
    [
        errors.RateLimitedError("x"),
        errors.UpstreamError("x"),
        errors.UpstreamTimeoutError("x"),
        errors.StreamCutError("x"),
        errors.EngineCrashedError("x"),
        errors.OverloadedError("x"),
    ],
    ids=lambda error: error.kind,
)
def test_a_passing_failure_is_tried_again(error: errors.InferenceError) -> None:
    assert retry_wait_s(POLICY, FIRST, error, 0.5) == 1.0


def test_after_the_first_content_nothing_is_tried_again() -> None:
    seen = attrs.evolve(FIRST, content_sent=True)
    assert retry_wait_s(POLICY, seen, errors.UpstreamError("x"), 0.5) is None


def test_the_wait_doubles_up_to_its_cap_and_the_attempts_are_counted() -> None:
    policy = attrs.evolve(POLICY, max_attempts=6)
    waits = [
        retry_wait_s(
            policy, attrs.evolve(FIRST, number=n), errors.UpstreamError("x"), 0.5
        )
        for n in range(1, 7)
    ]
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, None]


def test_full_jitter_takes_a_share_of_the_wait() -> None:
    policy = attrs.evolve(POLICY, jitter=Jitter.FULL)
    assert retry_wait_s(policy, FIRST, errors.UpstreamError("x"), 0.25) == 0.25


def test_equal_jitter_keeps_half_of_the_wait() -> None:
    policy = attrs.evolve(POLICY, jitter=Jitter.EQUAL)
    error = errors.UpstreamError("x")
    waits = [retry_wait_s(policy, FIRST, error, random) for random in (0.0, 0.5)]
    assert waits == [0.5, 0.75]


def test_a_silent_upstream_is_asked_once_more_and_no_oftener() -> None:
    silent = errors.UpstreamTimeoutError("x")
    once, twice = (attrs.evolve(FIRST, number=n, timeouts=n) for n in (1, 2))
    assert retry_wait_s(POLICY, once, silent, 0.5) == 1.0
    assert retry_wait_s(POLICY, twice, silent, 0.5) is None
    # A failure of another kind after it is not a silence.
    assert retry_wait_s(POLICY, twice, errors.UpstreamError("x"), 0.5) == 2.0


def test_the_upstreams_retry_after_is_a_lower_bound() -> None:
    slow = errors.RateLimitedError("x", retry_after_s=5.0)
    assert retry_wait_s(POLICY, FIRST, slow, 0.5) == 5.0


def test_an_upstream_that_asks_for_too_long_is_not_asked_again() -> None:
    slow = errors.RateLimitedError("x", retry_after_s=9.0)
    assert retry_wait_s(POLICY, FIRST, slow, 0.5) is None


def test_a_wait_that_does_not_fit_the_deadline_is_not_begun() -> None:
    late = attrs.evolve(FIRST, remaining_s=0.9)
    assert retry_wait_s(POLICY, late, errors.UpstreamError("x"), 0.5) is None


def test_without_idempotence_only_what_did_not_start_is_repeated() -> None:
    policy = attrs.evolve(POLICY, idempotent=False)
    assert retry_wait_s(policy, FIRST, errors.EngineCrashedError("x"), 0.5) is None
    refused = errors.UpstreamConnectError("x")
    assert retry_wait_s(policy, FIRST, refused, 0.5) == 1.0
