"""The lessee's side of a limit: what a node uses, asks for and gives back.

A node answers from what it holds.  It holds, beyond what is locked, about what
it will be asked for until it can hear of its home again, and gives the rest back
for others.  It knows the demand by counting what it is asked for, granted or
not.

A request for more than is here waits while the home is asked, once.  While the
home has said lately that there is no more, or does not answer, nothing waits:
then the answer is no, at once.

::

    no account ──Offer──▶ an account ──Closed, or the home's new life──▶ no account

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from atomr.gossip.escrow.demand import Demand
from atomr.gossip.escrow.frames import NO_CAP, Ask, Closed, Frame, Grant, Offer, Open
from atomr.gossip.escrow.limit import Mode
from atomr.gossip.escrow.outcomes import (
    Answered,
    Asking,
    Denied,
    Effect,
    Granted,
    Outcome,
    Send,
)
from atomr.gossip.escrow.waiter import Waiter

if TYPE_CHECKING:
    from atomr.gossip.escrow.holdings import Holdings
    from atomr.gossip.escrow.limit import Limit
    from atomr.gossip.escrow.seat import Seat

_NEVER = float("inf")

MAX_WAITERS = 256
"""Acquires that wait for the home; past that the answer is no."""

_HURRY = 0.2
"""Of a tick: how soon an acquire that waits may be told to the home."""

_DRY_TICKS = 4.0
"""A want that the home knows of and cannot meet is repeated that often."""


class Lessee:
    """One node's side of one limit.

    Attributes:
        holdings: what is here.
        next_deadline_s: when :meth:`advance` has something to do; infinite: never.
    """

    __slots__ = (
        "_account",
        "_answered_s",
        "_asked",
        "_asked_s",
        "_boot",
        "_cap",
        "_changed_s",
        "_demand",
        "_dry_until_s",
        "_is_missed",
        "_lender",
        "_lends_s",
        "_limit",
        "_nonce",
        "_opening",
        "_returned",
        "_seat",
        "_sent_s",
        "_tickets",
        "_unanswered_s",
        "_waiters",
        "_want",
        "holdings",
        "next_deadline_s",
    )

    def __init__(
        self, limit: Limit, holdings: Holdings, seat: Seat, *, boot: int, now_s: float
    ) -> None:
        """Start without an account.

        Args:
            limit: its terms.
            holdings: what is here.
            seat: says whom to ask.
            boot: of the node's life.
            now_s: by the node's clock.
        """
        self._limit = limit
        self._boot = boot
        self.holdings = holdings
        self._nonce = 0
        self._account: tuple[int, int] | None = None
        self._cap = NO_CAP
        self._seat = seat
        self._lender, self._opening = "", seat.holder
        self._asked, self._asked_s = seat.holder, now_s
        fetches_ahead = limit.mode is not Mode.STRICT
        self._demand = Demand(limit.tick_s, now_s, fetches_ahead=fetches_ahead)
        self._tickets = self._want = self._returned = 0
        self._lends_s = -_NEVER
        self._sent_s = self._answered_s = self._changed_s = -_NEVER
        self._unanswered_s = _NEVER
        self._is_missed = False
        self._dry_until_s = -_NEVER
        self._waiters: deque[Waiter] = deque()
        self.next_deadline_s = _NEVER

    # --- use ------------------------------------------------------------------------

    def take(self, permits: int, now_s: float, *, expected: bool) -> Granted | None:
        """Use permits that are here; None: there are not as many, or none so many."""
        granted = self.holdings.take(permits, now_s)
        if granted is not None:
            if not expected:
                self._demand.count += permits
            if self.next_deadline_s == _NEVER:
                self._wake_by(now_s + self._limit.tick_s)
        return granted

    def expect(self, permits: int) -> None:
        """Count permits that somebody waits for, though they are not asked for yet."""
        if permits <= self._limit.largest:
            self._demand.count += permits

    def acquire(self, permits: int, now_s: float) -> Outcome:
        """Use permits, or say what else; what is expected was counted before."""
        granted = self.holdings.take(permits, now_s)
        if granted is None:
            return self._short_of(permits, now_s)
        if self.next_deadline_s == _NEVER:
            self._wake_by(now_s + self._limit.tick_s)
        return granted

    def _short_of(self, permits: int, now_s: float) -> Outcome:
        limit = self._limit
        if permits > limit.largest:
            return Denied(_NEVER)
        is_silent = now_s - self._unanswered_s > limit.ask_s
        # Who is denied without being asked for must see to it that it is asked again.
        self._is_missed = self._is_missed or is_silent
        if is_silent or now_s < self._dry_until_s or len(self._waiters) >= MAX_WAITERS:
            self._wake_by(now_s + limit.tick_s)
            return Denied(self.retry_after_s(permits, now_s))
        self._tickets += 1
        self._waiters.append(Waiter(self._tickets, permits, now_s + limit.ask_s))
        self._wake_by(max(now_s, self._sent_s + limit.tick_s * _HURRY))
        return Asking(self._tickets)

    def retry_after_s(self, permits: int, now_s: float) -> float:
        """Return when there may be as many here, if nothing is lent meanwhile."""
        free_s = self.holdings.free_at_s(permits) - now_s
        return max(self._limit.tick_s, min(free_s, self._lent_in_s(now_s)))

    def _lent_in_s(self, now_s: float) -> float:
        """Return when something may be lent that nobody lends now."""
        limit = self._limit
        if self._seat.moves and now_s - self._unanswered_s > limit.ask_s:
            # Who comes next has to wait for what this one has lent.
            vacant_s = self._unanswered_s + self._seat.vacant_s - now_s
            return max(0.0, vacant_s) + limit.lapse_s + limit.cooling_s
        wait_s = self._lends_s - now_s
        return wait_s if wait_s > 0.0 else limit.window_s

    def _wake_by(self, at_s: float) -> None:
        if at_s < self.next_deadline_s:
            self.next_deadline_s = at_s

    def resize(self, limit: Limit, floor: int, now_s: float) -> None:
        """Take other terms, with another floor; what is lent stays so."""
        self._limit = limit
        self.holdings.resize(floor, now_s)
        self._dry_until_s = -_NEVER
        self._wake_by(now_s)

    # --- time -----------------------------------------------------------------------

    def advance(self, now_s: float) -> list[Effect]:
        """Do what is due: answers that took too long, and word to the home."""
        holdings = self.holdings
        holdings.pass_time(now_s)
        effects: list[Effect] = []
        if self._waiters:
            effects = self._answer(now_s, heard_s=-_NEVER)
        self._demand.tick(now_s)
        self._want = self._wanted()
        if not self._waiters:
            self._give_back()
        if holdings.returned != self._returned:
            self._returned = holdings.returned
            after_s = math.nextafter(self._sent_s, _NEVER)
            self._changed_s = max(now_s, after_s)
        home = self._asked_of(now_s)
        if self._is_due(now_s):
            self._is_missed = False
            self._sent_s = now_s
            self._unanswered_s = min(self._unanswered_s, now_s)
            effects.append(Send(home, self._next_frame(home, now_s)))
        self.next_deadline_s = self._next_deadline(now_s)
        return effects

    def _wanted(self) -> int:
        free = self.holdings.free
        waiting = 0
        for waiter in self._waiters:
            waiting += waiter.permits
        ahead = self._demand.ahead
        want = waiting + ahead - free
        return min(want, self._limit.pool) if 2 * want > ahead or waiting > free else 0

    def _give_back(self) -> None:
        """Return what others may have more use for."""
        holdings = self.holdings
        free = holdings.pool_free
        spare = free - 2 * self._demand.ahead
        if self._cap != NO_CAP:
            spare = max(spare, min(free, holdings.held - self._cap))
        if spare > 0:
            holdings.give_back(spare)

    # --- word to the home -----------------------------------------------------------

    def _asked_of(self, now_s: float) -> str:
        """Return whom to ask: another one, where this one has been silent for long."""
        seat, ask_s = self._seat, self._limit.ask_s
        if now_s - self._unanswered_s > ask_s and now_s - self._asked_s > ask_s:
            seat.doubt(self._asked)
        if seat.holder != self._asked:
            self._asked, self._asked_s = seat.holder, now_s
        return self._asked

    def _next_frame(self, home: str, now_s: float) -> Frame:
        limit = self._limit
        for waiter in self._waiters:
            waiter.asked_s = min(waiter.asked_s, now_s)
        if self._account is None or self._lender != home:
            if self._opening != home:
                self._opening = home
                self._nonce += 1
            return Open(limit.name, limit.terms, self._boot, self._nonce)
        return Ask(
            limit.name,
            *self._account,
            now_s,
            self.holdings.granted,
            self.holdings.returned,
            self._want,
            self._demand.rate,
        )

    def _is_due(self, now_s: float) -> bool:
        if self._is_new and now_s >= self._sent_s + self._limit.tick_s * _HURRY:
            return True
        if now_s < self._sent_s + self._interval_s(now_s):
            return False
        return self._has_news or self._is_to_renew(now_s)

    @property
    def _is_new(self) -> bool:
        """Whether somebody waits of whom the home has not been told: the last."""
        waiters = self._waiters
        return bool(waiters) and waiters[-1].asked_s == _NEVER

    def _interval_s(self, now_s: float) -> float:
        """Return how often to say something.

        Seldom to a home that is silent, and not each tick to one that knows what
        is wanted and will send it when it has it.
        """
        limit = self._limit
        tick_s = limit.tick_s
        if now_s - self._unanswered_s > 2.0 * limit.lease_s:
            return max(tick_s, limit.lease_s / 2.0)
        is_known = self._unanswered_s == _NEVER and self._changed_s <= self._sent_s
        is_dry = is_known and self._dry_until_s > self._answered_s
        return min(_DRY_TICKS * tick_s, limit.lease_s / 4.0) if is_dry else tick_s

    @property
    def _has_news(self) -> bool:
        """Whether it wants something, or gave back what the home may not know."""
        if self._is_missed:
            return True
        if self._account is None:
            return self._want > 0
        return self._want > 0 or self._changed_s > self._answered_s

    def _is_to_renew(self, now_s: float) -> bool:
        """Whether the lease has run for a quarter."""
        if self._account is None or not self.holdings.held:
            return False
        return now_s >= self._answered_s + self._limit.lease_s / 4.0

    def _next_deadline(self, now_s: float) -> float:
        tick_s = self._limit.tick_s
        if self._waiters:
            first_s = self._waiters[0].until_s
            hurry_s = self._sent_s + tick_s * _HURRY if self._is_new else _NEVER
            return min(first_s, hurry_s, now_s + tick_s)
        demand = self._demand
        is_idle = demand.count == demand.ahead == 0 and not self.holdings.held
        return _NEVER if is_idle and not self._has_news else now_s + tick_s

    # --- word from the home ---------------------------------------------------------

    def offered(self, sender: str, frame: Offer, now_s: float) -> list[Effect]:
        """Take up an account, if it is the one that was asked for.

        Who offers one lends in the place of who did before: that one's is over.
        """
        is_ours = (frame.boot, frame.nonce) == (self._boot, self._nonce)
        if self._opening != sender or not is_ours:
            return []
        if self._account is not None:
            if self._lender == sender:
                return []
            self._drop()
        self._lender = sender
        self._account = frame.home_boot, frame.account
        self._answered_s = self._changed_s = self._sent_s = -_NEVER
        self._unanswered_s = _NEVER
        return self.advance(now_s)

    def granted(self, sender: str, frame: Grant, now_s: float) -> list[Effect]:
        """Take note of what is lent, and answer those who wait."""
        if not self._is_of_account(sender, frame):
            return []
        self.holdings.pass_time(now_s)
        self.holdings.renew(frame.granted, frame.echo_s, self._limit.lease_s)
        if frame.echo_s >= self._answered_s:
            self._answered_s = frame.echo_s
            self._cap = frame.cap
            self._lends_s = now_s + frame.wait_s
            self.holdings.most = frame.cap if frame.is_firm else _NEVER
        self.holdings.pass_time(now_s)
        if frame.echo_s >= self._sent_s:
            self._unanswered_s = _NEVER
        effects = self._answer(now_s, heard_s=frame.echo_s) if self._waiters else []
        self._want = self._wanted()
        if self._want and frame.echo_s >= self._sent_s:
            self._dry_until_s = now_s + self._limit.tick_s
        self._wake_by(now_s + self._limit.tick_s)
        return effects

    def closed(self, sender: str, frame: Closed, now_s: float) -> list[Effect]:
        """Give up the account, if it is the one of now, and ask for another."""
        if not self._is_of_account(sender, frame):
            return []
        self._drop()
        self._nonce += 1
        self._sent_s = -_NEVER
        return self.advance(now_s)

    def _is_of_account(self, sender: str, frame: Grant | Closed) -> bool:
        number = frame.home_boot, frame.account
        return sender == self._lender and number == self._account

    def _drop(self) -> None:
        """Hold nothing that was lent any more."""
        self.holdings.drop()
        self._account = None
        self._cap = NO_CAP
        self._returned = 0
        self._lends_s = -_NEVER

    def _answer(self, now_s: float, *, heard_s: float) -> list[Effect]:
        """Answer those who wait, in their order, as far as something is known.

        Args:
            now_s: by the node's clock.
            heard_s: the home has answered what was sent until then.
        """
        effects: list[Effect] = []
        waiting: deque[Waiter] = deque()
        for waiter in self._waiters:
            outcome: Granted | Denied | None = self.holdings.take(waiter.permits, now_s)
            if outcome is None:
                if now_s < waiter.until_s and heard_s < waiter.asked_s:
                    waiting.append(waiter)
                    continue
                outcome = Denied(self.retry_after_s(waiter.permits, now_s))
            effects.append(Answered(self._limit.name, waiter.ticket, outcome))
        self._waiters = waiting
        return effects
