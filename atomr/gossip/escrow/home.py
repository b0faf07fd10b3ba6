"""The home of a limit: it lends the pool, and knows at least what is out.

::

    Open ──▶ offered ──first Ask──▶ live ──lapse and a window──▶ closed
                                     └────another is opened────▶ closed

For each lessee there is one live account at most.  What is out on it is
``granted - returned``: never less than what the lessee holds, as ``granted`` is
counted before it is sent and ``returned`` after it was given up.

A permit is lent again when the lessee gave it back, or when its account is
closed: the lease has lapsed for certain (:attr:`Limit.lapse_s` after the last
word of the lessee), and a window more has passed, so that its last use has
cooled.  An account that another one replaces is closed in the same way.  A home
that starts does not know what its earlier life lent, and lends nothing for as
long.

Where the pool becomes smaller than what is out, each lessee is told its part of it
(:attr:`Account.most`), until enough has come back.

Pure: times are arguments, in seconds of the home's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.escrow.cooling import Cooling
from atomr.gossip.escrow.frames import NO_CAP, Ask, Closed, Grant, Offer, Open, Refused
from atomr.gossip.escrow.outcomes import Effect, Send, TermsDiffer
from atomr.gossip.escrow.sharing import SLACK, Claim, parts, shares

if TYPE_CHECKING:
    from atomr.gossip.escrow.limit import Limit

_NEVER = float("inf")

MAX_LESSEES = 256
"""Names that may have an account; the voters always may."""

_MAX_RATE = 1e12


class Account:
    """What one lessee was lent.

    Attributes:
        number: no other account of this life has it.
        granted: total lent.
        returned: total that was given back, as far as is known.
        echo_s: latest time of the lessee's clock that was seen.
        lapse_s: when the lease has ended for certain, by the home's clock.
        want: how many more the lessee could use.
        rate: what it is asked for a second.
        most: of what is out, so much may be used; None: all of it.
    """

    __slots__ = (
        "echo_s",
        "granted",
        "lapse_s",
        "most",
        "number",
        "rate",
        "returned",
        "want",
    )

    def __init__(self, number: int) -> None:
        """Start with nothing lent."""
        self.number = number
        self.granted = self.returned = self.want = 0
        self.echo_s = self.lapse_s = -_NEVER
        self.rate = 0.0
        self.most: int | None = None

    @property
    def out(self) -> int:
        """At least what the lessee holds."""
        return self.granted - self.returned


class Home:
    """Lends the pool of one limit.

    Attributes:
        accounts: the live ones, by the lessee's name.
    """

    __slots__ = (
        "_alone_from_s",
        "_boot",
        "_closing",
        "_forgotten_s",
        "_limit",
        "_numbers",
        "_offered",
        "accounts",
    )

    def __init__(self, limit: Limit, *, boot: int, at_s: float) -> None:
        """Start to lend what an earlier life may have lent when it is safe.

        Args:
            limit: its terms.
            boot: of the home's life.
            at_s: when an earlier life ended, at the latest; others may have lent since,
                which :meth:`take_over` says.
        """
        self._limit = limit
        self._boot = boot
        self._numbers = 0
        self._offered: dict[str, tuple[int, int, int]] = {}
        self.accounts: dict[str, Account] = {}
        self._begin(at_s)

    def _begin(self, at_s: float) -> None:
        """Know nothing of what was lent until then."""
        limit = self._limit
        self._alone_from_s = at_s
        self._closing = Cooling(cooling_s=limit.cooling_s, batch_s=limit.batch_s)
        self._forgotten_s = at_s + limit.lapse_s
        self._lock_forgotten(limit.pool, at_s)

    def take_over(self, at_s: float) -> None:
        """Lend what others may have lent until then when it is safe.

        Args:
            at_s: nobody else has lent after that.  What was known of the time before
                is over, where it is new.
        """
        if at_s > self._alone_from_s:
            self._offered.clear()
            self.accounts.clear()
            self._begin(at_s)

    def _lock_forgotten(self, permits: int, now_s: float) -> None:
        """Lend what an earlier life may have lent, whose pool is not known, later."""
        if now_s < self._forgotten_s + self._limit.cooling_s and permits > 0:
            self._closing.add(permits, self._forgotten_s)

    @property
    def free(self) -> int:
        """What may be lent now, as of the latest event."""
        out = 0
        for account in self.accounts.values():
            out += account.granted - account.returned
        return self._limit.pool - out - self._closing.count

    def next_deadline_s(self, now_s: float) -> float:
        """Return when there may be more to lend to somebody who waits for it."""
        is_wanted, due_s = False, self._closing.next_s
        for account in self.accounts.values():
            is_wanted = is_wanted or (account.want > 0 and now_s < account.lapse_s)
            closes_s = self._closes_s(account)
            if closes_s < due_s and account.granted > account.returned:
                due_s = closes_s
        return due_s if is_wanted else _NEVER

    def _closes_s(self, account: Account) -> float:
        return account.lapse_s + self._limit.cooling_s

    def resize(self, limit: Limit, now_s: float) -> list[Effect]:
        """Lend another pool; where more is out than it has, each has a part of it."""
        self._lock_forgotten(limit.pool - self._limit.pool, now_s)
        self._limit = limit
        self._close_lapsed(now_s)
        out = sum(account.out for account in self.accounts.values())
        left = max(0, limit.pool - self._closing.count)
        for account in self.accounts.values():
            # Of what it may hold now: another change before may have lowered that.
            holds = account.out if account.most is None else account.most
            part = account.out * left // max(1, out)
            account.most = min(holds, part) if out > left else None
        effects = self.lend(now_s)
        for lessee, account in self.accounts.items():
            if account.most is not None:
                effects.append(Send(lessee, self._grant(account, NO_CAP, now_s)))
        return effects

    # --- accounts -------------------------------------------------------------------

    def open(self, lessee: str, frame: Open) -> list[Effect]:
        """Offer an account; nothing is lent before the lessee takes it up."""
        limit = self._limit
        if frame.terms != limit.terms:
            refused = Refused(limit.name, limit.terms, frame.boot, frame.nonce)
            return [Send(lessee, refused), TermsDiffer(limit.name, lessee)]
        if not self._has_room(lessee):
            return []
        boot, nonce, number = self._offered.get(lessee, (0, 0, 0))
        if (boot, nonce) != (frame.boot, frame.nonce) or not number:
            self._numbers = number = self._numbers + 1
            self._offered[lessee] = frame.boot, frame.nonce, number
        offer = Offer(limit.name, frame.boot, frame.nonce, self._boot, number)
        return [Send(lessee, offer)]

    def _has_room(self, lessee: str) -> bool:
        known = self._offered.keys() | self.accounts.keys()
        voters = self._limit.voters
        return lessee in voters or lessee in known or len(known) < MAX_LESSEES

    def ask(self, lessee: str, frame: Ask, now_s: float) -> list[Effect]:
        """Take note of how a lessee stands, and lend what is free."""
        account = self._account(lessee, frame, now_s)
        if account is None:
            closed = Closed(frame.limit, frame.home_boot, frame.account)
            return [Send(lessee, closed)]
        account.returned = max(account.returned, min(frame.returned, account.granted))
        account.lapse_s = max(account.lapse_s, now_s + self._limit.lapse_s)
        if frame.sent_s >= account.echo_s:
            account.echo_s = frame.sent_s
            on_its_way = account.granted - min(frame.seen, account.granted)
            account.want = max(0, frame.want - on_its_way)
            account.rate = frame.rate if 0.0 <= frame.rate <= _MAX_RATE else 0.0
        return self.lend(now_s, asked_by=lessee)

    def _account(self, lessee: str, frame: Ask, now_s: float) -> Account | None:
        """Return the account of an ask, opened if it was offered; None: closed."""
        if frame.home_boot != self._boot:
            return None
        account = self.accounts.get(lessee)
        if account is not None and account.number == frame.account:
            return account
        offered = self._offered.get(lessee)
        if offered is None or offered[2] != frame.account:
            return None
        del self._offered[lessee]
        if account is not None:
            self._close(lessee, now_s)
        account = self.accounts[lessee] = Account(frame.account)
        return account

    def _close(self, lessee: str, now_s: float) -> None:
        """Let what is out cool, from when it cannot be used any more."""
        account = self.accounts.pop(lessee)
        if account.out:
            self._closing.add(account.out, max(now_s, account.lapse_s))

    def _close_lapsed(self, now_s: float) -> None:
        self._closing.thaw(now_s)
        lapsed = [
            lessee
            for lessee, account in self.accounts.items()
            if now_s >= account.lapse_s and now_s >= self._closes_s(account)
        ]
        for lessee in lapsed:
            del self.accounts[lessee]

    # --- lending --------------------------------------------------------------------

    def lend(self, now_s: float, *, asked_by: str | None = None) -> list[Effect]:
        """Lend what is free to those who want it.

        Args:
            now_s: by the home's clock.
            asked_by: gets an answer in any case; it renews its lease.
        """
        self._close_lapsed(now_s)
        free = self.free
        if free >= 0:
            for account in self.accounts.values():
                account.most = None
        heard = {n: a for n, a in self.accounts.items() if now_s < a.lapse_s}
        told = set() if asked_by is None else {asked_by}
        if free > 0:
            told |= self._give(free, heard)
        if not told:
            return []
        caps = self._caps(heard)
        return [
            Send(lessee, self._grant(account, caps.get(lessee, NO_CAP), now_s))
            for lessee, account in heard.items()
            if lessee in told
        ]

    def _give(self, free: int, heard: dict[str, Account]) -> set[str]:
        """Lend what is free, and return to whom."""
        wanting = {n: a for n, a in heard.items() if a.want}
        claims = [
            Claim(account.want, account.out, self._needs(account))
            for account in wanting.values()
        ]
        lent = set()
        given = shares(free, self._limit.pool, claims)
        for (lessee, account), share in zip(wanting.items(), given, strict=True):
            if share:
                account.granted += share
                account.want -= share
                lent.add(lessee)
        return lent

    def _needs(self, account: Account) -> float:
        """Return what it would have to hold, lent, to meet the demand there."""
        return max(account.rate * self._limit.cooling_s - self._limit.floor, 0.0)

    def _caps(self, heard: dict[str, Account]) -> dict[str, int]:
        """Return how much each may hold; empty while there is enough for all."""
        for account in heard.values():
            if account.want:
                break
        else:
            return {}
        needs = [self._needs(account) for account in heard.values()]
        pool = self._limit.pool
        if sum(needs) <= pool:
            return {}
        entitled = parts(pool, needs)
        return {
            lessee: int(part * SLACK) + 1
            for lessee, part in zip(heard, entitled, strict=True)
        }

    def _grant(self, account: Account, cap: int, now_s: float) -> Grant:
        lends_s = self._forgotten_s + self._limit.cooling_s
        return Grant(
            self._limit.name,
            self._boot,
            account.number,
            account.granted,
            account.echo_s,
            cap if account.most is None else account.most,
            is_firm=account.most is not None,
            wait_s=max(0.0, lends_s - now_s),
        )
