"""The votes of one attempt, and until when they are worth anything.

Pure: times are arguments, in seconds of the candidate's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.voting.frames import LAST_EPOCH, believed
from atomr.gossip.voting.terms import DRIFT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.gossip.voting.frames import Busy, Granted
    from atomr.gossip.voting.terms import Terms

_NEVER = float("-inf")


class Votes:
    """What the voters have said to one attempt.

    Attributes:
        epoch: what the attempt's term is, or would be, called.
        highest: the largest epoch that a voter knew of.
        until_s: until then a majority has given its votes, at least; minus infinity:
            none has.
    """

    __slots__ = (
        "_alone_from_s",
        "_busy",
        "_confirmed",
        "_free",
        "_since",
        "_terms",
        "_until_s",
        "epoch",
        "highest",
        "until_s",
    )

    def __init__(self, terms: Terms, *, highest: int) -> None:
        """Start without any."""
        self._terms = terms
        self._free: set[str] = set()
        self._busy: dict[str, float] = {}
        self._until_s: dict[str, float] = {}
        self._confirmed: set[str] = set()
        self._alone_from_s: dict[str, float] = {}
        self._since: dict[str, int] = {}
        self.epoch = 0
        self.highest = highest
        self.until_s = _NEVER

    # --- a poll ---------------------------------------------------------------------

    def free(self, voter: str, epoch: int) -> None:
        """Note that a voter would give its vote."""
        self.highest = believed(self.highest, epoch)
        self._busy.pop(voter, None)
        self._free.add(voter)

    def busy(self, voter: str, frame: Busy, now_s: float) -> None:
        """Note that a voter has given its vote to another."""
        self.highest = believed(self.highest, frame.epoch)
        self._free.discard(voter)
        self._busy[voter] = now_s + frame.left_s

    @property
    def are_free(self) -> bool:
        """Whether a majority would give its votes."""
        return len(self._free) >= self._terms.majority

    @property
    def are_busy(self) -> bool:
        """Whether so many are given to others that no majority is left."""
        left = len(self._terms.voters) - len(self._busy)
        return left < self._terms.majority

    def free_at(self, now_s: float) -> float:
        """Return when a majority may be free again, if none is given once more."""
        at = sorted(self._busy.get(voter, now_s) for voter in self._terms.voters)
        return max(now_s, at[self._terms.majority - 1])

    # --- votes ----------------------------------------------------------------------

    @property
    def are_over(self) -> bool:
        """Whether there is no epoch left: peers made them up, again and again."""
        return self.highest >= LAST_EPOCH

    def rise(self) -> int:
        """Return an epoch for the term that no voter has said to know of."""
        self.epoch = self.highest = self.highest + 1
        self._confirmed.clear()
        return self.epoch

    def granted(self, voter: str, frame: Granted) -> bool:
        """Count a vote.

        Returns:
            Whether the voter knows of an epoch, not ours, that ours must exceed.
        """
        self._busy.pop(voter, None)
        self.highest = believed(self.highest, frame.epoch)
        until_s = frame.sent_s + self._terms.lease_s
        self._until_s[voter] = max(until_s, self._until_s.get(voter, _NEVER))
        # Here, as a holder is asked for it at whatever happens.
        self.until_s = self._last(self._until_s)
        if frame.is_yours:
            if frame.epoch == self.epoch:
                self._confirmed.add(voter)
            return False
        return frame.epoch >= self.epoch

    def alone(self, voter: str, frame: Granted, now_s: float) -> None:
        """Note since when a vote has been nobody else's."""
        # The voter's clock may be fast, and ours slow.
        from_s = now_s - max(0.0, frame.alone_s) * (1.0 - DRIFT) / (1.0 + DRIFT)
        known_s = self._alone_from_s.get(voter, _NEVER)
        self._alone_from_s[voter] = max(from_s, known_s)
        self._since[voter] = max(frame.since, self._since.get(voter, 0))

    def alone_from_s(self) -> float:
        """Return a time after which nobody else can have held the lease.

        Each holder had a voter of the majority that says so.
        """
        return sorted(self._alone_from_s.values())[self._terms.majority - 1]

    def since(self) -> int:
        """Return our attempt from which on nobody else can have held the lease."""
        return sorted(self._since.values())[self._terms.majority - 1]

    def confirmed_until_s(self) -> float:
        """Return the same as ``until_s`` for voters that know of the term's epoch."""
        return self._last(self._confirmed)

    def _last(self, voters: Iterable[str]) -> float:
        times = sorted((self._until_s[voter] for voter in voters), reverse=True)
        majority = self._terms.majority
        return times[majority - 1] if len(times) >= majority else _NEVER

    def stale(self, before_s: float) -> list[str]:
        """Return the voters whose votes end before that, or that gave none."""
        until_s = self._until_s
        return [v for v in self._terms.voters if until_s.get(v, _NEVER) < before_s]
