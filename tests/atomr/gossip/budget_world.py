"""Nodes with one budget in the simulator, and what their calls cost.

The shell that a cluster would put around :class:`Ledger` is here in its smallest
form: it delivers what the machine sends and syncs what it wants written, some
time later.  A call is charged when it starts, as its provider will charge it
whatever becomes of the node.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from atomr.gossip.ledger import (
    Answered,
    Budget,
    Effect,
    Frame,
    Held,
    Ledger,
    Outcome,
    Overran,
    Persist,
    Reclaimed,
    ReclaimFailed,
    Record,
    Refused,
    RolledBack,
    Waiting,
    decode,
    decode_record,
    encode,
)
from atomr.testing.simulation import (
    Boot,
    Clock,
    Codec,
    Event,
    Received,
    Simulation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CODEC = Codec(cast("Callable[[object], bytes]", encode), decode)

CRASH_SHARE = 0.01
"""A crash makes that share of what remains unavailable at most."""


class Node:
    """One life of a node."""

    def __init__(self, boot: Boot, budget: Budget) -> None:
        self.boot = boot
        records = boot.disk.records
        record = records[-1] if records else None
        fresh = f"{boot.name}/{boot.boot:x}"
        self.ledger = Ledger(budget, name=boot.name, ledger=fresh, record=record)
        self._writing: tuple[int, float] | None = None

    @property
    def next_deadline_s(self) -> float | None:
        due_s = self.ledger.next_deadline_s
        if self._writing is None:
            return due_s
        written_s = self._writing[1]
        return written_s if due_s is None else min(due_s, written_s)

    def start(self, now_s: float) -> Iterable[object]:
        return self.perform(self.ledger.start(now_s), now_s)

    def handle(self, event: Event, now_s: float) -> Iterable[object]:
        done = self._sync(now_s)
        if isinstance(event, Received):
            frame = cast("Frame", event.message)
            effects = self.ledger.receive(event.sender, frame, now_s)
        else:
            effects = self.ledger.advance(now_s)
        return done + self.perform(effects, now_s)

    def perform(self, effects: Sequence[Effect], now_s: float) -> list[object]:
        """Start to write what is to be written; return the rest."""
        left: list[object] = []
        for effect in effects:
            if isinstance(effect, Persist):
                self.boot.disk.append(effect.record)
                takes_s = self.boot.random.choice((0.0, 0.001, 0.005, 0.2))
                self._writing = effect.seq, now_s + takes_s
            else:
                left.append(effect)
        return left + self._sync(now_s)

    def _sync(self, now_s: float) -> list[object]:
        if self._writing is None or now_s < self._writing[1]:
            return []
        seq, _ = self._writing
        self._writing = None
        disk = self.boot.disk
        disk.rewrite(disk.records[-1:])
        return self.perform(self.ledger.persisted(seq, now_s), now_s)


class World:
    """Nodes with one budget.

    Attributes:
        minted: units that there are.
        charged: what calls cost, by ledger; with those that crashed.
        reserve: what may be charged at most beyond that, by calls that run.
        excess: what calls of a life cost beyond what was held, by ledger.
        stranded: units that crashes made unavailable, by ledger.
        forgotten: costs beyond what was held, that a crash made a ledger forget.
        uncovered: of that, what there were no rights for.
        ids: the ledger of each node.
        lost: ledgers whose disk was lost.
        reclaimed: lost ledgers that others have inherited from.
        failed: attempts at that which failed.
        worst_strand: the largest share of what remained that a crash took.
    """

    def __init__(self, simulation: Simulation, budget: Budget) -> None:
        self.simulation = simulation
        self.budget = budget
        self.minted = 0
        self.reserve: dict[str, int] = {}
        self.stranded: dict[str, int] = {}
        self.excess: dict[str, int] = {}
        self.forgotten = 0
        self.charged: dict[str, int] = {}
        self.uncovered = self.refused = 0
        self.ids: dict[str, str] = {}
        self.lost: list[str] = []
        self.reclaimed: list[str] = []
        self.failed: list[ReclaimFailed] = []
        self.rolled_back = 0
        self.worst_strand = 0.0
        self._waiting: dict[tuple[str, int], tuple[int, float]] = {}
        simulation.use_codec(CODEC)
        simulation.observe(self._see)

    def add(self, *names: str) -> None:
        for name in names:
            offset_s = self.simulation.random.uniform(0.0, 1e5)
            rate = self.simulation.random.uniform(0.95, 1.05)
            clock = Clock(offset_s=offset_s, rate=rate)
            self.simulation.add_node(name, self._node, clock=clock)

    def _node(self, boot: Boot) -> Node:
        node = Node(boot, self.budget)
        self.ids[boot.name] = node.ledger.ledger
        return node

    def mint(self, name: str, units: int) -> None:
        self.minted += units
        self._do(name, lambda ledger, now_s: ledger.mint(units, now_s))

    def _do(self, name: str, act: Callable[[Ledger, float], Sequence[Effect]]) -> None:
        def do(node: Node, now_s: float) -> Iterable[object]:
            return node.perform(act(node.ledger, now_s), now_s)

        self.simulation.do(name, do)

    # --- calls ----------------------------------------------------------------------

    def call(self, name: str, cost: int, *, units: int, takes_s: float) -> None:
        """Let a node make a call that may cost so many units, and costs this."""

        def hold(node: Node, now_s: float) -> Iterable[object]:
            outcome = node.ledger.hold(units, deadline_s=now_s + 3.0, now_s=now_s)
            if isinstance(outcome, Waiting):
                self._waiting[node.ledger.ledger, outcome.ticket] = cost, takes_s
            else:
                self._begin(node, outcome, cost, takes_s)
            return ()

        self.simulation.do(name, hold)

    def _begin(self, node: Node, outcome: Outcome, cost: int, takes_s: float) -> None:
        if not isinstance(outcome, Held):
            self.refused += 1
            return
        ledger = node.ledger.ledger
        now = min(cost, outcome.units)
        self.charged[ledger] = self.charged.get(ledger, 0) + now
        self.reserve[ledger] = self.reserve.get(ledger, 0) + outcome.units - now
        end = partial(self._end, node, outcome, cost)
        self.simulation.at(self.simulation.now_s + takes_s, end)

    def _end(self, node: Node, held: Held, cost: int) -> None:
        def settle(running: Node, now_s: float) -> Iterable[object]:
            if running is not node:
                return ()
            excess = max(0, cost - held.units)
            ledger = node.ledger.ledger
            self.charged[ledger] += excess
            self.excess[ledger] = self.excess.get(ledger, 0) + excess
            self.reserve[ledger] -= max(0, held.units - cost)
            effects = node.ledger.settle(held, cost, now_s=now_s)
            twice = node.ledger.settle(held, cost, now_s=now_s)
            return node.perform([*effects, *twice], now_s)

        self.simulation.do(node.boot.name, settle)

    # --- crashes --------------------------------------------------------------------

    def crash(self, name: str, *, lose_disk: bool) -> None:
        """Kill a node, and note what that makes unavailable."""
        if name not in self.simulation.up:
            return
        ledger = self.ids[name]
        self._waiting = {k: v for k, v in self._waiting.items() if k[0] != ledger}
        self.simulation.crash(name)
        host = self.simulation.host(name)
        records = host.disk.records
        if lose_disk:
            self.lost.append(ledger)
            host.lose_disk()
        elif records:
            self._note_strand(ledger, decode_record(records[-1]))

    def _note_strand(self, ledger: str, record: Record) -> None:
        """Compare what the disk counts as spent with what calls may have cost."""
        [row] = [row for row in record.rows if row.ledger == ledger]
        accounted = self.charged.get(ledger, 0) + self.reserve.pop(ledger, 0)
        idle = row.spent - row.released - accounted - self.stranded.get(ledger, 0)
        self.stranded[ledger] = row.spent - row.released - self.charged.get(ledger, 0)
        unsynced = self.excess.pop(ledger, 0)
        assert -idle <= unsynced, f"{-idle} units were charged that no disk knows of"
        self.forgotten += max(0, -idle)
        share = idle / max(1, self.true_remaining)
        self.worst_strand = max(self.worst_strand, share)

    @property
    def true_remaining(self) -> int:
        return self.minted - sum(self.charged.values())

    def reclaim(self, name: str, *lost: str) -> None:
        """Let a node inherit from lost ledgers, by what they were charged."""
        spent = {ledger: self.charged.get(ledger, 0) for ledger in lost}
        self._do(name, lambda ledger, now_s: ledger.reclaim(spent, now_s))

    def reconcile(self, name: str) -> None:
        """Tell a node what its ledger was charged; it has made no call since."""
        spent = self.charged.get(self.ids[name], 0)
        for _ in range(2):
            self._do(name, lambda ledger, now_s: ledger.reconcile(spent, now_s))

    # --- what came of it ------------------------------------------------------------

    def _see(self, name: str, fact: object) -> None:
        match fact:
            case Answered(_, ticket, outcome):
                node = self.simulation.node(name)
                cost, takes_s = self._waiting.pop((node.ledger.ledger, ticket))
                self._begin(node, outcome, cost, takes_s)
            case Overran():
                self.uncovered += fact.uncovered
            case Reclaimed():
                self.reclaimed += fact.lost
            case ReclaimFailed():
                self.failed.append(fact)
            case RolledBack():
                self.rolled_back += 1
            case Refused():
                raise AssertionError(f"{fact}: expected inside of an answer")

    def check(self) -> None:
        spent = sum(self.charged.values())
        without = self.uncovered + self.forgotten
        assert spent <= self.minted + without, (
            f"{spent} units charged of {self.minted}, {without} of them without rights"
        )
        assert self.rolled_back == 0
