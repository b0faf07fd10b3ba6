"""How long an upstream with one key is left alone after it said when to come back.

A 429 with ``Retry-After`` is about the key, not about the request that met it:
the next request with that key would be refused as well, and providers count
refused requests against the limit.  So what was told is remembered, and until
then a request is refused here, or goes to a fallback, and nobody is asked.

Of a 429 without a time nothing is remembered: fewer requests at once
(:mod:`atomr_infer.policy.limits.concurrency`) and a backoff answer it.

Pure: ``now`` is an argument, in monotonic seconds.
"""

from __future__ import annotations

from atomr_infer.errors import RateLimitedError
from atomr_infer.policy.waits import wait_in_words

MAX_REST_S = 600.0
"""Longest rest at a stretch: then one request asks whether it is still true.

A proxy that says ``Retry-After: 86400`` by mistake must not stop a deployment
for a day, and a request every ten minutes hammers nobody.
"""

RESTING = "key_resting"
"""The code of the error of a request that was not made for this."""


class Rest:
    """What one key was told; a request asks before it is made."""

    def __init__(self) -> None:
        self._until = 0.0
        self._told_until = 0.0

    def told(self, retry_after_s: float | None, *, now: float) -> None:
        """Take a 429.

        Args:
            retry_after_s: how long it asked us to wait; None: it did not say.
            now: monotonic time in seconds.
        """
        if retry_after_s is None:
            return
        # Of several that were on their way at once, the longest wait holds.
        self._until = max(self._until, now + min(retry_after_s, MAX_REST_S))
        self._told_until = max(self._told_until, now + retry_after_s)

    def over(self) -> None:
        """Forget it: another key, or an operator who knows better."""
        self._until = self._told_until = 0.0

    def rests(self, now: float) -> bool:
        """Whether a request would be refused."""
        return now < self._until

    def refusal(self, now: float) -> RateLimitedError | None:
        """Return the error of a request that is not made; None: it may be."""
        if not self.rests(now):
            return None
        wait_s = self._told_until - now
        return RateLimitedError(
            "the upstream asked us to wait; "
            f"it is asked again in {wait_in_words(wait_s)}",
            code=RESTING,
            retry_after_s=wait_s,
        )
