"""The voter's side of a lease: one vote, given to one candidate at a time.

A vote is given for :attr:`Terms.lapse_s` from when it was asked for, by the voter's
clock.  The candidate counts :attr:`Terms.lease_s` from when it asked, by its own,
which is earlier and shorter, so it has stopped before the vote is free.

::

    may have given its vote ──a lapse after the start──▶ free
    free ──Ask──▶ given ──a lapse after the last Ask, or Yield──▶ free

A voter that starts does not know to whom it gave its vote in an earlier life, so it
gives none for as long.

It also remembers the largest epoch it was asked for, as a promise to whoever asks
next.  Any two majorities have a voter in common, so a new holder hears of it.

Pure: times are arguments, in seconds of the voter's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.crdt.origin import Origin
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

if TYPE_CHECKING:
    from atomr.gossip.voting.terms import Terms

_LONG_S = 1e12
"""For ever, as a frame says it."""

_RESERVE = 0.5
"""Of a lease: so long an heir is waited for."""


@attrs.frozen
class Vote:
    """To whom the vote is given.

    Attributes:
        to: the candidate, in one of its lives.
        attempt: the latest that asked.
        until_s: when it is free again.
    """

    to: Origin
    attempt: int
    until_s: float


class Voter:
    """Gives one vote for one lease.

    Attributes:
        epoch: the largest that is known.
    """

    __slots__ = (
        "_alone_from_s",
        "_epoch_of",
        "_given_up",
        "_heir",
        "_heir_until_s",
        "_last",
        "_ready_at",
        "_since",
        "_terms",
        "_vote",
        "epoch",
    )

    def __init__(self, terms: Terms, *, epoch: int, now_s: float) -> None:
        """Start, with what an earlier life promised still to be kept.

        Args:
            terms: of the lease.
            epoch: at least that of any term that has ended before.
            now_s: until when an earlier life may have run, by the voter's clock;
                minus infinity: there was none.
        """
        self._terms = terms
        self._ready_at = now_s + terms.lapse_s
        self._vote: Vote | None = None
        self._last: Origin | None = None
        self._alone_from_s = self._ready_at
        self._since = 0
        self._given_up: GivenUp | None = None
        self._heir = ""
        self._heir_until_s = now_s
        self._epoch_of: tuple[Origin, int] | None = None
        self.epoch = epoch

    @property
    def given_to(self) -> str:
        """Who has the vote, or had it last; empty: nobody."""
        return "" if self._vote is None else self._vote.to.name

    def poll(self, candidate: Origin, frame: Poll, now_s: float) -> Free | Busy:
        """Say whether a candidate would get the vote."""
        return self.busy(candidate, frame.attempt, now_s) or Free(
            self._terms.name, candidate.boot, frame.attempt, self.epoch
        )

    def ask(self, candidate: Origin, frame: Ask, now_s: float) -> Granted | Busy | None:
        """Give the vote, or say for how long it is another's; None: it is too late."""
        if frame.heir_of is not None:
            self._give_up(frame.heir_of)
        if self._has_given_up(candidate, frame.attempt):
            return None
        busy = self.busy(candidate, frame.attempt, now_s)
        if busy is not None:
            return busy
        self._give(candidate, frame.attempt, now_s)
        if frame.epoch > self.epoch:
            self.epoch = believed(self.epoch, frame.epoch)
            is_whole = self.epoch == frame.epoch
            self._epoch_of = (candidate, frame.attempt) if is_whole else None
        is_yours = self._epoch_of == (candidate, frame.attempt)
        return Granted(
            self._terms.name,
            candidate.boot,
            frame.attempt,
            frame.sent_s,
            self.epoch,
            is_yours,
            min(now_s - self._alone_from_s, _LONG_S),
            self._since,
        )

    def busy(self, candidate: Origin, attempt: int, now_s: float) -> Busy | None:
        """Return why a candidate would not get the vote now; None: it would."""
        holder, until_s = self._taken(candidate)
        if now_s >= until_s:
            return None
        left_s = until_s - now_s
        name = self._terms.name
        return Busy(name, candidate.boot, attempt, holder, left_s, self.epoch)

    def _taken(self, candidate: Origin) -> tuple[str, float]:
        """Return who has the vote, as far as this candidate goes, and until when."""
        vote = self._vote
        if vote is not None and vote.to != candidate:
            return vote.to.name, vote.until_s
        if vote is None and candidate.name != self._heir:
            return "", max(self._ready_at, self._heir_until_s)
        return "", self._ready_at

    def _give(self, candidate: Origin, attempt: int, now_s: float) -> None:
        vote = self._vote
        if candidate != self._last:
            # What an earlier life promised was over when this one was ready.
            self._alone_from_s = self._ready_at if self._last is None else now_s
            self._since = attempt
            self._last = candidate
        if vote is not None and vote.to == candidate:
            attempt = max(attempt, vote.attempt)
        self._vote = Vote(candidate, attempt, now_s + self._terms.lapse_s)
        self._heir_until_s = self._ready_at

    def gave_up(self, candidate: Origin, frame: Yield, now_s: float) -> None:
        """Take note that an attempt has ended: the vote is free at once."""
        self.epoch = believed(self.epoch, frame.epoch)
        if self._give_up(GivenUp(candidate.name, candidate.boot, frame.attempt)):
            self._heir = frame.heir
            reserve_s = _RESERVE * self._terms.lease_s if frame.heir else 0.0
            self._heir_until_s = now_s + reserve_s

    def _give_up(self, given_up: GivenUp) -> bool:
        """Free the vote, if it was given to this attempt or one before it."""
        vote = self._vote
        is_his = vote is not None and (
            (vote.to.name, vote.to.boot) == (given_up.name, given_up.boot)
        )
        if vote is None or not is_his or vote.attempt > given_up.attempt:
            return False
        self._vote = None
        self._given_up = given_up
        return True

    def _has_given_up(self, candidate: Origin, attempt: int) -> bool:
        """Whether an Ask comes after the Yield of its attempt.

        Only the latest is remembered: to give a vote to who wants none any more
        costs time, and no more.
        """
        last = self._given_up
        return (
            last is not None
            and (last.name, last.boot) == (candidate.name, candidate.boot)
            and attempt <= last.attempt
        )


def refused(terms: Terms, frame: Poll | Ask) -> Refused | None:
    """Return the answer to who comes with other terms; None: they are the same."""
    if frame.terms == terms.fingerprint:
        return None
    return Refused(terms.name, frame.boot, terms.fingerprint)
