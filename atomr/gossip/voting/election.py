"""One lease as one node sees it: its vote, if it has one, and its candidacy.

Each step answers in order: has the lease ended meanwhile (then nothing else counts),
what has happened, and what is due.

Pure: the clock and what is drawn are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.crdt.origin import Origin
from atomr.gossip.voting.candidate import HOLDS, Candidate, Phase
from atomr.gossip.voting.events import (
    Event,
    Leave,
    Received,
    Send,
    Stand,
    Stopped,
    Woke,
)
from atomr.gossip.voting.frames import (
    Ask,
    Busy,
    Free,
    Granted,
    Poll,
    Refused,
    Yield,
)
from atomr.gossip.voting.voter import Voter, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.gossip.voting.events import Effect
    from atomr.gossip.voting.frames import Frame
    from atomr.gossip.voting.terms import Terms

_NEVER = float("inf")


class Election:
    """One lease, for one node.

    Attributes:
        terms: of the lease.
        me: this node, in this life.
    """

    __slots__ = ("_candidate", "_out", "_voter", "me", "terms")

    def __init__(
        self,
        terms: Terms,
        me: Origin,
        *,
        draw: Callable[[], float],
        epoch: int,
        now_s: float,
    ) -> None:
        """Start without wanting the lease.

        Args:
            terms: of the lease.
            me: this node, in this life.
            draw: returns a number from 0 to below 1: the node's own generator.
            epoch: at least that of any term that has ended before: microseconds of
                the wall clock will do, as terms are longer than that.  A majority
                of voters that run remembers better than that; it counts when more
                have restarted.
            now_s: monotonic seconds of this node, as in each step; the clock must
                go on while the machine sleeps.  Earlier, where no earlier life has
                run since; minus infinity, where there was none.
        """
        self.terms = terms
        self.me = me
        is_voter = me.name in terms.voters
        self._voter = Voter(terms, epoch=epoch, now_s=now_s) if is_voter else None
        self._candidate = Candidate(terms, me, draw=draw, epoch=epoch)
        self._out: list[Effect] = []

    # --- to look at -----------------------------------------------------------------

    @property
    def next_deadline_s(self) -> float | None:
        """When the next :class:`Woke` is due; None: at no time."""
        due_at = self._candidate.due_at
        return None if due_at == _NEVER else due_at

    @property
    def phase(self) -> Phase:
        """What the candidate is about."""
        return self._candidate.phase

    @property
    def epoch(self) -> int:
        """Of the term that is held, or was until its end is noticed; 0: none is."""
        candidate = self._candidate
        return candidate.epoch if candidate.phase in HOLDS else 0

    @property
    def until_s(self) -> float:
        """When the lease ends that is held, unless it is renewed; else past."""
        return self._candidate.until_s

    @property
    def alone_from_s(self) -> float:
        """A time after which nobody but this node, in this life, has held the lease.

        Until the end of its latest term; minus infinity before the first.
        """
        return self._candidate.alone_from_s

    @property
    def seen(self) -> str:
        """Who has this node's vote, or is said to hold the lease; empty: nobody."""
        given_to = "" if self._voter is None else self._voter.given_to
        return given_to or self._candidate.seen

    def holds(self, now_s: float) -> int | None:
        """Return the epoch of the term that is held now; None: none is.

        To be asked before each act that only one node may do.
        """
        candidate = self._candidate
        return candidate.epoch if now_s < candidate.until_s else None

    # --- steps ----------------------------------------------------------------------

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take an event; return what is to be sent, done and known, in order."""
        self._out = out = self._candidate.out = []
        candidate = self._candidate
        candidate.notice_end(now_s)
        match event:
            case Received():
                self._receive(event.sender, event.frame, now_s)
            case Stand():
                candidate.stand(now_s)
            case Leave():
                candidate.leave(event.heir, now_s)
            case Stopped():
                candidate.stopped(now_s)
            case Woke():
                pass
        self._due(now_s)
        self._tell_myself(now_s)
        return out

    def _due(self, now_s: float) -> None:
        candidate = self._candidate
        candidate.due(now_s)
        if not candidate.wants_to_try or now_s < candidate.try_at:
            return
        # What this node's own vote is given to need not be asked of others.
        voter = self._voter
        busy = None if voter is None else voter.busy(self.me, 0, now_s)
        if busy is None:
            candidate.poll(now_s)
        else:
            candidate.wait_until(now_s + busy.left_s, busy.holder)

    def _tell_myself(self, now_s: float) -> None:
        """Hand over what is for this node, and what comes of it."""
        out, me = self._out, self.me.name
        while out:
            mine = [e for e in out if isinstance(e, Send) and e.to == me]
            if not mine:
                return
            out[:] = [e for e in out if not (isinstance(e, Send) and e.to == me)]
            for send in mine:
                self._receive(me, send.message, now_s)

    def _receive(self, sender: str, frame: Frame, now_s: float) -> None:
        if frame.lease != self.terms.name:
            return
        match frame:
            case Poll() | Ask():
                self._vote(sender, frame, now_s)
            case Free() | Busy() | Granted():
                self._candidate.hear(sender, frame, now_s)
            case Yield():
                self._yielded(Origin(sender, frame.boot), frame, now_s)
            case Refused():
                self._candidate.refused(sender, frame)

    def _vote(self, sender: str, frame: Poll | Ask, now_s: float) -> None:
        voter = self._voter
        if voter is None:
            return
        candidate = Origin(sender, frame.boot)
        answer: Frame | None = refused(self.terms, frame)
        if answer is None and isinstance(frame, Poll):
            answer = voter.poll(candidate, frame, now_s)
        elif answer is None and isinstance(frame, Ask):
            answer = voter.ask(candidate, frame, now_s)
        if answer is not None:
            self._out.append(Send(sender, answer))

    def _yielded(self, candidate: Origin, frame: Yield, now_s: float) -> None:
        if self._voter is not None:
            self._voter.gave_up(candidate, frame, now_s)
        if candidate != self.me:
            self._candidate.yielded(candidate, frame, now_s)
