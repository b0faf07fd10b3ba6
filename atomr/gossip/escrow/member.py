"""One node's part in one limit: always a lessee, and the home while it is that.

Where the home is this very node, asking it is a call, and an acquire that asks
has its answer at once.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from atomr.gossip.escrow.frames import (
    Ask,
    Closed,
    Elsewhere,
    Frame,
    Grant,
    Offer,
    Open,
    Refused,
)
from atomr.gossip.escrow.holdings import Holdings
from atomr.gossip.escrow.home import Home
from atomr.gossip.escrow.lessee import Lessee
from atomr.gossip.escrow.outcomes import (
    Answered,
    Asking,
    Effect,
    Granted,
    Mark,
    Outcome,
    Persist,
    Send,
    TermsDiffer,
)
from atomr.gossip.escrow.use_log import UseLog, cooling_after

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin
    from atomr.gossip.escrow.limit import Limit
    from atomr.gossip.escrow.seat import Seat

_NEVER = float("inf")


@attrs.frozen
class Past:
    """What is known of the time before this life.

    Attributes:
        quiet_s: for how long, at least, no node of this name has run; infinite:
            there never was one.
        marks: the use log of the latest life, oldest first; empty: none was kept.
        used: at most so many permits of this node were locked when the latest life
            ended; None: that is not known.
    """

    quiet_s: float = 0.0
    marks: tuple[Mark, ...] = ()
    used: int | None = None


UNKNOWN = Past()
"""There may have been an earlier life until just now."""

FIRST = Past(quiet_s=_NEVER)
"""There never was one."""


class Member:
    """One node's part in one limit.

    Attributes:
        next_deadline_s: when :meth:`advance` has something to do; infinite: never.
    """

    __slots__ = (
        "_home",
        "_lessee",
        "_limit",
        "_log",
        "_me",
        "_outbox",
        "_seat",
        "next_deadline_s",
    )

    def __init__(
        self, limit: Limit, me: Origin, *, past: Past, now_s: float, seat: Seat
    ) -> None:
        """Start with the floor, as far as earlier lives have not used it.

        Args:
            limit: its terms.
            me: the node, in this life.
            past: what is known of earlier ones.
            now_s: by the node's clock.
            seat: says who lends.
        """
        quiet_at_s = now_s - past.quiet_s
        floor = _floor_of(me.name, limit)
        cooling = _NEVER if past.quiet_s < _NEVER else 0.0
        if past.used is not None:
            cooling = min(cooling, past.used)
        if limit.use_log and past.marks:
            cooling = min(cooling, cooling_after(limit, past.marks))
        inherited = int(min(cooling, floor))
        self._limit = limit
        self._me = me.name
        self._log = log = (
            UseLog(limit, me.boot, used=inherited) if limit.use_log and floor else None
        )
        holdings = Holdings(
            limit, floor=floor, cooling=cooling, at_s=quiet_at_s, log=log
        )
        self._seat = seat
        self._lessee = Lessee(limit, holdings, seat, boot=me.boot, now_s=now_s)
        may_lend = me.name in limit.voters if seat.moves else seat.holds(now_s)
        self._home = Home(limit, boot=me.boot, at_s=quiet_at_s) if may_lend else None
        self._outbox: list[Effect] = []
        self.next_deadline_s = _NEVER if log is None else now_s

    def resize(self, limit: Limit, now_s: float) -> list[Effect]:
        """Take other terms, with the same home: what is used, or lent, stays so."""
        self._limit = limit
        self._lessee.resize(limit, _floor_of(self._me, limit), now_s)
        home = self._home
        # Before all else: what is known of the accounts may be over.
        lends = self._lends(now_s) is not None
        effects = [] if home is None else home.resize(limit, now_s)
        effects = self._deliver_here(effects if lends else [], now_s)
        self._schedule(now_s)
        return effects

    @property
    def overrun(self) -> int:
        """Permits used beyond what was granted, in total."""
        return self._lessee.holdings.overrun

    def used(self, now_s: float) -> int:
        """Permits that are locked here."""
        self._lessee.holdings.pass_time(now_s)
        return self._lessee.holdings.used

    def retry_after_s(self, permits: int, now_s: float) -> float:
        """Return when there may be as many here, if nothing is lent meanwhile."""
        self._lessee.holdings.pass_time(now_s)
        return self._lessee.retry_after_s(permits, now_s)

    # --- use ------------------------------------------------------------------------

    def take(self, permits: int, now_s: float, *, expected: bool) -> Granted | None:
        """Use permits that are here; None: there are not as many.

        Args:
            permits: how many.
            now_s: by the node's clock.
            expected: False where they are to be counted as demand, if they are here.
        """
        lessee = self._lessee
        granted = lessee.take(permits, now_s, expected=expected)
        is_due = lessee.next_deadline_s < self.next_deadline_s
        if is_due or self._log is not None:
            self._hurry(now_s)
        return granted

    def expect(self, permits: int) -> None:
        """Count permits that somebody waits for, though they are not asked for yet."""
        self._lessee.expect(permits)

    def acquire(self, permits: int, now_s: float) -> Outcome:
        """Use permits, or say what else."""
        outcome: Outcome = self._lessee.acquire(permits, now_s)
        if type(outcome) is Asking and self._lends(now_s) is not None:
            outcome = self._ask_here(outcome, now_s)
        self._hurry(now_s)
        return outcome

    def _hurry(self, now_s: float) -> None:
        """Be woken in time for what a use has made due."""
        lessee = self._lessee
        if self._log is not None and self._log.is_short:
            self.next_deadline_s = now_s
        if lessee.next_deadline_s < self.next_deadline_s:
            self.next_deadline_s = lessee.next_deadline_s

    def _ask_here(self, asking: Asking, now_s: float) -> Outcome:
        """Ask the home, which is here: it answers at once, if anything is due."""
        outcome: Outcome = asking
        for effect in self._deliver_here(self._lessee.advance(now_s), now_s):
            if type(effect) is Answered and effect.ticket == asking.ticket:
                outcome = effect.outcome
            else:
                self._outbox.append(effect)
        if self._outbox:
            self.next_deadline_s = now_s
        return outcome

    def settle(self, granted: Granted, used: int, *, now_s: float) -> None:
        """Give back what was not used."""
        self._lessee.holdings.settle(granted, used, now_s=now_s)

    # --- events ---------------------------------------------------------------------

    def advance(self, now_s: float) -> list[Effect]:
        """Do what is due."""
        effects = self._take_outbox()
        if now_s >= self._lessee.next_deadline_s:
            effects += self._deliver_here(self._lessee.advance(now_s), now_s)
        home = None if self._home is None else self._lends(now_s)
        home_s = _NEVER if home is None else home.next_deadline_s(now_s)
        if home is not None and now_s >= home_s:
            effects += self._deliver_here(home.lend(now_s), now_s)
            home_s = home.next_deadline_s(now_s)
        mark = None if self._log is None else self._log.next_mark(now_s)
        if mark is not None:
            effects.append(Persist(mark))
        due_s = self._lessee.next_deadline_s
        if home_s < due_s:
            due_s = home_s
        self.next_deadline_s = now_s if self._outbox else due_s
        return effects

    def receive(self, sender: str, frame: Frame, now_s: float) -> list[Effect]:
        """Handle a frame of another node."""
        effects = self._deliver_here(self._handle(sender, frame, now_s), now_s)
        self._schedule(now_s)
        return effects

    def persisted(self, mark: Mark) -> None:
        """A mark of the use log has been written and synced."""
        if self._log is not None:
            self._log.persisted(mark)

    def _handle(self, sender: str, frame: Frame, now_s: float) -> list[Effect]:
        """Let the side handle it that it is meant for."""
        if isinstance(frame, Open | Ask):
            return self._at_home(sender, frame, now_s)
        lessee = self._lessee
        match frame:
            case Offer():
                return lessee.offered(sender, frame, now_s)
            case Grant():
                return lessee.granted(sender, frame, now_s)
            case Closed():
                return lessee.closed(sender, frame, now_s)
            case Elsewhere():
                self._seat.heard_of(sender, frame.home)
            case Refused(terms=terms) if terms in (0, self._limit.terms):
                # It has not been told of the limit yet, or this node was, while that
                # was under way: it is asked again.
                pass
            case _ if sender == self._seat.holder:
                return [TermsDiffer(frame.limit, sender)]
        return []

    def _at_home(self, sender: str, frame: Open | Ask, now_s: float) -> list[Effect]:
        home = self._lends(now_s)
        if home is None:
            return self._not_home(sender, frame)
        if isinstance(frame, Ask):
            return home.ask(sender, frame, now_s)
        return home.open(sender, frame)

    def _lends(self, now_s: float) -> Home | None:
        """Return the home, if this node may lend, right now."""
        home, seat = self._home, self._seat
        if home is None or not seat.holds(now_s):
            return None
        home.take_over(seat.alone_from_s)
        return home

    def _not_home(self, sender: str, frame: Open | Ask) -> list[Effect]:
        """Say who lends, or refuse a lessee whose terms name another home."""
        limit, seat = self._limit, self._seat
        is_same = isinstance(frame, Ask) or frame.terms == limit.terms
        if seat.moves and is_same:
            known = "" if seat.holder == self._me else seat.holder
            return [Send(sender, Elsewhere(frame.limit, known))]
        if isinstance(frame, Ask):
            return [Send(sender, Closed(frame.limit, frame.home_boot, frame.account))]
        refused = Refused(frame.limit, self._limit.terms, frame.boot, frame.nonce)
        return [Send(sender, refused), TermsDiffer(frame.limit, sender)]

    def _deliver_here(self, effects: list[Effect], now_s: float) -> list[Effect]:
        """Deliver what this node sends to itself, and return the rest."""
        me = self._me
        for effect in effects:
            if type(effect) is Send and effect.to == me:
                break
        else:
            return effects
        left: list[Effect] = []
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            if type(effect) is Send and effect.to == me:
                waiting.extend(self._handle(me, effect.message, now_s))
            else:
                left.append(effect)
        return left

    def _take_outbox(self) -> list[Effect]:
        outbox, self._outbox = self._outbox, []
        return outbox

    def _schedule(self, now_s: float) -> None:
        home = self._lends(now_s)
        home_s = _NEVER if home is None else home.next_deadline_s(now_s)
        due_s = min(self._lessee.next_deadline_s, home_s)
        self.next_deadline_s = now_s if self._outbox else due_s


def _floor_of(name: str, limit: Limit) -> int:
    """Return what a node owns for good: only the voters do."""
    return limit.floor if name in limit.voters else 0
