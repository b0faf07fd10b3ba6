"""Nodes that replicate in the simulator, and what must hold of them at the end.

There is no membership here: a node says hello until it is known, and takes whoever
writes to it for alive until the system says otherwise.

What is checked needs no second implementation: all events that were ever made are
recorded, and what lives at the end must be what those that are known added, less
what they killed.  An entry too few was lost, one too many was resurrected.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr.crdt import (
    AWLWWMap,
    AWSet,
    Dot,
    Entry,
    Event,
    EventLog,
    GCounter,
    LogTail,
    Origin,
    ORMap,
    OwnedMap,
    Replicated,
    Waiting,
)
from atomr.gossip.replication import (
    Diverged,
    Frame,
    Gone,
    MustReset,
    PeerDown,
    PeerUp,
    Quorum,
    Received,
    Replication,
    ReplicationOptions,
    Send,
    Suspicious,
    Woke,
    Wrote,
)
from atomr.gossip.replication import Event as MachineEvent
from atomr.testing import simulation as sim

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HELLO_S = 0.5


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0, tag_field="t"):
    """Says that the sender is there."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A frame with the life that sent it; on a real link the link knows."""

    sender: Origin
    frame: Frame | Hello


_decoder = msgspec.msgpack.Decoder(Envelope)
CODEC = sim.Codec(msgspec.msgpack.encode, _decoder.decode)


@attrs.frozen
class World:
    """What the nodes of a run have in common.

    Attributes:
        made: all events that were made, by their dots.
        options: of all replicators.
        tail_events: how many a log holds.
        max_early: how many early events it holds.
    """

    made: dict[Dot, Event] = attrs.Factory(dict)
    options: ReplicationOptions = attrs.Factory(ReplicationOptions)
    tail_events: int = 10_000
    max_early: int = 256


class RecordedLog(EventLog):
    """A log that also records what is written to it."""

    __slots__ = ("world",)

    world: World

    def append(self, event: Event) -> None:
        super().append(event)
        self.world.made[event.dot] = event


class ReplicaNode:
    """One life of a node: a log, its replicator, and hellos."""

    def __init__(self, world: World, boot: sim.Boot) -> None:
        self.world = world
        self.names = [name for name in boot.names if name != boot.name]
        self.log = RecordedLog(
            Origin(boot.name, boot.boot),
            tail=LogTail(max_events=world.tail_events),
            waiting=Waiting(max_early=world.max_early),
        )
        self.log.world = world
        self.random = boot.random
        self.machine: Any = None
        self.hello_at_s = 0.0

    @property
    def next_deadline_s(self) -> float:
        machine: Replication = self.machine
        return min(self.hello_at_s, machine.next_deadline_s)

    def start(self, now_s: float) -> Iterable[object]:
        self.machine = Replication(
            self.log,
            draw=random.Random(self.random.random()),
            now_s=now_s,
            options=self.world.options,
        )
        return self.hello(now_s)

    def hello(self, now_s: float) -> list[object]:
        self.hello_at_s = now_s + HELLO_S
        known = {peer.name for peer in self.machine.peers}
        hello = Envelope(self.log.origin, Hello())
        return [sim.Sent(name, hello) for name in self.names if name not in known]

    def handle(self, event: sim.Event, now_s: float) -> Iterable[object]:
        match event:
            case sim.Received(_, Envelope(sender, frame)):
                return self.receive(sender, frame, now_s)
            case sim.LinkReset(peer, boot):
                return self.act(PeerDown(Origin(peer, boot)), now_s)
            case sim.Woke() if now_s >= self.hello_at_s:
                return self.hello(now_s) + self.act(Woke(), now_s)
        return self.act(Woke(), now_s)

    def receive(
        self, sender: Origin, frame: Frame | Hello, now_s: float
    ) -> list[object]:
        effects: list[object] = []
        if sender not in self.machine.peers and self._is_latest(sender):
            effects += self.act(PeerUp(sender), now_s)
        if not isinstance(frame, Hello):
            effects += self.act(Received(sender, frame), now_s)
        return effects

    def _is_latest(self, sender: Origin) -> bool:
        peers = self.machine.peers
        boots = [peer.boot for peer in peers if peer.name == sender.name]
        return all(boot < sender.boot for boot in boots)

    def act(self, event: MachineEvent, now_s: float) -> list[object]:
        """Return effects in the simulator's form."""
        return [
            sim.Sent(effect.to.name, Envelope(self.log.origin, effect.frame))
            if isinstance(effect, Send)
            else effect
            for effect in self.machine.handle(event, now_s)
        ]

    # --- what is done to it ---------------------------------------------------------

    def write(self, draw: random.Random, now_s: float) -> list[object]:
        """Write something, to few keys, so that conflicts are common."""
        log, key = self.log, draw.randrange(4)
        match draw.randrange(7):
            case 0 | 1:
                log.open(AWLWWMap, "m").put(key, draw.randrange(100), now_ms=1)
            case 2:
                log.open(AWLWWMap, "m").remove(key)
            case 3:
                log.open(AWSet, "s").add(f"{log.origin}/{draw.randrange(9)}")
            case 4:
                known = sorted(log.open(AWSet, "s"), key=str)
                if known:
                    log.open(AWSet, "s").remove(draw.choice(known))
            case 5:
                log.open(GCounter, "c").increment(1 + key)
            case 6:
                log.open(ORMap, "o").field(key, AWSet).add(draw.randrange(3))
                log.open(ORMap, "o").remove(draw.randrange(4))
        return self.act(Wrote(), now_s)

    def own(self, now_s: float) -> list[object]:
        """Register under the node's own name."""
        self.log.open(OwnedMap, "members").put("all", str(self.log.origin))
        return self.act(Wrote(), now_s)

    def gone(self, origin: Origin, now_s: float) -> list[object]:
        return self.act(Gone(origin), now_s)

    def quorum(self, now_s: float, *, is_held: bool) -> list[object]:
        return self.act(Quorum(is_held=is_held), now_s)


