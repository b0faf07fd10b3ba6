"""When a deployment that takes over gets more of the requests, and when none.

The one that comes gets a share of the requests, in steps.  A step is over when it has
lasted, and enough requests were counted; too many failures end all of it at once.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    DeadlineError,
    EngineError,
    InferenceError,
    InternalError,
    NotReadyError,
    OverloadedError,
    RateLimitedError,
    UpstreamError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atomr_infer.model.swap_plan import SwapPlan


_LEAST_S = 0.001


class Phase(Enum):
    """How far a swap is."""

    LOADING = "loading"
    VERIFYING = "verifying"
    SHIFTING = "shifting"
    PROMOTING = "promoting"
    SWAPPED = "swapped"
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"


class Turn(Enum):
    """What is done now."""

    WAIT = "wait"
    GO_ON = "go on"
    GO_BACK = "go back"


@attrs.frozen
class Tally:
    """The requests of a step that who comes was asked.

    Attributes:
        requests: how many ended, those that were cancelled not counted.
        failures: those that failed by its fault.
    """

    requests: int = 0
    failures: int = 0

    def plus(self, errors: Iterable[str | None]) -> Tally:
        """Return the tally with some attempts more.

        Args:
            errors: the ``kind`` of each one's error; None: it answered.

        >>> Tally().plus([None, "upstream", "content_filter", "cancelled"])
        Tally(requests=3, failures=1)
        """
        ended = [kind for kind in errors if kind != "cancelled"]
        failed = sum(kind in _FAULTS for kind in ended)
        return self + Tally(len(ended), failed)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.requests + other.requests, self.failures + other.failures)

    def since(self, before: Tally) -> Tally:
        """Return what came after another count.

        >>> Tally(5, 2).since(Tally(3, 2))
        Tally(requests=2, failures=0)
        """
        return Tally(self.requests - before.requests, self.failures - before.failures)


def turn(plan: SwapPlan, tally: Tally, lasted_s: float) -> Turn:
    """Return what becomes of a step.

    Failures that would be too many of ``min_requests`` are too many at once.

    >>> from atomr_infer.model.swap_plan import SwapPlan
    >>> plan = SwapPlan(min_requests=10, max_error_rate=0.1, step_s=30.0)
    >>> turn(plan, Tally(1, 1), 0.5), turn(plan, Tally(2, 2), 0.5)
    (<Turn.WAIT: 'wait'>, <Turn.GO_BACK: 'go back'>)
    >>> turn(plan, Tally(10, 1), 29.0), turn(plan, Tally(10, 1), 30.0)
    (<Turn.WAIT: 'wait'>, <Turn.GO_ON: 'go on'>)
    """
    if tally.failures > plan.max_error_rate * max(tally.requests, plan.min_requests):
        return Turn.GO_BACK
    enough = tally.requests >= plan.min_requests or lasted_s >= plan.patience_s
    return Turn.GO_ON if enough and lasted_s >= plan.step_s else Turn.WAIT


def wait_s(plan: SwapPlan, lasted_s: float) -> float:
    """Return after how long a step is looked at again, whatever is counted."""
    bounds = (bound - lasted_s for bound in (plan.step_s, plan.patience_s))
    least = min((bound for bound in bounds if bound > 0), default=0.0)
    # What rounding leaves of a bound may be too little for the clock to move.
    return max(least, _LEAST_S) if least else 0.0


def _all_below(kind: type[InferenceError]) -> Iterator[type[InferenceError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all_below(below)


_FAULTS = frozenset(
    each.kind
    for kind in (
        RateLimitedError,
        OverloadedError,
        NotReadyError,
        UpstreamError,
        DeadlineError,
        EngineError,
        InternalError,
    )
    for each in _all_below(kind)
)
