"""What a node owns of a limit, and what of it may be used now.

A node owns its floor for good, and what the home has lent it until the lease
ends.  What is used is locked where it is until it has cooled; only what is free
can be given back.  The whole promise of a limit rests on this module and on
:mod:`atomr.gossip.escrow.home`; how much is asked for and lent, which decides
how well a limit is used, is elsewhere.

The lease
    It lasts from when the lessee sent the latest message that the home has
    answered.  When it ends, what was lent and is free counts as given back, and
    the rest does as it cools.  The home waits longer than that
    (:attr:`Limit.lapse_s`) and then for a window, so all has cooled by the time
    it lends it again, whether it heard of the return or not.

The restart
    What an earlier life used is forgotten, so the whole floor counts as used at
    the start, except as far as a use log says otherwise.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.escrow.cooling import Cooling
from atomr.gossip.escrow.outcomes import Granted

if TYPE_CHECKING:
    from atomr.gossip.escrow.limit import Limit
    from atomr.gossip.escrow.use_log import UseLog

_NEVER = float("inf")


class Holdings:
    """The permits of one node under one limit.

    Attributes:
        granted: largest total that the account of now was granted.
        returned: total that was given back.
        until_s: when the lease ends.
        most: what is held beyond that is given back before it is used; infinite: as
            much as was lent.
        overrun: permits used beyond what was granted, in total.
    """

    __slots__ = (
        "_cooling_s",
        "_due_s",
        "_floor",
        "_floor_used",
        "_forgotten",
        "_forgotten_s",
        "_log",
        "_pool_used",
        "granted",
        "most",
        "overrun",
        "returned",
        "until_s",
    )

    def __init__(
        self,
        limit: Limit,
        *,
        floor: int,
        cooling: float,
        at_s: float,
        log: UseLog | None,
    ) -> None:
        """Start with the floor only.

        Args:
            limit: its terms.
            floor: permits owned for good.
            cooling: how many an earlier life may have used, whose floor may have been
                larger; infinite: nobody knows.
            at_s: when, at the latest; not after now.
            log: says how far the floor may be used; None: as far as it goes.
        """
        times = {"cooling_s": limit.cooling_s, "batch_s": limit.batch_s}
        self._cooling_s = limit.cooling_s
        self._floor_used = Cooling(**times)
        self._pool_used = Cooling(**times)
        self._floor = floor
        self._log = log
        self.granted = self.returned = self.overrun = 0
        self.until_s = -_NEVER
        self.most = _NEVER
        self._due_s = -_NEVER
        self._forgotten = cooling
        self._forgotten_s = at_s
        self._lock_forgotten(floor, at_s)

    def _lock_forgotten(self, most: int, now_s: float) -> None:
        """Lock what an earlier life may have used, of permits that were not here."""
        if now_s < self._forgotten_s + self._cooling_s and most > 0:
            used = int(min(most, self._forgotten))
            self._forgotten -= used
            if used:
                self._floor_used.add(used, self._forgotten_s)

    @property
    def held(self) -> int:
        """What is lent to this node, free or locked."""
        return self.granted - self.returned

    @property
    def used(self) -> int:
        """What is locked here, as of the latest :meth:`pass_time`."""
        return self._floor_used.count + self._pool_used.count

    @property
    def owned(self) -> int:
        """All that is here."""
        return self._floor + self.held

    @property
    def pool_free(self) -> int:
        """What is lent and may be used, as of the latest :meth:`pass_time`."""
        return self.granted - self.returned - self._pool_used.count

    @property
    def free(self) -> int:
        """What may be used, lent or owned; a smaller floor may be overused."""
        free = self._floor - self._floor_used.count
        if free < 0:
            free = 0
        if self._log is not None:
            free = min(free, self._log.room)
        return self.granted - self.returned - self._pool_used.count + free

    def pass_time(self, now_s: float) -> None:
        """Unlock what has cooled; give up what is lent when the lease has ended."""
        floor, pool = self._floor_used, self._pool_used
        if now_s >= floor.next_s:
            floor.thaw(now_s)
        if now_s >= pool.next_s:
            pool.thaw(now_s)
        if now_s >= self.until_s:
            self.returned = self.granted - pool.count
        elif self.granted - self.returned > self.most:
            self.give_back(self.held - int(self.most))
        self._set_due()

    def resize(self, floor: int, now_s: float) -> None:
        """Own another floor for good; what is locked of it stays so."""
        self._lock_forgotten(floor - self._floor, now_s)
        self._floor = floor
        self.pass_time(now_s)

    def _set_due(self) -> None:
        pool = self._pool_used
        due_s = pool.next_s
        if self._floor_used.next_s < due_s:
            due_s = self._floor_used.next_s
        if self.until_s < due_s and self.granted - self.returned > pool.count:
            due_s = self.until_s
        self._due_s = due_s

    def take(self, permits: int, now_s: float) -> Granted | None:
        """Use permits, lent ones first; None: there are not as many."""
        if now_s >= self._due_s:
            self.pass_time(now_s)
        pool = self.granted - self.returned - self._pool_used.count
        if permits <= pool:
            batch = self._pool_used.add(permits, now_s)
            return Granted(permits, 0, pool_batch=batch, floor_batch=None)
        floor, log = permits - pool, self._log
        free = self._floor - self._floor_used.count
        if floor > free or (log is not None and floor > log.room):
            return None
        pool_batch = self._pool_used.add(pool, now_s) if pool else None
        floor_batch = self._floor_used.add(floor, now_s)
        if log is not None:
            log.used += floor
        if self._floor_used.next_s < self._due_s:
            self._due_s = self._floor_used.next_s
        return Granted(pool, floor, pool_batch=pool_batch, floor_batch=floor_batch)

    def settle(self, granted: Granted, used: int, *, now_s: float) -> None:
        """Give back what was not used; lock more where more was."""
        pool_batch, floor_batch = granted.settled()
        spare = granted.permits - used
        if spare < 0:
            self._lock_more(-spare, now_s)
            return
        if spare and floor_batch is not None:
            spare -= self._floor_used.refund(floor_batch, min(spare, granted.floor))
        if spare and pool_batch is not None:
            self._pool_used.refund(pool_batch, min(spare, granted.pool))
        if now_s < self._due_s:
            self._due_s = now_s

    def _lock_more(self, permits: int, now_s: float) -> None:
        """Lock what is free; what is not here was used all the same."""
        self.pass_time(now_s)
        there = min(permits, self.free)
        if there:
            self.take(there, now_s)
        self.overrun += permits - there

    def give_back(self, permits: int) -> None:
        """Return lent permits that are free: never what is locked."""
        if permits > 0:
            self.returned += max(0, min(permits, self.pool_free))

    def renew(self, granted: int, echo_s: float, lease_s: float) -> None:
        """Take note of what the home says of the account of now."""
        self.granted = max(self.granted, granted)
        self.until_s = max(self.until_s, echo_s + lease_s)
        self._set_due()

    def drop(self) -> None:
        """Hold nothing of the account any more, and begin another."""
        self._pool_used.forget()
        self.most = _NEVER
        self.granted = self.returned = 0
        self.until_s = -_NEVER
        self._set_due()

    def free_at_s(self, permits: int) -> float:
        """Return when that many may be used, if nothing is lent or given back."""
        missing = permits - self.free
        if missing <= 0:
            return -_NEVER
        floor_s = self._floor_used.free_at_s(missing)
        return min(floor_s, self._pool_used.free_at_s(missing))
