"""What a node's part in limits decides: who gets permits now, and who waits.

The permits themselves are :mod:`atomr.gossip.escrow`'s.  Here is the line in front of
each limit.  Whoever finds what it wants, and nobody before it, has it at once.  The
others wait; the head of a line is tried again whenever there may be more: after word
from the home, after a settlement, and when something has cooled.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.permits.line import Difference, Part, Permits, Waiter
from atomr.cluster.permits.outcomes import LimitState
from atomr.gossip.escrow import (
    UNKNOWN,
    Answered,
    Asking,
    Denied,
    Effect,
    Escrow,
    Granted,
    Limit,
    Mark,
    Mode,
    Persist,
    Send,
    TermsDiffer,
)
from atomr.gossip.escrow.frames import Offer, Open, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.crdt.origin import Origin
    from atomr.gossip.escrow import Frame, Past

_NEVER = float("inf")

MAX_ASKED = 64
"""So many of a strict limit's line are asked for at once; of another's only the head,
as those behind it could find what it waits for."""

MAX_WAITING = 10_000
"""One more is denied at once: each is a task, and has a request in its hands."""

DIFFERS_S = 30.0
"""So long may the terms of two nodes differ before anybody is told: while a limit is
changed, or files are given out, the nodes hear of it one after the other."""

FORGOTTEN_S = 3.0 * DIFFERS_S
"""So long may a node whose terms differ be silent.  Later it may have been put right
since, and wanted nothing: it is named no more, and what differs then has just begun.
A node whose terms stay wrong, and that wants something more seldom, is not told of."""


class Core:
    """All limits of one life of a node.

    Attributes:
        boot: the number of this life.
        escrow: the permits.
        parts: by the limit's name.
        sends: frames that are to be sent, and to whom.
        marks: lines of the use log that are to be written.
        facts: what is to be told, once for as long as it lasts.
    """

    def __init__(self, me: Origin, *, voted_until_s: float = -_NEVER) -> None:
        """Start without limits.

        Args:
            me: the node, and a number that no earlier life had.
            voted_until_s: an earlier life may have voted for homes until then,
                whatever the ``past`` of limits says.
        """
        self.boot = me.boot
        self.escrow = Escrow(me, voted_until_s=voted_until_s)
        self.parts: dict[str, Part] = {}
        self.sends: list[tuple[str, Frame]] = []
        self.marks: list[Mark] = []
        self.facts: list[TermsDiffer] = []
        # Those whose lines are tried again at some time: few of many.
        self._retrying: set[Part] = set()

    # --- limits ---------------------------------------------------------------------

    def add(self, limit: Limit, now_s: float, *, past: Past = UNKNOWN) -> None:
        """Take part in a limit.

        Raises:
            ValueError: it is there already.
        """
        self.escrow.add(limit, now_s, past=past)
        self.parts[limit.name] = Part(limit)

    def resize(self, limit: Limit, now_s: float) -> None:
        """Take other terms; what is used stays so, and who waits goes on waiting.

        Raises:
            KeyError: there is no such limit here.
            ValueError: more than the permits and their division differs.
        """
        effects = self.escrow.resize(limit, now_s)
        part = self.parts[limit.name]
        part.limit = limit
        self._perform(effects, now_s)
        self._serve(part, now_s)

    def remove(self, name: str, now_s: float) -> None:
        """Take no part any more; who waits is denied.

        Raises:
            KeyError: there is no such limit here.
        """
        self.escrow.remove(name, now_s)
        part = self.parts.pop(name)
        self._retrying.discard(part)
        self._deny_all(part)

    def end(self) -> None:
        """Deny everybody who waits: this life is over."""
        for part in self.parts.values():
            self._deny_all(part)

    def _deny_all(self, part: Part) -> None:
        part.is_over = True
        for waiter in part.line.all():
            _answer(waiter, Denied(part.limit.tick_s))

    def state(self, name: str, now_s: float) -> LimitState:
        """Return how a limit stands here.

        Raises:
            KeyError: there is no such limit here.
        """
        part = self.parts[name]
        return LimitState(
            limit=part.limit,
            used=self.escrow.used(name, now_s=now_s),
            waiting=part.line.length(),
            overrun=self.escrow.overrun(name),
            differs=tuple(sorted(_differing(part, now_s))),
        )

    # --- use ------------------------------------------------------------------------

    def try_acquire(
        self, name: str, permits: int, now_s: float, *, expected: bool = False
    ) -> Permits | Denied | None:
        """Use permits that are here; None: they must be asked for, or waited for.

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``permits`` is not at least 1.
        """
        part = self.parts[name]
        if permits > part.limit.largest:
            return Denied(_NEVER)
        line = part.line
        if (line.heap or line.asked) and not line.is_empty:
            return None
        granted = self.escrow.take(name, permits, now_s=now_s, expected=expected)
        if granted is None:
            return None
        return Permits(name, permits, now_s, granted, part)

    def expect(self, name: str, permits: int) -> None:
        """Count permits that somebody will wait for.

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``permits`` is not at least 1.
        """
        self.escrow.expect(name, permits)

    def wait(self, name: str, waiter: Waiter, now_s: float) -> None:
        """Let somebody wait for permits that are expected; it may be answered at once.

        Raises:
            KeyError: there is no such limit here.
        """
        part = self.parts[name]
        if part.line.is_longer_than(MAX_WAITING - 1):
            _answer(waiter, Denied(part.limit.tick_s))
            return
        part.line.add(waiter)
        self._serve(part, now_s)

    def settle(self, permits: Permits, used: int, now_s: float) -> bool:
        """Say how many were used; of a limit that is gone, nothing is to be said.

        Returns:
            Whether somebody waited for it: then there may be something to do.

        Raises:
            ValueError: ``used`` is negative.
        """
        part = permits.part
        if part.is_over:
            return False
        self.escrow.settle(permits.limit, permits.granted, used, now_s=now_s)
        if not part.line.heap or part.line.head() is None:
            return False
        self._serve(part, now_s)
        return True

    def retry_after_s(self, name: str, permits: int, now_s: float) -> float:
        """Return when it is worth a try again, for who does not wait any longer.

        Raises:
            KeyError: there is no such limit here.
        """
        return self.escrow.retry_after_s(name, permits, now_s=now_s)

    # --- events ---------------------------------------------------------------------

    @property
    def next_deadline_s(self) -> float:
        """When :meth:`advance` is due; infinite: not before something else happens."""
        due_s = min((part.line.retry_s for part in self._retrying), default=_NEVER)
        at_s = self.escrow.next_deadline_s
        return due_s if at_s is None else min(due_s, at_s)

    def receive(self, sender: str, frame: Frame, now_s: float) -> None:
        """Handle a frame of another node."""
        part = self.parts.get(frame.limit)
        if part is not None and part.differs and _agrees(frame, part.limit):
            part.differs.pop(sender, None)
        self._perform(self.escrow.receive(sender, frame, now_s), now_s)
        if part is not None and part.line.head() is not None:
            self._serve(part, now_s)

    def advance(self, now_s: float) -> None:
        """Do what is due."""
        self._perform(self.escrow.advance(now_s), now_s)
        for part in [p for p in self._retrying if p.line.retry_s <= now_s]:
            self._serve(part, now_s)

    def persisted(self, mark: Mark) -> None:
        """A line of the use log has been written and synced."""
        self.escrow.persisted(mark)

    def _perform(self, effects: Iterable[Effect], now_s: float) -> None:
        for effect in effects:
            match effect:
                case Send(to, frame):
                    self.sends.append((to, frame))
                case Answered():
                    self._answered(effect, now_s)
                case Persist(mark):
                    self.marks.append(mark)
                case TermsDiffer():
                    self._note(effect, now_s)

    def _note(self, fact: TermsDiffer, now_s: float) -> None:
        """Have a difference told when it lasts, and not again while it does."""
        part = self.parts[fact.limit]
        known = part.differs.get(fact.peer)
        if known is None or _is_forgotten(known, part.limit, now_s):
            part.differs = _differing(part, now_s)
            known = part.differs[fact.peer] = Difference(now_s, now_s)
        known.seen_s = now_s
        if now_s - known.since_s >= DIFFERS_S:
            known.since_s = _NEVER
            self.facts.append(fact)

    def _answered(self, answered: Answered, now_s: float) -> None:
        """Hand on what the home's answer gave, or let it wait in its place again."""
        name, outcome = answered.limit, answered.outcome
        part = self.parts[name]
        line = part.line
        waiter = line.asked.pop(answered.ticket, None)
        self._try_again(part, now_s)  # for those behind it
        if isinstance(outcome, Granted):
            permits = Permits(name, outcome.permits, now_s, outcome, part)
            if waiter is None or waiter.is_over:
                self.escrow.settle(name, outcome, 0, now_s=now_s)
            else:
                _answer(waiter, permits)
        elif waiter is not None and not waiter.is_over:
            line.add(waiter)
            self._wait_for(part, outcome, now_s)

    def _wait_for(self, part: Part, denied: Denied, now_s: float) -> None:
        """Try again later; a home that is silent is to be asked again meanwhile."""
        wait_s = min(denied.retry_after_s, part.limit.lease_s)
        self._try_again(part, now_s + wait_s)

    def _try_again(self, part: Part, at_s: float) -> None:
        part.line.retry_s = at_s
        self._retrying.add(part)

    def _serve(self, part: Part, now_s: float) -> None:
        """Give to the head of a line, and those behind it, what there is."""
        name, line = part.limit.name, part.line
        line.retry_s = _NEVER
        self._retrying.discard(part)
        most = MAX_ASKED if part.limit.mode is Mode.STRICT else 1
        while len(line.asked) < most and (head := line.head()) is not None:
            outcome = self.escrow.acquire(
                name, head.permits, now_s=now_s, expected=True
            )
            if isinstance(outcome, Denied) and outcome.retry_after_s < _NEVER:
                self._wait_for(part, outcome, now_s)
                return
            line.take_head()
            match outcome:
                case Granted():
                    permits = Permits(name, head.permits, now_s, outcome, part)
                    _answer(head, permits)
                case Asking(ticket):
                    line.asked[ticket] = head
                case Denied():
                    _answer(head, outcome)


def _differing(part: Part, now_s: float) -> dict[str, Difference]:
    """Return the nodes whose terms differ, without those that are silent for long."""
    return {
        peer: known
        for peer, known in part.differs.items()
        if not _is_forgotten(known, part.limit, now_s)
    }


def _is_forgotten(known: Difference, limit: Limit, now_s: float) -> bool:
    """Whether a node would have been heard of since, if it still wanted something."""
    # Where nothing is answered, it says something each half of a lease.
    return now_s - known.seen_s > max(FORGOTTEN_S, 2.0 * limit.lease_s)


def _agrees(frame: Frame, limit: Limit) -> bool:
    """Whether a frame is of one that has the same terms."""
    if isinstance(frame, Open | Refused):
        return frame.terms == limit.terms
    return isinstance(frame, Offer)


def _answer(waiter: Waiter, outcome: Permits | Denied) -> None:
    waiter.is_over = True
    waiter.answer(outcome)
