"""Inheriting from ledgers whose files are lost.

What a lost ledger moved to others counts for them as soon as they hear of it.
So before anybody inherits the rest, each voter must have said what it has heard,
and believe no news of the lost one from then on; a message that is still under
way changes nothing then.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr.gossip.ledger.frames import Freeze, Frozen, Objects
from atomr.gossip.ledger.outcomes import Effect, Reclaimed, ReclaimFailed, Send

if TYPE_CHECKING:
    from atomr.gossip.ledger.book import Book
    from atomr.gossip.ledger.budget import Budget


@attrs.define
class _Attempt:
    """What is to be inherited, and who has agreed: ledgers by node."""

    spent: Mapping[str, int]
    asked: tuple[str, ...]
    agreed: dict[str, str] = attrs.field(factory=dict)

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(self.spent)

    @property
    def waits_for(self) -> tuple[str, ...]:
        return tuple(name for name in self.asked if name not in self.agreed)


class Reclaim:
    """One ledger's side of it: as the heir, and as one that is asked."""

    __slots__ = ("_attempt", "_book", "_budget")

    def __init__(self, budget: Budget, book: Book) -> None:
        """Start with nothing to inherit."""
        self._budget = budget.name
        self._book = book
        self._attempt: _Attempt | None = None

    @property
    def is_running(self) -> bool:
        """Whether somebody is waited for."""
        return self._attempt is not None

    # --- the heir -------------------------------------------------------------------

    def begin(self, spent: Mapping[str, int], asked: tuple[str, ...]) -> list[Effect]:
        """Begin to inherit; an attempt that was running is given up."""
        book = self._book
        for ledger in spent:
            heir = book.heir(ledger)
            if heir and heir not in spent and heir not in book.frozen:
                return [ReclaimFailed(self._budget, ledger, heir)]
        self._attempt = _Attempt(dict(spent), asked)
        for ledger in spent:
            book.freeze(ledger, book.ledger)
        return []

    def ask(self) -> list[Effect]:
        """Ask those who have not agreed."""
        attempt = self._attempt
        if attempt is None:
            return []
        freeze = Freeze(self._budget, self._book.ledger, attempt.lost)
        return [Send(name, freeze) for name in attempt.waits_for]

    def agreed(self, sender: str, frame: Frozen) -> None:
        """Take note that a node has agreed, and of what it has heard."""
        attempt, book = self._attempt, self._book
        if attempt is None or (frame.heir, frame.lost) != (book.ledger, attempt.lost):
            return
        attempt.agreed[sender] = frame.ledger
        for row in frame.rows:
            if row.ledger in attempt.spent:
                book.merge(row, for_heir=True)

    def objected(self, frame: Objects) -> list[Effect]:
        """Give up: a node does not agree."""
        if self._attempt is None or frame.heir != self._book.ledger:
            return []
        self._attempt = None
        return [ReclaimFailed(self._budget, frame.lost, frame.reason)]

    def finish(self) -> list[Effect]:
        """Inherit, if all have agreed and the disk knows of it."""
        attempt, book = self._attempt, self._book
        if attempt is None or attempt.waits_for:
            return []
        if not all(book.is_frozen(lost, book.ledger) for lost in attempt.spent):
            return []
        self._attempt = None
        objection = self._objection(attempt)
        if objection is not None:
            return [objection]
        units = book.inherit(attempt.spent)
        return [Reclaimed(self._budget, attempt.lost, units)]

    def _objection(self, attempt: _Attempt) -> ReclaimFailed | None:
        """Return a ledger that is not lost, or one that is and was not named."""
        book = self._book
        alive = {book.ledger, *attempt.agreed.values()}
        for ledger in book.matrix.rows:
            if ledger in attempt.spent:
                if ledger in alive:
                    return ReclaimFailed(self._budget, ledger, "alive")
            elif ledger not in alive and not self._is_settled(ledger, attempt):
                return ReclaimFailed(self._budget, ledger, "also lost")
        return None

    def _is_settled(self, ledger: str, attempt: _Attempt) -> bool:
        """Whether somebody inherits from it who is there, or is known to have."""
        heir = self._book.frozen.get(ledger)
        is_lost = heir is None or heir in attempt.spent
        return not is_lost or self._book.heir(ledger) == heir

    # --- those that are asked -------------------------------------------------------

    def asked(self, sender: str, frame: Freeze) -> tuple[Send, list[Effect]]:
        """Return the answer, to be sent once the disk knows of it, and facts."""
        book = self._book
        for ledger in frame.lost:
            reason = self._reason(ledger, frame)
            if reason:
                objects = Objects(self._budget, frame.heir, ledger, reason)
                return Send(sender, objects), []
        facts = self._give_up(frame)
        for ledger in frame.lost:
            book.freeze(ledger, frame.heir)
        frozen = Frozen(self._budget, book.ledger, frame.heir, frame.lost, ())
        return Send(sender, frozen), facts

    def _give_up(self, frame: Freeze) -> list[Effect]:
        """Leave it to another heir, if we wanted the same."""
        attempt = self._attempt
        common = [
            ledger for ledger in frame.lost if attempt and ledger in attempt.spent
        ]
        if not common:
            return []
        self._attempt = None
        return [ReclaimFailed(self._budget, common[0], frame.heir)]

    def _reason(self, ledger: str, frame: Freeze) -> str:
        """Return why a ledger must not be inherited from; empty: it may.

        Whoever has begun to, and has not finished, gives up for another one that
        asks: each waits for the other, and they must not wait for ever.
        """
        book = self._book
        if ledger == book.ledger:
            return "alive"
        heir = book.heir(ledger)
        if heir and heir != frame.heir:
            return "" if heir in frame.lost or heir in book.frozen else heir
        is_ours = self._attempt is not None and ledger in self._attempt.spent
        return book.ledger if is_ours and book.ledger < frame.heir else ""