def add_nodes(simulation: sim.Simulation, world: World, number: int) -> None:
    for at in range(number):
        simulation.add_node(f"n{at}", lambda boot: ReplicaNode(world, boot))


def refuse_bad_facts(simulation: sim.Simulation) -> None:
    """Fail on whatever only a bug can bring about."""

    def see(name: str, fact: object) -> None:
        assert not isinstance(fact, Diverged | MustReset | Suspicious), (name, fact)

    simulation.observe(see)


def nodes(simulation: sim.Simulation) -> Iterator[ReplicaNode]:
    for name in simulation.up:
        yield simulation.node(name)


def are_equal(simulation: sim.Simulation) -> bool:
    """Return whether all nodes know the same."""
    vectors = {node.log.vector for node in nodes(simulation)}
    return len(vectors) == 1 and len(simulation.up) == len(simulation.names)


def check_nothing_lost(simulation: sim.Simulation, world: World) -> None:
    """Assert that each node holds what it knows of, and nothing else."""
    for node in nodes(simulation):
        log = node.log
        expected = what_lives(world, log)
        found = {
            entry.dot: (crdt_id, key, entry)
            for crdt_id, replica in log.replicas().items()
            for key, cell in replica.cells().items()
            for entry in cell
        }
        assert found == expected, (
            f"{log.origin}: lost {expected.keys() - found.keys()},"
            f" resurrected {found.keys() - expected.keys()}"
        )
        check_waiting(log, {node.log.origin for node in nodes(simulation)})
        check_hash(log)


def check_waiting(log: EventLog, living: set[Origin]) -> None:
    """Assert that what waits is of the dead: what came before died with them."""
    before = log.waiting
    for origin in sorted(living):
        log._waiting.drop_until(origin, 1_000_000)
    assert log.waiting == before


def what_lives(world: World, log: EventLog) -> dict[Dot, tuple[str, Any, Entry]]:
    known = log.seen
    events = [
        event
        for dot, event in world.made.items()
        if known.contains(dot.origin, dot.seq)
        or dot.seq <= log.retired.get(dot.origin, 0)
    ]
    killed = {dot for event in events for dot in event.kills}
    return {
        event.dot: (event.crdt, event.key, Entry(event.dot, event.stamp, event.body))
        for event in events
        if event.body is not None and event.dot not in killed
    }


def check_hash(log: EventLog) -> None:
    """Assert that the hash that is kept is that of what is there."""
    digest = 0
    for replica in log.replicas().values():
        fresh = Replicated.of("", live=dict(replica.cells()), seen=log.seen)
        fresh.crdt_id = replica.crdt_id
        digest ^= fresh.state_hash
    assert log.state_hash == digest
