"""Whether a failed attempt is made again, and after how long.

The rules, in order:

1.  An error that says so (``retryable`` is False) is final.
2.  What the client has seen stays: after the first content, no retry.  (What
    may be done then is ``policy.recovery``'s.)
3.  A request that is not idempotent is repeated only when it did not start.
4.  At most ``max_attempts`` tries, and at most one more after a time-out: an
    upstream that was silent once makes the client wait as long again.
5.  The wait is exponential with jitter, never shorter than the upstream's
    ``Retry-After``; an upstream that asks for more than ``max_backoff_s``, or
    for more than the request's deadline leaves, is not asked again.

Pure: the random number in [0, 1) and the remaining time are arguments.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import attrs

from atomr_infer.errors import (
    InferenceError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RateLimitedError,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamTimeoutError,
)
from atomr_infer.model.deployment import Jitter, RetryPolicy

# The upstream or engine did not begin: repeating cannot do a thing twice.
_NOT_STARTED = (
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RateLimitedError,
    UpstreamAuthError,
    UpstreamConnectError,
)

_TIMEOUT_RETRIES = 1


@attrs.frozen(kw_only=True)
class Attempt:
    """An attempt that failed.

    Attributes:
        number: 1 for the first.
        timeouts: how many of the attempts so far ended with a time-out, this
            one included.
        content_sent: True when the client has seen part of an answer.
        remaining_s: seconds until the request's deadline.
    """

    number: int
    content_sent: bool
    remaining_s: float
    timeouts: int = 0


def retry_wait_s(
    policy: RetryPolicy, attempt: Attempt, error: InferenceError, random: float
) -> float | None:
    """Return the seconds to wait before the next attempt; None: give up.

    Args:
        policy: the deployment's.
        attempt: the one that failed.
        error: why.
        random: uniform in [0, 1).

    >>> policy = RetryPolicy(backoff_s=1.0, jitter=Jitter.NONE)
    >>> first = Attempt(number=1, content_sent=False, remaining_s=60.0)
    >>> retry_wait_s(policy, first, RateLimitedError("slow", retry_after_s=7), 0.0)
    7.0
    >>> retry_wait_s(policy, attrs.evolve(first, content_sent=True),
    ...     RateLimitedError("slow"), 0.0) is None
    True
    """
    if error.final or not error.retryable or attempt.content_sent:
        return None
    if attempt.number >= policy.max_attempts:
        return None
    if isinstance(error, UpstreamTimeoutError) and attempt.timeouts > _TIMEOUT_RETRIES:
        return None
    if not may_repeat(policy, error):
        return None
    wait_s = backoff_s(policy, attempt.number, random)
    if error.retry_after_s is not None:
        if error.retry_after_s > policy.max_backoff_s:
            return None
        wait_s = max(wait_s, float(error.retry_after_s))
    return wait_s if wait_s < attempt.remaining_s else None


def may_repeat(policy: RetryPolicy, error: InferenceError) -> bool:
    """Whether the request may be made again, here or elsewhere.

    One that is not idempotent may when it did not begin: nobody took it, or it
    was refused for what it asks or for our credentials.
    """
    return policy.idempotent or isinstance(error, _NOT_STARTED)


def backoff_s(policy: RetryPolicy, number: int, random: float) -> float:
    """Return the wait after the attempt of that number, jitter included."""
    ceiling = backoff_ceiling_s(policy, number)
    if policy.jitter is Jitter.FULL:
        return ceiling * random
    if policy.jitter is Jitter.EQUAL:
        return ceiling / 2 + ceiling / 2 * random
    return ceiling


def backoff_ceiling_s(policy: RetryPolicy, number: int) -> float:
    """Return the longest that we would wait of ourselves after an attempt."""
    return min(policy.max_backoff_s, policy.backoff_s * 2.0 ** (number - 1))
