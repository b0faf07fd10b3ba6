"""Which kind of failure an error is, for those who may take over.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer import errors
from atomr_infer.errors import ConfigError
from atomr_infer.model.failover import FallbackReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.failover import Fallback

# The first that fits counts, so a class stands before those that it is made of.
_REASONS: tuple[tuple[type[errors.InferenceError], FallbackReason], ...] = (
    (errors.CircuitOpenError, FallbackReason.CIRCUIT_OPEN),
    (errors.RateLimitedError, FallbackReason.RATE_LIMIT),
    (errors.OverloadedError, FallbackReason.CAPACITY),
    (errors.NotReadyError, FallbackReason.CAPACITY),
    (errors.UpstreamTimeoutError, FallbackReason.TIMEOUT),
    (errors.ContextLengthError, FallbackReason.CONTEXT_LENGTH),
    (errors.ContentFilterError, FallbackReason.CONTENT_FILTER),
    (errors.UnsupportedFeatureError, FallbackReason.UNSUPPORTED),
    (errors.UpstreamAuthError, FallbackReason.AUTH),
    (errors.UpstreamError, FallbackReason.SERVER_ERROR),
    (errors.EngineError, FallbackReason.SERVER_ERROR),
)


def reason_of(error: errors.InferenceError) -> FallbackReason | None:
    """Return the kind of failure; None: another deployment would not help.

    >>> reason_of(errors.StreamCutError("x"))
    <FallbackReason.SERVER_ERROR: 'server_error'>
    """
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return None


def check_chains(fallbacks: Mapping[str, tuple[Fallback, ...]], start: str) -> None:
    """Refuse fallbacks that lead back to where they began.

    Args:
        fallbacks: each deployment's, by its name; a name that is not in it has
            none.
        start: the deployment to begin at.

    Raises:
        ConfigError: names the deployments of the cycle.
    """
    _walk(fallbacks, (start,), set())


def _walk(
    fallbacks: Mapping[str, tuple[Fallback, ...]], path: tuple[str, ...], done: set[str]
) -> None:
    for fallback in fallbacks.get(path[-1], ()):
        if fallback.to in path:
            cycle = " -> ".join((*path[path.index(fallback.to) :], fallback.to))
            raise ConfigError(
                f"the fallbacks of deployment {path[0]!r} go round in a circle: "
                f"{cycle}; take one of them out"
            )
        if fallback.to not in done:
            _walk(fallbacks, (*path, fallback.to), done)
    done.add(path[-1])
