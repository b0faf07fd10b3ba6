"""A line in which only so many are at the front, the most urgent first.

Of those that are as urgent, tenants take turns
(:mod:`atomr_infer.policy.tenants.fair_share`): a flood of one key's requests, of which
each waits for a provider's limit, holds up another one's single request by one turn.
"""

from __future__ import annotations

import trio

from atomr_infer.policy.tenants.admission import UNCLAIMED, Claim
from atomr_infer.policy.tenants.fair_share import FairShare


class Turnstile:
    """Lets a few to the front at a time; of one tenant's, who came first."""

    __slots__ = ("_free", "_levels", "length")

    def __init__(self, width: int) -> None:
        """Start empty.

        Args:
            width: how many may be at the front at once.
        """
        self._free = width
        self._levels: dict[int, FairShare[trio.Event]] = {}
        self.length = 0

    async def come(self, priority: int, claim: Claim = UNCLAIMED) -> None:
        """Wait until it is one's turn; :meth:`go` ends it.

        Args:
            priority: higher goes first.
            claim: whose turn it takes, and what it costs.

        Cancellation: the turn is the next one's.
        """
        self.length += 1
        if self._free and not self._levels:
            self._free -= 1
            return
        turn = trio.Event()
        waiting = self._levels.setdefault(priority, FairShare())
        waiting.push(turn, claim.shares, claim.cost)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.go()
            else:
                self.length -= 1
                waiting.remove(turn)
                if not waiting:
                    del self._levels[priority]
            raise

    def go(self) -> None:
        """Leave the front to the next."""
        self.length -= 1
        if not self._levels:
            self._free += 1
            return
        priority = max(self._levels)
        waiting = self._levels[priority]
        turn = waiting.pop()
        if not waiting:
            del self._levels[priority]
        turn.set()
