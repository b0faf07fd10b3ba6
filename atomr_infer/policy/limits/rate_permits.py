"""From rate limits to permits: how many there are, and how many a request needs.

Before it is sent, a request needs permits for the most that it may use; when it is
over, it is known how many it did use.  Where its worst case is more than a window has,
it needs all of that: a limit is no reason to refuse what a provider would take.

A limit on what is under way at the same time is a limit on uses, too: one permit,
which is given back when the request ends.  Its window is the longest that a request
can take, so that a permit whose node has died comes back when its request must have
ended.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.rate_limits import PER_MINUTE

if TYPE_CHECKING:
    from atomr_infer.model.rate_limits import RateLimits
    from atomr_infer.policy.limits.demand import Demand, Used

UNBOUNDED_OUTPUT_TOKENS = 4_096
"""What an answer is taken for whose length nobody has bounded: most are shorter."""

LONGEST_S = 900.0
"""The longest that a request with a limit on what is under way is thought to take,
unless its deployment says more; the same on all nodes, and what ``timeouts.total_s`` is
where nobody says."""

ARRIVAL_MARGIN = 0.01
"""Of a window: requests arrive where they are counted with delays that differ, so a
permit is locked for as much longer as the delays may."""


class Dimension(Enum):
    """What is counted."""

    REQUESTS = "requests_per_minute"
    INPUT_TOKENS = "input_tokens_per_minute"
    OUTPUT_TOKENS = "output_tokens_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENT = "max_concurrent"


@attrs.frozen
class Counted:
    """One limit of several.

    Attributes:
        dimension: what is counted.
        permits: how many there are in a window.
        window_s: how long it is.
    """

    dimension: Dimension
    permits: int
    window_s: float

    def needs(self, demand: Demand) -> int:
        """Return how many permits a request needs; 0: this limit is not for it."""
        output = demand.output_tokens
        if output is None:
            output = UNBOUNDED_OUTPUT_TOKENS
        match self.dimension:
            case Dimension.REQUESTS | Dimension.CONCURRENT:
                return 1
            case Dimension.INPUT_TOKENS:
                needed = demand.input_tokens
            case Dimension.OUTPUT_TOKENS:
                needed = output
            case Dimension.TOKENS:
                needed = demand.input_tokens + output
        return min(self.permits, needed)

    def used(self, used: Used) -> int:
        """Return how many permits a request that is over has used."""
        match self.dimension:
            case Dimension.REQUESTS:
                return 1
            case Dimension.CONCURRENT:
                return 0
            case Dimension.INPUT_TOKENS:
                return used.input_tokens
            case Dimension.OUTPUT_TOKENS:
                return used.output_tokens
            case Dimension.TOKENS:
                return used.total_tokens


def counted(limits: RateLimits, *, longest_s: float) -> tuple[Counted, ...]:
    """Return what is counted for some limits, what is scarce for longest first.

    Args:
        limits: the limits.
        longest_s: the longest that a request can take.
    """
    window_s = limits.window_s * (1.0 + ARRIVAL_MARGIN)
    found = [
        Counted(Dimension(name), limits.permits(name), window_s)
        for name in PER_MINUTE
        if getattr(limits, name) is not None
    ]
    if limits.max_concurrent is not None:
        found.append(Counted(Dimension.CONCURRENT, limits.max_concurrent, longest_s))
    return tuple(found)
