"""Nodes with one limit in the simulator, what is asked of them, and what was used.

The shell that a cluster would put around :class:`Escrow` is here in its
smallest form: it delivers what the machine sends, writes what it wants written,
and notes each use with its true time, so that the worst window can be found.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import attrs
import msgspec

from atomr.crdt.origin import Origin
from atomr.gossip.escrow import (
    FIRST,
    Answered,
    Asking,
    Effect,
    Escrow,
    Frame,
    Granted,
    Limit,
    Mark,
    Outcome,
    Past,
    Persist,
    decode,
    encode,
)
from atomr.testing.simulation import (
    Boot,
    Clock,
    Codec,
    Event,
    Received,
    Simulation,
    Woke,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CODEC = Codec(cast("Callable[[object], bytes]", encode), decode)

ROUNDING_S = 1e-6
"""The simulator's clocks may be told that a deadline has come 1e-9 s early."""


class Node:
    """One life of a node."""

    def __init__(self, boot: Boot, limit: Limit, *, is_first: bool) -> None:
        self.boot = boot
        self._limit = limit
        self._is_first = is_first
        self._unsynced: list[Mark] = []
        self._syncs_in = 0
        self.escrow = Escrow(Origin(boot.name, boot.boot))

    @property
    def next_deadline_s(self) -> float | None:
        return self.escrow.next_deadline_s

    def start(self, now_s: float) -> Iterable[object]:
        past = FIRST if self._is_first else Past(marks=self._marks())
        self.escrow.add(self._limit, now_s, past=past)
        return self.perform(self.escrow.advance(now_s))

    def handle(self, event: Event, now_s: float) -> Iterable[object]:
        if self._syncs_in:
            self._syncs_in -= 1
        if isinstance(event, Woke):
            return self.perform(self.escrow.advance(now_s))
        if isinstance(event, Received):
            frame = cast("Frame", event.message)
            return self.perform(self.escrow.receive(event.sender, frame, now_s))
        return ()

    def perform(self, effects: Iterable[Effect]) -> list[Effect]:
        """Write what is to be written, now or only soon; return the rest."""
        left: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Persist):
                mark = effect.mark
                line = mark.limit, mark.boot, mark.used, mark.at_s
                self.boot.disk.append(msgspec.msgpack.encode(line))
                self._unsynced.append(mark)
                self._syncs_in = self.boot.random.choice((0, 0, 5, 100))
            else:
                left.append(effect)
        if self._unsynced and self._syncs_in == 0:
            self._sync()
        return left

    def _sync(self) -> None:
        self.boot.disk.sync()
        for mark in self._unsynced:
            self.escrow.persisted(mark)
        self._unsynced.clear()

    def _marks(self) -> tuple[Mark, ...]:
        """Read the marks of the latest life that wrote any."""
        lines = [msgspec.msgpack.decode(line) for line in self.boot.disk.records]
        marks = [Mark(*line) for line in lines]
        return tuple(mark for mark in marks if mark.boot == marks[-1].boot)


@attrs.define
class Use:
    """Permits that were used at a true time."""

    at_s: float
    permits: int


@attrs.frozen
class Later:
    """How many permits turn out to be used, and after how long."""

    used: int
    after_s: float


