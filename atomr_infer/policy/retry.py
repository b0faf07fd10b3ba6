"""Whether a failed attempt is made again, and after how long.

The rules, in order:

1.  An error that says so (``retryable`` is False) is final.
2.  What the client has seen stays: after the first content, no retry.
3.  A request that is not idempotent is repeated only when it did not start.
4.  At most ``max_attempts`` tries.
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
    NotReadyError,
    OverloadedError,
    RateLimitedError,
    UpstreamConnectError,
)
from atomr_infer.model.deployment import Jitter, RetryPolicy

# The upstream or engine did not begin: repeating cannot do a thing twice.
_NOT_STARTED = (NotReadyError, OverloadedError, RateLimitedError, UpstreamConnectError)


@attrs.frozen(kw_only=True)
class Attempt:
    """An attempt that failed.

    Attributes:
        number: 1 for the first.
        content_sent: True when the client has seen part of an answer.
        remaining_s: seconds until the request's deadline.
    """

    number: int
    content_sent: bool
    remaining_s: float


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
    if not error.retryable or attempt.content_sent:
        return None
    if attempt.number >= policy.max_attempts:
        return None
    if not policy.idempotent and not isinstance(error, _NOT_STARTED):
        return None
    wait_s = _backoff_s(policy, attempt.number, random)
    if error.retry_after_s is not None:
        if error.retry_after_s > policy.max_backoff_s:
            return None
        wait_s = max(wait_s, float(error.retry_after_s))
    return wait_s if wait_s < attempt.remaining_s else None


def _backoff_s(policy: RetryPolicy, number: int, random: float) -> float:
    ceiling = min(policy.max_backoff_s, policy.backoff_s * 2.0 ** (number - 1))
    return ceiling * random if policy.jitter is Jitter.FULL else ceiling
