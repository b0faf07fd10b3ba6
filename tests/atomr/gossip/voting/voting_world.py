"""Elections in the simulator, the work of their holders, and what must hold.

The shell that a cluster would put around :class:`Election` is here in its smallest
form: it works while it holds, takes its time to stop, and is cut off when the lease
has ended.  Whoever works writes its epoch into one log, as into a store that two
must not write to.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from atomr.crdt.origin import Origin
from atomr.gossip import voting as v
from atomr.testing import simulation as s

if TYPE_CHECKING:
    from collections.abc import Iterable

CODEC = s.Codec(v.encode, v.decode)
ACT_S = 0.11
"""How often who holds the lease does something."""


class Node:
    """One life of a node, and its work."""

    def __init__(self, boot: s.Boot, world: World, clock: s.Clock) -> None:
        self.boot = boot
        self.clock = clock
        self.me = Origin(boot.name, boot.boot)
        self.is_cut_off = False
        self.stops_within_s = world.stops_within_s
        self.works: int | None = None
        self.election: v.Election | None = None
        self._world = world
        self._act_at = self._stopped_at = float("inf")

    @property
    def next_deadline_s(self) -> float | None:
        own = None if self.election is None else self.election.next_deadline_s
        due_at = min(own or float("inf"), self._act_at, self._stopped_at)
        return None if due_at == float("inf") else due_at

    def start(self, now_s: float) -> list[v.Effect]:
        world = self._world
        self.election = v.Election(
            world.terms,
            self.me,
            draw=self.boot.random.random,
            epoch=world.wall_us(),
            now_s=now_s,
        )
        stands = self.me.name in world.candidates
        return self.step(v.Stand() if stands else v.Woke(), now_s)

    def handle(self, event: s.Event, now_s: float) -> list[v.Effect]:
        if isinstance(event, s.Received):
            return self.step(v.Received(event.sender, event.message), now_s)
        return self.step(v.Woke(), now_s)

    def step(self, event: v.Event, now_s: float) -> list[v.Effect]:
        """Let the election see the event first, then work."""
        assert self.election is not None
        effects = self.election.handle(event, now_s)
        self._perform(effects, now_s)
        if now_s >= self._stopped_at:
            self._end()
            effects += self.election.handle(v.Stopped(), now_s)
        if self.works is not None and now_s >= self._act_at:
            self._act_at = now_s + ACT_S
            self._world.act(self)
        return effects

    def _perform(self, effects: Iterable[v.Effect], now_s: float) -> None:
        for effect in effects:
            match effect:
                case v.Won(epoch):
                    assert self.works is None, "it won while it worked"
                    self.works = epoch
                    self._act_at = now_s
                    self._world.won(self)
                case v.Stop():
                    lasts_s = self.boot.random.uniform(0.0, self.stops_within_s)
                    self._stopped_at = now_s + lasts_s
                case v.Lost(epoch):
                    assert self.works == epoch
                    self.is_cut_off = True
                    self._end()
                case _:
                    pass

    def _end(self) -> None:
        self.works = None
        self._act_at = self._stopped_at = float("inf")


class World:
    """Nodes with one lease.

    - At most one of them works at any time, one that is paused not counted.
    - At most one holds the lease by its own clock.
    - Epochs never fall, and each term has a greater one than all before.

    Attributes:
        terms: of the lease.
        terms_held: name, epoch and true time of each win.
        acts: epoch and name of each act.
    """

    def __init__(
        self,
        simulation: s.Simulation,
        terms: v.Terms,
        *,
        candidates: Iterable[str] | None = None,
        stops_within_s: float | None = None,
    ) -> None:
        self.simulation = simulation
        self.terms = terms
        self.candidates = set(terms.voters if candidates is None else candidates)
        self.stops_within_s = terms.stop_s if stops_within_s is None else stops_within_s
        self.terms_held: list[tuple[str, int, float]] = []
        self.acts: list[tuple[int, str]] = []
        self._hosts: list[Any] = []
        simulation.use_codec(CODEC)
        simulation.always(self.check)

    def add(self, *names: str, rates: Iterable[float] = ()) -> None:
        """Add nodes, their clocks at these rates."""
        given = [*rates] or [1.0] * len(names)
        for name, rate in zip(names, given, strict=True):
            offset_s = self.simulation.random.uniform(0.0, 1e5)
            clock = s.Clock(offset_s=offset_s, rate=rate)
            make = partial(Node, world=self, clock=clock)
            self.simulation.add_node(name, make, clock=clock)
            self._hosts.append(self.simulation.host(name))

    def wall_us(self) -> int:
        """Return what wall clocks say, which are kept right by the time's service."""
        return int(self.simulation.now_s * 1e6)

    def node(self, name: str) -> Node:
        node = self.simulation.node(name)
        assert isinstance(node, Node)
        return node

    def do(self, name: str, event: v.Event) -> bool:
        """Let something happen to a node's election."""

        def step(node: Node, now_s: float) -> list[v.Effect]:
            return node.step(event, now_s)

        return self.simulation.do(name, step)

    # --- what must hold -------------------------------------------------------------

    def won(self, node: Node) -> None:
        assert node.works is not None
        held = [epoch for _, epoch, _ in self.terms_held]
        assert not held or node.works > max(held), (
            f"epoch {node.works} of {node.me.name} is not above those of {held}"
        )
        now_s = self.simulation.now_s
        self.terms_held.append((node.me.name, node.works, now_s))

    def act(self, node: Node) -> None:
        assert node.works is not None
        assert not self.acts or node.works >= self.acts[-1][0], (
            f"{node.me.name} works by epoch {node.works} after {self.acts[-1]}"
        )
        self.acts.append((node.works, node.me.name))

    def check(self, name: str) -> None:
        """At most one works, and at most one may.

        Whoever does neither by now, after what has just happened to it, is not the
        second one; and nobody else has become it meanwhile.
        """
        # This is asked after each event, so it was a third of what a run cost.
        node = self.node(name)
        if node.works is None and not self.holds(node):
            return
        awake = self.awake()
        workers = [n.me.name for n in awake if n.works is not None]
        assert len(workers) <= 1, f"{workers} work at the same time"
        holders = [n.me.name for n in awake if self.holds(n)]
        assert len(holders) <= 1, f"{holders} hold the lease at the same time"

    def awake(self) -> list[Node]:
        """Return the nodes that run."""
        hosts = self._hosts
        return [h.node for h in hosts if h.node is not None and not h.is_paused]

    def holders(self) -> list[str]:
        """Return who holds the lease by its own clock."""
        return [node.me.name for node in self.awake() if self.holds(node)]

    def holds(self, node: Node) -> bool:
        """Return whether a node holds the lease by its own clock."""
        election = node.election
        if election is None:
            return False
        now_s = node.clock.read_s(self.simulation.now_s)
        return election.holds(now_s + ROUNDING_S) is not None

    # --- what must come to hold -----------------------------------------------------

    def has_holder(self) -> bool:
        return len(self.holders()) == 1

    def await_holder(self, leases: float) -> float:
        """Let time pass until somebody holds the lease."""
        within_s = leases * self.terms.lease_s
        return self.simulation.run_until(self.has_holder, within_s=within_s)


ROUNDING_S = 1e-6
"""The simulator wakes a node up to a nanosecond before its deadline."""
