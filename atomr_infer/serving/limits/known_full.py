"""Whether it is known on this node that a limit has no room, without asking others.

Who does not queue is refused at once then.  What others have is known for a moment
after they were asked: who needs as much as somebody who got nothing gets nothing.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.policy.limits.demand import Demand

KNOWN_S = 1.0
"""So long the last refusal says something of the next request."""


class KnownFull:
    """What the last refusal says."""

    def __init__(
        self, needs: tuple[Callable[[Demand], int], ...], *, has_others: bool
    ) -> None:
        """Know of no refusal yet.

        Args:
            needs: says what a request needs of each limit.
            has_others: whether other nodes may have permits.
        """
        self._needs = needs
        self._has_others = has_others
        self._refused: tuple[int, ...] = ()
        self._until_s = -inf

    def note(self, demand: Demand, now_s: float) -> None:
        """Take that a request got nothing, from nobody."""
        self._refused = tuple(needs(demand) for needs in self._needs)
        self._until_s = now_s + KNOWN_S

    def refuses(self, demand: Demand, now_s: float) -> bool:
        """Whether a request would get nothing that has found nothing in place."""
        if not self._has_others:
            return True
        if now_s >= self._until_s:
            return False
        needed = (needs(demand) for needs in self._needs)
        return all(map(int.__ge__, needed, self._refused))
