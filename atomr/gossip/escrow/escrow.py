"""All limits of one node: for each a lessee, and a home where this node is it.

The node answers at once from what it holds; see :mod:`atomr.gossip.escrow` for
how it is driven.  Where the home is this very node, asking it is a call.

Pure: times are arguments, in seconds of the node's monotonic clock.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import attrs

from atomr.gossip.escrow.frames import (
    Ask,
    Closed,
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
    from collections.abc import Iterable, Sequence

    from atomr.crdt.origin import Origin
    from atomr.gossip.escrow.limit import Limit

_NEVER = float("inf")


@attrs.frozen
class Past:
    """What is known of the time before this life.

    Attributes:
        quiet_s: for how long, at least, no node of this name has run; infinite:
            there never was one.
        marks: the use log of the latest life, oldest first; empty: none was kept.
    """

    quiet_s: float = 0.0
    marks: tuple[Mark, ...] = ()


UNKNOWN = Past()
"""There may have been an earlier life until just now."""

FIRST = Past(quiet_s=_NEVER)
"""There never was one."""


class _Entry:
    """One limit at this node; ``due_s`` is its place in the heap."""

    __slots__ = ("due_s", "home", "lessee", "limit", "log")

    def __init__(
        self, limit: Limit, lessee: Lessee, home: Home | None, log: UseLog | None
    ) -> None:
        self.limit = limit
        self.lessee = lessee
        self.home = home
        self.log = log
        self.due_s = _NEVER


class Escrow:
    """The permits of one node, under any number of limits."""

    __slots__ = ("_entries", "_heap", "_me", "_order", "_outbox")

    def __init__(self, me: Origin) -> None:
        """Start without limits.

        Args:
            me: this life of this node.
        """
        self._me = me
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = 0
        self._outbox: list[Effect] = []

    # --- limits ---------------------------------------------------------------------

    def add(self, limit: Limit, now_s: float, *, past: Past = UNKNOWN) -> None:
        """Take part in a limit.

        Args:
            limit: its terms, the same on all nodes.
            now_s: by the node's clock.
            past: what is known of earlier lives; the less, the longer it takes
                until what they may have used is free.

        Raises:
            ValueError: the limit is there already.
        """
        if limit.name in self._entries:
            raise ValueError(f"add({limit.name!r}): it is there already")
        me = self._me
        quiet_at_s = now_s - past.quiet_s
        floor = limit.floor if me.name in limit.voters else 0
        cooling = floor if past.quiet_s < _NEVER else 0
        if limit.use_log and past.marks:
            cooling = min(cooling, cooling_after(limit, past.marks))
        log = UseLog(limit, me.boot, used=cooling) if limit.use_log and floor else None
        holdings = Holdings(
            limit, floor=floor, cooling=cooling, at_s=quiet_at_s, log=log
        )
        lessee = Lessee(limit, holdings, boot=me.boot, now_s=now_s)
        is_home = limit.home == me.name
        home = Home(limit, boot=me.boot, at_s=quiet_at_s) if is_home else None
        entry = self._entries[limit.name] = _Entry(limit, lessee, home, log)
        self._write_log(entry, now_s)
        self._schedule(entry, now_s)

    def remove(self, name: str) -> None:
        """Take no part any more; what is lent comes back when its lease has lapsed.

        Raises:
            KeyError: there is no such limit here.
        """
        del self._entries[name]

    @property
    def next_deadline_s(self) -> float | None:
        """When :meth:`advance` is due; None: not before something else happens."""
        if self._outbox:
            return -_NEVER
        heap = self._heap
        while heap:
            due_s, _, name = heap[0]
            entry = self._entries.get(name)
            if entry is not None and entry.due_s == due_s:
                return due_s
            heappop(heap)
        return None

    def overrun(self, name: str) -> int:
        """Return how many permits of a limit were used beyond what was granted."""
        return self._entries[name].lessee.holdings.overrun

    # --- use ------------------------------------------------------------------------

    def acquire(self, name: str, permits: int, *, now_s: float) -> Outcome:
        """Use permits of a limit, from now on.

        Read :attr:`next_deadline_s` afterwards, as after each call.

        Args:
            name: of the limit.
            permits: at least 1; what is not used in the end goes back with
                :meth:`settle`.
            now_s: by the node's clock.

        Returns:
            ``Granted``, ``Denied``, or ``Asking`` if the home must be asked.

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``permits`` is not at least 1.
        """
        if permits < 1:
            raise ValueError(f"acquire({name!r}, {permits!r}): expected at least 1")
        entry = self._entries[name]
        lessee = entry.lessee
        outcome = lessee.acquire(permits, now_s)
        if type(outcome) is Asking and entry.home is not None:
            outcome = self._ask_here(entry, outcome, now_s)
        if entry.log is not None:
            self._write_log(entry, now_s)
        if lessee.next_deadline_s < entry.due_s:
            self._schedule(entry, now_s)
        return outcome

    def _ask_here(self, entry: _Entry, asking: Asking, now_s: float) -> Outcome:
        """Ask the home, which is here: it answers at once, if anything is due."""
        effects = self._settle_here(entry, entry.lessee.advance(now_s), now_s)
        outcome: Outcome = asking
        for effect in effects:
            if type(effect) is Answered and effect.ticket == asking.ticket:
                outcome = effect.outcome
            else:
                self._outbox.append(effect)
        return outcome

    def settle(self, name: str, granted: Granted, used: int, *, now_s: float) -> None:
        """Say how many of the granted permits were used; the others are free again.

        A second time it does nothing.  More than were granted is locked as far
        as there is anything to lock, and else counted (:meth:`overrun`).

        Raises:
            KeyError: there is no such limit here.
            ValueError: ``used`` is negative.
        """
        if used < 0:
            raise ValueError(f"settle({name!r}, used={used!r}): expected at least 0")
        self._entries[name].lessee.holdings.settle(granted, used, now_s=now_s)

    # --- events ---------------------------------------------------------------------

    def advance(self, now_s: float) -> Sequence[Effect]:
        """Do what is due."""
        effects = self._take_outbox()
        for name in self._due(now_s):
            entry = self._entries[name]
            entry.due_s = _NEVER
            lessee = entry.lessee
            if now_s >= lessee.next_deadline_s:
                effects += self._settle_here(entry, lessee.advance(now_s), now_s)
            if entry.home is not None:
                lent = entry.home.lend(now_s)
                effects += self._settle_here(entry, lent, now_s)
            self._write_log(entry, now_s)
            self._schedule(entry, now_s)
        return effects + self._take_outbox()

    def receive(self, sender: str, frame: Frame, now_s: float) -> Sequence[Effect]:
        """Handle a frame of another node; ``sender`` is who it is known to be."""
        entry = self._entries.get(frame.limit)
        if entry is None:
            return self._unknown(sender, frame)
        effects = self._settle_here(
            entry, self._handle(entry, sender, frame, now_s), now_s
        )
        self._schedule(entry, now_s)
        return self._take_outbox() + effects

    def persisted(self, mark: Mark) -> None:
        """A mark of the use log has been written and synced."""
        entry = self._entries.get(mark.limit)
        if entry is not None and entry.log is not None:
            entry.log.persisted(mark)

    def _unknown(self, sender: str, frame: Frame) -> list[Effect]:
        if not isinstance(frame, Open):
            return []
        return [Send(sender, Refused(frame.limit, 0, frame.boot, frame.nonce))]

    def _handle(
        self, entry: _Entry, sender: str, frame: Frame, now_s: float
    ) -> list[Effect]:
        """Let the side handle it that it is meant for."""
        if isinstance(frame, Open | Ask):
            return self._at_home(entry, sender, frame, now_s)
        if sender != entry.limit.home:
            return []
        lessee = entry.lessee
        match frame:
            case Offer():
                return lessee.offered(frame, now_s)
            case Grant():
                return lessee.granted(frame, now_s)
            case Closed():
                return lessee.closed(frame, now_s)
        return [TermsDiffer(frame.limit, sender)]

    def _at_home(
        self, entry: _Entry, sender: str, frame: Open | Ask, now_s: float
    ) -> list[Effect]:
        home = entry.home
        if home is None:
            return self._not_home(sender, frame)
        if isinstance(frame, Ask):
            return home.ask(sender, frame, now_s)
        return home.open(sender, frame)

    def _not_home(self, sender: str, frame: Open | Ask) -> list[Effect]:
        """Refuse a lessee whose terms name another home than ours do."""
        if isinstance(frame, Ask):
            return [Send(sender, Closed(frame.limit, frame.home_boot, frame.account))]
        terms = self._entries[frame.limit].limit.terms
        refused = Refused(frame.limit, terms, frame.boot, frame.nonce)
        return [Send(sender, refused), TermsDiffer(frame.limit, sender)]

    def _settle_here(
        self, entry: _Entry, effects: Iterable[Effect], now_s: float
    ) -> list[Effect]:
        """Deliver what this node sends to itself, and return the rest."""
        me = self._me.name
        left: list[Effect] = []
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            if type(effect) is Send and effect.to == me:
                waiting.extend(self._handle(entry, me, effect.message, now_s))
            else:
                left.append(effect)
        return left

    def _write_log(self, entry: _Entry, now_s: float) -> None:
        mark = entry.log.next_mark(now_s) if entry.log is not None else None
        if mark is not None:
            self._outbox.append(Persist(mark))

    # --- time -----------------------------------------------------------------------

    def _take_outbox(self) -> list[Effect]:
        outbox, self._outbox = self._outbox, []
        return outbox

    def _schedule(self, entry: _Entry, now_s: float) -> None:
        due_s = entry.lessee.next_deadline_s
        if entry.home is not None:
            due_s = min(due_s, entry.home.next_deadline_s(now_s))
        if due_s < entry.due_s:
            entry.due_s = due_s
            self._order += 1
            heappush(self._heap, (due_s, self._order, entry.limit.name))

    def _due(self, now_s: float) -> list[str]:
        """Take the limits that are due off the heap, in order."""
        heap = self._heap
        names = []
        while heap and heap[0][0] <= now_s:
            due_s, _, name = heappop(heap)
            entry = self._entries.get(name)
            if entry is not None and entry.due_s == due_s:
                entry.due_s = -_NEVER
                names.append(name)
        return names
