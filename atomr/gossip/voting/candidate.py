"""The candidate's side of a lease: it asks, holds, renews, stops in time, hands over.

::

    idle ──Stand──▶ waiting ──its turn──▶ polling ──a majority is free──▶ asking
    asking ──a majority voted──▶ holding ──Leave, or no majority──▶ stopping
    polling, asking ──others have it, or nobody answers──▶ waiting
    stopping ──Stopped──▶ waiting, or idle after Leave
    holding, stopping ──the lease ends──▶ waiting, or idle after Leave

It polls first, so that a node that nobody answers, or that comes in between, takes
no vote from anybody.  Who got no majority gives its votes back, and waits for a time
that is drawn, so that two that came at once are not at once again.

A lease counts from when it was asked for.  The majority of the votes ends when the
first voter of the last majority does, and the holder stops ``stop_s`` before.

Pure: the clock and what is drawn are arguments.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from atomr.gossip.voting.events import Effect, Lost, Send, Stop, TermsDiffer, Why, Won
from atomr.gossip.voting.frames import (
    Ask,
    Busy,
    Free,
    GivenUp,
    Granted,
    Poll,
    Refused,
    Yield,
    believed,
)
from atomr.gossip.voting.votes import Votes

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.crdt.origin import Origin
    from atomr.gossip.voting.terms import Terms

_NEVER = float("inf")

_TICK = 1 / 12
"""Of a lease: what was not answered is asked again so often."""

_ANSWER = 1 / 2
"""Of a lease: an attempt that has no majority after that is given up."""

_CONTEST = 1 / 6
"""Of a lease: an attempt that meets another is given up sooner, by a time drawn up to
that, so that the other one has a majority; the missing voters may never answer."""

_RENEW = 1 / 3
"""Of a lease: a vote is asked for again so often."""

_SPREAD = 1 / 10
"""Of a lease: candidates that wait for the same thing are spread over that."""

_RESERVE = 0.6
"""Of a lease: others leave so much time to an heir; more than the voters do."""

_MOST_DOUBLINGS = 2


class Phase(Enum):
    """What a candidate is about."""

    IDLE = "idle"
    WAITING = "waiting"
    POLLING = "polling"
    ASKING = "asking"
    HOLDING = "holding"
    STOPPING = "stopping"


HOLDS = (Phase.HOLDING, Phase.STOPPING)
"""The lease is this node's, as far as it knows."""

_TRIES = (Phase.POLLING, Phase.ASKING)


