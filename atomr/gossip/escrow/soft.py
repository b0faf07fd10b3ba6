"""A soft limit: each node tells the others what it has used, and believes them.

Nothing is asked for and nothing waits.  What others use while they cannot be
heard is not counted, so a limit is exceeded by what all use within one interval,
and by whole limits while the cluster is cut apart: ``docs/reference/limits.md``
has the formulas.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.gossip.escrow.cooling import Cooling
from atomr.gossip.escrow.frames import Frame, Used
from atomr.gossip.escrow.outcomes import Denied, Effect, Granted, Outcome, Send

if TYPE_CHECKING:
    from atomr.gossip.escrow.limit import Limit
    from atomr.gossip.escrow.outcomes import Mark

_NEVER = float("inf")

INTERVAL_S = 0.2
"""How often a node that uses permits says so."""


@attrs.define
class _Heard:
    """What a peer said last, and when that was heard."""

    boot: int
    seq: int
    count: int
    at_s: float


class SoftLimit:
    """One node's side of a soft limit.

    Attributes:
        next_deadline_s: when :meth:`advance` has something to do; infinite: never.
        overrun: permits used beyond what was granted, in total.
    """

    __slots__ = (
        "_boot",
        "_heard",
        "_limit",
        "_peers",
        "_seq",
        "_told",
        "_used",
        "next_deadline_s",
        "overrun",
    )

    def __init__(self, limit: Limit, *, name: str, boot: int) -> None:
        """Start as if nothing had been used."""
        self._limit = limit
        self._boot = boot
        self._peers = tuple(voter for voter in limit.voters if voter != name)
        self._used = Cooling(cooling_s=limit.cooling_s, batch_s=limit.batch_s)
        self._heard: dict[str, _Heard] = {}
        self._seq = self._told = self.overrun = 0
        self.next_deadline_s = _NEVER

    def resize(self, limit: Limit, now_s: float) -> list[Effect]:
        """Take another number of permits; what was used stays so."""
        self._limit = limit
        self.next_deadline_s = min(self.next_deadline_s, now_s + INTERVAL_S)
        return []

    def used(self, now_s: float) -> int:
        """Permits that are locked, here and as far as is known elsewhere."""
        self._used.thaw(now_s)
        return self._used.count + self._elsewhere(now_s)

    def take(
        self,
        permits: int,
        now_s: float,
        *,
        expected: bool,
    ) -> Granted | None:
        """Use permits if, as far as is known, there are as many."""
        outcome = self.acquire(permits, now_s)
        return outcome if isinstance(outcome, Granted) else None

    def expect(self, permits: int) -> None:
        """Nobody is asked, so nothing follows."""

    def acquire(self, permits: int, now_s: float) -> Outcome:
        """Use permits if, as far as is known, there are as many."""
        limit = self._limit
        if permits > limit.permits:
            return Denied(_NEVER)
        self._used.thaw(now_s)
        if self._used.count + self._elsewhere(now_s) + permits > limit.permits:
            return Denied(self.retry_after_s(permits, now_s))
        batch = self._used.add(permits, now_s)
        if self.next_deadline_s == _NEVER:
            self.next_deadline_s = now_s + INTERVAL_S
        return Granted(permits, 0, pool_batch=batch, floor_batch=None)

    def retry_after_s(self, permits: int, now_s: float) -> float:
        """Return when there may be as many, if nobody else asks."""
        free_s = self._used.free_at_s(permits) - now_s
        return max(INTERVAL_S, min(free_s, self._limit.window_s))

    def _elsewhere(self, now_s: float) -> int:
        """Return what peers have used; of a silent one, until it must be over."""
        since_s = now_s - self._limit.cooling_s
        return sum(peer.count for peer in self._heard.values() if peer.at_s > since_s)

    def settle(self, granted: Granted, used: int, *, now_s: float) -> None:
        """Give back what was not used; count what was used beyond that."""
        batch, _ = granted.settled()
        if batch is None:
            return
        self._used.refund(batch, max(0, granted.permits - used))
        more = used - granted.permits
        if more > 0:
            self._used.add(more, now_s)
            self.overrun += more

    def advance(self, now_s: float) -> list[Effect]:
        """Tell the others, if there is anything to tell."""
        self.next_deadline_s = _NEVER
        self._used.thaw(now_s)
        count = self._used.count
        if count == self._told == 0:
            return []
        self._told = count
        self._seq += 1
        self.next_deadline_s = now_s + INTERVAL_S
        frame = Used(self._limit.name, self._boot, self._seq, count)
        return [Send(peer, frame) for peer in self._peers]

    def receive(self, sender: str, frame: Frame, now_s: float) -> list[Effect]:
        """Take note of what a voter used."""
        if not isinstance(frame, Used) or sender not in self._peers:
            return []
        heard = self._heard.get(sender)
        if heard is None or heard.boot != frame.boot or heard.seq < frame.seq:
            self._heard[sender] = _Heard(frame.boot, frame.seq, frame.count, now_s)
        return []

    def persisted(self, mark: Mark) -> None:
        """Nothing is written, so nothing follows."""