class World:
    """Nodes with one limit.

    Attributes:
        uses: in the order of their times.
        offered: permits asked for.
        denied: permits that were refused.
        took_s: when the last node took terms that are not those of the start.
    """

    def __init__(
        self,
        simulation: Simulation,
        limit: Limit,
        *,
        limit_of: Callable[[str], Limit] | None = None,
    ) -> None:
        """Start without nodes; ``limit_of``: the terms that a node believes in."""
        self.simulation = simulation
        self.limit = limit
        self._limit_of = limit_of or (lambda _: limit)
        self.uses: list[Use] = []
        self.offered = self.denied = 0
        self.took_s: dict[Limit, float] = {}
        self._lives: dict[str, int] = {}
        self._waiting: dict[tuple[str, int, int], tuple[int, Later | None]] = {}
        simulation.use_codec(CODEC)
        simulation.observe(self._see)

    def add(self, *names: str, rates: Iterable[float] = ()) -> None:
        """Add nodes, their clocks at these rates."""
        given = [*rates] or [1.0] * len(names)
        for name, rate in zip(names, given, strict=True):
            offset_s = self.simulation.random.uniform(0.0, 1e5)
            clock = Clock(offset_s=offset_s, rate=rate)
            self.simulation.add_node(name, self._node, clock=clock)

    def _node(self, boot: Boot) -> Node:
        lives = self._lives[boot.name] = self._lives.get(boot.name, 0) + 1
        return Node(boot, self._limit_of(boot.name), is_first=lives == 1)

    def ask(self, name: str, permits: int = 1, later: Later | None = None) -> None:
        """Let a node be asked for permits now."""
        self.offered += permits
        self.simulation.do(name, partial(self._ask, permits=permits, later=later))

    def _ask(
        self, node: Node, now_s: float, *, permits: int, later: Later | None
    ) -> Iterable[object]:
        outcome = node.escrow.acquire(self.limit.name, permits, now_s=now_s)
        if isinstance(outcome, Asking):
            key = node.boot.name, node.boot.boot, outcome.ticket
            self._waiting[key] = permits, later
        else:
            self._note(node, outcome, permits, later)
        return ()

    def change(self, terms: dict[str, Limit], name: str, limit: Limit) -> None:
        """Let a node take other terms, now, or when it is up again."""
        terms[name] = limit
        self.took_s[limit] = self.simulation.now_s
        self.simulation.do(name, partial(self._change, limit=limit))

    def _change(self, node: Node, now_s: float, *, limit: Limit) -> Iterable[object]:
        self.took_s[limit] = self.simulation.now_s  # it may have been paused
        return node.perform(node.escrow.resize(limit, now_s))

    def _see(self, name: str, fact: object) -> None:
        if isinstance(fact, Answered):
            node = self.simulation.node(name)
            key = name, node.boot.boot, fact.ticket
            permits, later = self._waiting.pop(key)
            self._note(node, fact.outcome, permits, later)

    def _note(
        self, node: Node, outcome: Outcome, permits: int, later: Later | None
    ) -> None:
        if not isinstance(outcome, Granted):
            self.denied += permits
            return
        assert outcome.permits == permits
        use = Use(self.simulation.now_s, permits)
        self.uses.append(use)
        if later is not None:
            settle = partial(self._settle, node, outcome, use, later.used)
            self.simulation.at(self.simulation.now_s + later.after_s, settle)

    def _settle(self, node: Node, granted: Granted, use: Use, used: int) -> None:
        def settle(running: Node, now_s: float) -> Iterable[object]:
            if running is node:
                escrow, name = running.escrow, self.limit.name
                escrow.settle(name, granted, used, now_s=now_s)
                escrow.settle(name, granted, used, now_s=now_s)
                use.permits = used
            return ()

        self.simulation.do(node.boot.name, settle)

    # --- what came of it ------------------------------------------------------------

    @property
    def used(self) -> int:
        return sum(use.permits for use in self.uses)

    def worst_window(self, window_s: float | None = None) -> int:
        """Return the most permits used in any window, by true time."""
        window_s = window_s or self.limit.window_s
        return worst_window(self.uses, window_s - ROUNDING_S)

    def check_within(self, from_s: float, to_s: float, permits: int) -> None:
        """Check the windows that begin, and end, between two times."""
        uses = [use for use in self.uses if from_s <= use.at_s < to_s]
        worst = worst_window(uses, self.limit.window_s - ROUNDING_S)
        assert worst <= permits, f"{worst} of {permits} from {from_s} s to {to_s} s"

    def check(self) -> None:
        worst = self.worst_window()
        limit = self.limit
        assert worst <= limit.permits, (
            f"{worst} of {limit.permits} permits used within {limit.window_s} s"
        )


def worst_window(uses: Iterable[Use], window_s: float) -> int:
    """Return the most permits used in any half-open window of that length.

    Two pointers over the uses, which are in the order of their times: exact,
    because a worst window may be moved until it ends with a use.
    """
    ordered = [*uses]
    worst = now = first = 0
    for use in ordered:
        now += use.permits
        while ordered[first].at_s <= use.at_s - window_s:
            now -= ordered[first].permits
            first += 1
        worst = max(worst, now)
    return worst