class Candidate:
    """Wants the lease, or not, or has it.

    Attributes:
        phase: what it is about.
        out: where effects go.
        seen: who was last said to hold the lease; empty: not known.
        alone_from_s: nobody else has held it after that, and before our latest term.
    """

    __slots__ = (
        "_attempt",
        "_draw",
        "_failures",
        "_heir",
        "_heir_at",
        "_heir_of",
        "_is_contested",
        "_is_leaving",
        "_me",
        "_term",
        "_terms",
        "_tick_at",
        "_try_at",
        "_votes",
        "alone_from_s",
        "out",
        "phase",
        "seen",
    )

    def __init__(
        self, terms: Terms, me: Origin, *, draw: Callable[[], float], epoch: int
    ) -> None:
        """Start without wanting anything.

        Args:
            terms: of the lease.
            me: this node, in this life.
            draw: returns a number from 0 to below 1.
            epoch: at least that of any term that has ended before.
        """
        self._terms = terms
        self._me = me
        self._draw = draw
        self._attempt = 0
        self._term = -1
        self.alone_from_s = -_NEVER
        self._failures = 0
        self._votes = Votes(terms, highest=epoch)
        self._heir = ""
        self._heir_of: GivenUp | None = None
        self._heir_at = -1
        self._is_leaving = self._is_contested = False
        self._try_at = self._tick_at = _NEVER
        self.phase = Phase.IDLE
        self.out: list[Effect] = []
        self.seen = ""

    # --- to look at -----------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Of the term that is held, or asked for."""
        return self._votes.epoch

    @property
    def until_s(self) -> float:
        """When the lease ends, as far as is known; past where none is held."""
        return self._votes.until_s if self.phase in HOLDS else -_NEVER

    @property
    def due_at(self) -> float:
        """When :meth:`due` has something to do; infinite: never."""
        match self.phase:
            case Phase.IDLE:
                return _NEVER
            case Phase.WAITING:
                return self._try_at
            case Phase.POLLING | Phase.ASKING:
                return min(self._tick_at, self._try_at)
            case Phase.HOLDING:
                return min(self._tick_at, self._votes.until_s - self._terms.stop_s)
            case Phase.STOPPING:
                return min(self._tick_at, self._votes.until_s)

    def _in(self, share: float, now_s: float) -> float:
        return now_s + share * self._terms.lease_s

    # --- what is wanted -------------------------------------------------------------

    def stand(self, now_s: float) -> None:
        """Want the lease from now on."""
        self._is_leaving = False
        self._heir = ""
        if self.phase is Phase.IDLE:
            self._wait(now_s)

    def leave(self, heir: str, now_s: float) -> None:
        """Want it no more; a holder ends its work first."""
        self._is_leaving = True
        self._heir = heir
        if self.phase is Phase.HOLDING:
            self._stop(Why.LEAVING)
        elif self.phase is not Phase.STOPPING:
            self._give_up(now_s)

    def stopped(self, now_s: float) -> None:
        """Give the votes back: nothing is done by them any more."""
        if self.phase in HOLDS:
            self._give_up(now_s, heir=self._heir)

    # --- waiting --------------------------------------------------------------------

    def wait_until(self, at_s: float, holder: str = "") -> None:
        """Try at that time, or some time after."""
        if holder:
            self.seen = holder
        self._try_at = at_s + self._draw() * self._terms.lease_s * _SPREAD
        self._attempt += 1
        self._heir_of = None
        self.phase = Phase.WAITING

    def _wait(self, at_s: float) -> None:
        if self._is_leaving:
            self._attempt += 1
            self.phase = Phase.IDLE
        else:
            self.wait_until(at_s)

    def _back_off(self, now_s: float) -> None:
        doubled = 1 << min(self._failures, _MOST_DOUBLINGS)
        self._failures += 1
        self._wait(self._in(self._draw() * _SPREAD * doubled, now_s))

    def _give_up(self, now_s: float, *, heir: str = "") -> None:
        """End the attempt, and say so to who may have voted."""
        was = self.phase
        if was in HOLDS or was is Phase.ASKING:
            attempt, epoch = self._attempt, self._votes.highest
            said = Yield(self._terms.name, self._me.boot, attempt, epoch, heir)
            told = {*self._terms.voters, heir} if heir else self._terms.voters
            self.out += [Send(voter, said) for voter in sorted(told)]
        if heir:
            self._wait(self._in(_RESERVE, now_s))
        else:
            self._back_off(now_s)

    # --- trying ---------------------------------------------------------------------

    def poll(self, now_s: float) -> None:
        """Ask all voters whether they are free."""
        self._votes = Votes(self._terms, highest=self._votes.highest)
        self.phase = Phase.POLLING
        self._try_at = self._in(_ANSWER, now_s)
        self._poll(now_s)

    def _poll(self, now_s: float) -> None:
        terms = self._terms
        said = Poll(terms.name, terms.fingerprint, self._me.boot, self._attempt)
        self.out += [Send(voter, said) for voter in terms.voters]
        self._tick_at = self._in(_TICK, now_s)

    def _begin(self, now_s: float) -> None:
        """Ask for the votes of a term of its own."""
        if self._votes.are_over:
            # A term without an epoch of its own would be two holders' at once.
            self._back_off(now_s)
            return
        self.phase = Phase.ASKING
        self._is_contested = False
        self._try_at = self._in(_ANSWER, now_s)
        self._votes.rise()
        self._ask(self._terms.voters, now_s)

    def _ask(self, voters: tuple[str, ...] | list[str], now_s: float) -> None:
        terms = self._terms
        said = Ask(
            terms.name,
            terms.fingerprint,
            self._me.boot,
            self._attempt,
            self._votes.epoch,
            now_s,
            self._heir_of,
        )
        self.out += [Send(voter, said) for voter in voters]
        self._tick_at = self._in(_TICK, now_s)

    # --- hearing --------------------------------------------------------------------

    def hear(self, voter: str, frame: Free | Busy | Granted, now_s: float) -> None:
        """Take a voter's answer, if it is to this attempt."""
        is_ours = frame.boot == self._me.boot and frame.attempt == self._attempt
        if not is_ours or voter not in self._terms.voters:
            return
        match frame:
            case Free():
                self._hear_free(voter, frame, now_s)
            case Busy():
                self._hear_busy(voter, frame, now_s)
            case Granted():
                self._hear_granted(voter, frame, now_s)

    def _hear_free(self, voter: str, frame: Free, now_s: float) -> None:
        if self.phase is Phase.POLLING:
            self._votes.free(voter, frame.epoch)
            if self._votes.are_free:
                self._begin(now_s)

    def _hear_busy(self, voter: str, frame: Busy, now_s: float) -> None:
        if self.phase not in _TRIES:
            return
        votes = self._votes
        votes.busy(voter, frame, now_s)
        self.seen = frame.holder or self.seen
        if self.phase is Phase.POLLING:
            if votes.are_busy:
                self.wait_until(votes.free_at(now_s))
        elif votes.are_busy:
            self._give_up(now_s)
        elif not self._is_contested:
            self._is_contested = True
            share = _TICK + self._draw() * _CONTEST
            self._try_at = min(self._try_at, self._in(share, now_s))

    def _hear_granted(self, voter: str, frame: Granted, now_s: float) -> None:
        votes = self._votes
        is_known = votes.granted(voter, frame)
        votes.alone(voter, frame, now_s)
        if self.phase is not Phase.ASKING:
            return
        if is_known and votes.are_over:
            self._give_up(now_s)
        elif is_known:
            votes.rise()
            self._ask(self._terms.voters, now_s)
        elif votes.confirmed_until_s() - self._terms.stop_s > now_s:
            self.phase = Phase.HOLDING
            if votes.since() > self._term:
                self.alone_from_s = votes.alone_from_s()
            self._term = self._attempt
            self._failures = 0
            given, self._heir_of = self._heir_of, None
            # One that is tried again is waited for as any other.
            is_heir = self._heir_at == self._attempt
            self.seen = self._me.name
            self.out.append(Won(votes.epoch, given.name if given and is_heir else ""))

    def refused(self, voter: str, frame: Refused) -> None:
        """Say that a voter has other terms."""
        if frame.boot == self._me.boot and self.phase in _TRIES:
            self.out.append(TermsDiffer(voter))

    def yielded(self, candidate: Origin, frame: Yield, now_s: float) -> None:
        """Try soon, as somebody gave the lease back; at once, if it is given to us."""
        if self.phase not in (Phase.WAITING, Phase.POLLING):
            return
        if frame.heir == self._me.name:
            highest = believed(self._votes.highest, frame.epoch)
            self._votes = Votes(self._terms, highest=highest)
            self._attempt += 1
            self._heir_at = self._attempt
            self._heir_of = GivenUp(candidate.name, candidate.boot, frame.attempt)
            self._begin(now_s)
        else:
            self.wait_until(self._in(_RESERVE if frame.heir else 0.0, now_s))

    # --- time -----------------------------------------------------------------------

    def notice_end(self, now_s: float) -> None:
        """Say so if the lease has ended; before all else, as time may have stood."""
        if self.phase in HOLDS and now_s >= self._votes.until_s:
            self.out.append(Lost(self._votes.epoch))
            self._wait(now_s)

    def due(self, now_s: float) -> None:
        """Do what the time has come for."""
        if self.phase in HOLDS:
            self._keep(now_s)
        elif self.phase in _TRIES:
            if now_s >= self._try_at:
                self._give_up(now_s)
            elif now_s >= self._tick_at:
                self._again(now_s)

    @property
    def wants_to_try(self) -> bool:
        """Whether it waits for a time to try."""
        return self.phase is Phase.WAITING

    @property
    def try_at(self) -> float:
        """When it tries, or gives an attempt up."""
        return self._try_at

    def _again(self, now_s: float) -> None:
        if self.phase is Phase.POLLING:
            self._poll(now_s)
        else:
            self._ask(self._terms.voters, now_s)

    def _keep(self, now_s: float) -> None:
        terms, votes = self._terms, self._votes
        if now_s >= self._tick_at:
            fresh_s = now_s + terms.lease_s * (1 - _RENEW)
            self._ask(votes.stale(fresh_s), now_s)
        is_late = now_s >= votes.until_s - terms.stop_s
        if self.phase is Phase.HOLDING and is_late:
            self._stop(Why.NO_MAJORITY)

    def _stop(self, why: Why) -> None:
        self.phase = Phase.STOPPING
        self.out.append(Stop(self._votes.epoch, why))
