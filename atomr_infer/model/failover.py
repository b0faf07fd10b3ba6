"""What an operator wants done when a deployment fails: values of a `Deployment`.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    at_most,
    identifier,
    non_empty,
    not_negative,
    positive,
    share,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class FallbackReason(Enum):
    """A kind of failure after which another deployment may be asked."""

    CAPACITY = "capacity"
    RATE_LIMIT = "rate_limit"
    CIRCUIT_OPEN = "circuit_open"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    AUTH = "auth"
    UNSUPPORTED = "unsupported"


# Asking around until some model says what the others refuse to say is a decision
# of the operator's, never a default.
DEFAULT_REASONS = frozenset(FallbackReason) - {FallbackReason.CONTENT_FILTER}


def _as_set(reasons: Iterable[FallbackReason]) -> frozenset[FallbackReason]:
    return frozenset(reasons)


@attrs.frozen(kw_only=True)
class Fallback:
    """Another deployment to ask when this one fails.

    Attributes:
        to: the other deployment's name.
        on: the failures after which it is asked; all but ``content_filter``
            when nothing is said.
        model: what its runtime is asked for; None: its own ``model``, or the
            name that the client used.
    """

    to: str = attrs.field(validator=identifier)
    on: frozenset[FallbackReason] = attrs.field(
        default=DEFAULT_REASONS,
        converter=_as_set,
        validator=attrs.validators.deep_iterable(
            attrs.validators.instance_of(FallbackReason)
        ),
    )
    model: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(non_empty)
    )


def as_fallbacks(given: Iterable[str | Fallback]) -> tuple[Fallback, ...]:
    """Return fallbacks in order; a bare name is one with the default reasons.

    >>> as_fallbacks(["other"])[0].to
    'other'
    """
    if isinstance(given, str):
        raise InvalidValueError("fallbacks", given, "is not a list; write [...]")
    return tuple(Fallback(to=f) if isinstance(f, str) else f for f in given)


class OnCut(Enum):
    """What becomes of an answer whose stream breaks after its first words."""

    ERROR = "error"
    RESTART_MATCH = "restart_match"
    CONTINUE = "continue"
    BUFFER = "buffer"


class OnCapacity(Enum):
    """What becomes of a request when every permit of its replica is taken."""

    QUEUE = "queue"
    REJECT = "reject"
    FALLBACK = "fallback"


class Swap(Enum):
    """How a deployment that is changed comes to other engines."""

    BESIDE = "beside"
    AFTER = "after"


@attrs.frozen(kw_only=True)
class BreakerPolicy:
    """When an endpoint counts as broken, and how it is tried again.

    One circuit breaker is shared by all deployments of the same runtime and
    endpoint, so these must agree among them.  Connection errors, time-outs and
    the upstream's own failures (5xx, 529) count; 429 and other 4xx, a content
    filter's refusal and a client that leaves never do.

    Attributes:
        max_failures: so many failures within ``window_s`` open the circuit;
            0: it never opens by itself.
        failure_share: and at least this share of the outcomes in the window
            must be failures, above 0 up to 1.
        window_s: how far back outcomes count, in seconds.
        open_s: how long the circuit stays open the first time; it doubles each
            time that a probe fails.
        max_open_s: the longest that it stays open.
        half_open_max_probes: requests that are let through at once, when that
            time has passed, to see whether the endpoint is back.
    """

    max_failures: int = attrs.field(default=5, validator=at_least(0))
    failure_share: float = attrs.field(default=0.5, validator=[positive, share])
    window_s: float = attrs.field(default=30.0, validator=positive)
    open_s: float = attrs.field(default=5.0, validator=positive)
    max_open_s: float = attrs.field(default=120.0, validator=positive)
    half_open_max_probes: int = attrs.field(
        default=1, validator=[at_least(1), at_most(100)]
    )


@attrs.frozen(kw_only=True)
class HedgePolicy:
    """When a second attempt races the first one for the first token.

    Attributes:
        after_s: seconds without a first token after which a second attempt is
            made, on another replica or on the first fallback; None: never.  A
            deployment whose requests are not idempotent makes none.
        max_fraction: the most hedged requests, as a share of all requests.
    """

    after_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    max_fraction: float = attrs.field(default=0.05, validator=[not_negative, share])
