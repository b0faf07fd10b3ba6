"""Who takes the next request: which replica, and which deployment of a group.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs

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


@attrs.frozen(kw_only=True)
class MemberLoad:
    """What is known of one deployment of a group.

    Attributes:
        name: the deployment's.
        usable: False while its circuit is open, or none of its engines runs.
        outstanding: the work of its least loaded replica.
        turn: when it was chosen last; a higher number is later.
    """

    name: str
    usable: bool
    outstanding: int
    turn: int


def next_member(members: Iterable[MemberLoad]) -> str:
    """Return the deployment that a group's next request goes to.

    The one with the least work; equals take turns.  One that cannot be used now
    is chosen when all are so.

    >>> busy = MemberLoad(name="a", usable=True, outstanding=2, turn=1)
    >>> next_member([busy, attrs.evolve(busy, name="b", outstanding=0, turn=9)])
    'b'
    """
    return min(members, key=lambda m: (not m.usable, m.outstanding, m.turn)).name
