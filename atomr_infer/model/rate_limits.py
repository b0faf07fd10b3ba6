"""`RateLimits`: how fast something may be asked, by all nodes of a cluster together.

The same value says what a provider allows a key (``[deployment.rate_limits]``) and
what an operator allows a virtual key.

Pure.
"""

from __future__ import annotations

from enum import Enum

import attrs

from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    at_most,
    positive,
)

PER_MINUTE = (
    "requests_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "tokens_per_minute",
)
"""The members that are rates."""

_MINUTE_S = 60.0
_MAX = 2**53

_count = attrs.validators.optional([at_least(1), at_most(_MAX)])


class LimitMode(Enum):
    """How nodes keep a limit together."""

    ESCROW = "escrow"
    STRICT = "strict"
    SOFT = "soft"


class OnLimit(Enum):
    """What becomes of a request for which there is no room now."""

    QUEUE = "queue"
    REJECT = "reject"


@attrs.frozen(kw_only=True)
class RateLimits:
    """At most so much, in any sliding window, by all nodes together.

    Attributes:
        requests_per_minute: requests that are sent, refused ones too.
        input_tokens_per_minute: tokens of prompts.
        output_tokens_per_minute: tokens of answers.
        tokens_per_minute: both together.
        max_concurrent: requests that are under way at the same time.
        window_s: the window that is kept, in seconds.  A shorter one has its part of
            what a minute has, so nothing is sent in a burst: with 10, six hundred a
            minute are at most one hundred in ten seconds.
        mode: how nodes keep the limits together.  ``escrow``: permits are lent, so a
            request mostly finds one where it is.  ``strict``: one node is asked for
            each request, and nothing goes on without it.  ``soft``: nodes tell each
            other what they have used; a partition can double what is sent.
        on_exceeded: what becomes of a request for which there is no room now.
            ``queue``: it waits, by priority, as long as its time allows.
            ``reject``: its client is told when to come again.
        shadow: True refuses nothing, and only counts what it would have refused.

    Raises:
        InvalidValueError: nothing is limited, or a window would have less than one.

    >>> limits = RateLimits(requests_per_minute=600, window_s=10.0)
    >>> limits.permits("requests_per_minute")
    100
    """

    requests_per_minute: int | None = attrs.field(default=None, validator=_count)
    input_tokens_per_minute: int | None = attrs.field(default=None, validator=_count)
    output_tokens_per_minute: int | None = attrs.field(default=None, validator=_count)
    tokens_per_minute: int | None = attrs.field(default=None, validator=_count)
    max_concurrent: int | None = attrs.field(default=None, validator=_count)
    window_s: float = attrs.field(default=_MINUTE_S, validator=positive)
    mode: LimitMode = attrs.field(
        default=LimitMode.ESCROW, validator=attrs.validators.instance_of(LimitMode)
    )
    on_exceeded: OnLimit = attrs.field(
        default=OnLimit.QUEUE, validator=attrs.validators.instance_of(OnLimit)
    )
    shadow: bool = attrs.field(
        default=False, validator=attrs.validators.instance_of(bool)
    )

    def __attrs_post_init__(self) -> None:
        if self.window_s > _MINUTE_S:
            problem = "is longer than the minute that the numbers are for"
            raise InvalidValueError("window_s", self.window_s, problem)
        rates = [name for name in PER_MINUTE if getattr(self, name) is not None]
        if not rates and self.max_concurrent is None:
            problem = f"limits nothing; give it one of {', '.join(PER_MINUTE)}"
            raise InvalidValueError("rate_limits", {}, problem)
        for name in rates:
            if self.permits(name) < 1:
                problem = f"is less than one in a window of {self.window_s:g} s"
                raise InvalidValueError(name, getattr(self, name), problem)

    def permits(self, name: str) -> int:
        """Return how many of a rate there are in one window.

        Args:
            name: the member; one that is given.
        """
        rate: int = getattr(self, name)
        return int(rate * self.window_s / _MINUTE_S)
