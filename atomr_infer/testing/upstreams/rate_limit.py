"""The limit that a fake upstream keeps of itself: a sliding window of requests.

Pure: the caller passes the time.
"""

from __future__ import annotations

from collections import deque

import attrs

from atomr_infer.testing.upstream_script import Behaviour, rate_limited


@attrs.define(eq=False)
class SlidingLimit:
    """At most so much in any window; what is beyond it gets a 429.

    What is refused does not count, so that one refusal does not make the next.

    Attributes:
        requests: in a window.
        window_s: how long that is.
        tokens: in a window; None: they are not limited.
        tokens_each: what each request is counted for.
        admitted: when, and in order.
        refused: likewise.
    """

    requests: int
    window_s: float
    tokens: int | None = None
    tokens_each: int = 0
    admitted: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)
    _recent: deque[float] = attrs.field(factory=deque)

    @property
    def most(self) -> int:
        """How many requests fit a window, by whichever limit is the lower."""
        if self.tokens is None:
            return self.requests
        return min(self.requests, self.tokens // self.tokens_each)

    def judge(self, now_s: float) -> Behaviour | None:
        """Return the refusal of a request that comes now; None: it is taken."""
        recent = self._recent
        while recent and recent[0] <= now_s - self.window_s:
            recent.popleft()
        if len(recent) >= self.most:
            self.refused.append(now_s)
            return rate_limited(f"{recent[0] + self.window_s - now_s:.3f}")
        recent.append(now_s)
        self.admitted.append(now_s)
        return None
