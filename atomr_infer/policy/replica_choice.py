"""Which replica of a deployment takes the next request: the least loaded one.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class Load(Protocol):
    """What the choice looks at."""

    @property
    def ready(self) -> bool:
        """True when its engine can run now."""
        ...

    @property
    def outstanding(self) -> int:
        """Requests running and waiting."""
        ...


R = TypeVar("R", bound=Load)


def least_outstanding(replicas: Iterable[R], avoid: frozenset[R]) -> R | None:
    """Return the replica with the least work, ready ones first.

    A replica whose engine restarts still queues, so it is chosen when no ready
    one is left; one that already failed this request (``avoid``) comes last.

    Returns:
        None when there is no replica at all.
    """
    return min(
        replicas,
        key=lambda r: (r in avoid, not r.ready, r.outstanding),
        default=None,
    )
