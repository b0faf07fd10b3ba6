"""Replicators in the simulator, with names that their processes have.

There is no membership: whoever was heard within ``DOWN_S`` is up, in the life that it
was heard of last.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr.cluster.registry.claims import Claim, winner
from atomr.cluster.replicator import ReplicatorOptions
from atomr.cluster.replicator.core import Core
from atomr.cluster.replicator.facts import Alarm, Reborn, Tell
from atomr.cluster.replicator.frames import Message
from atomr.cluster.replicator.journal import Journal
from atomr.cluster.replicator.store import Stored
from atomr.crdt import Assembly, AWLWWMap, Chunk, Event, Origin, OwnedMap
from atomr.testing import simulation as sim

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atomr.cluster.replicator.shard import Shard

BEAT_S = 0.25
DOWN_S = 3.0
NAMES = "registry names"


class Beat(msgspec.Struct, frozen=True, array_like=True, tag=0, tag_field="t"):
    """Says that the sender is there."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A message with the life that sent it; on a real link the link knows."""

    sender: Origin
    message: Message | Beat


_decoder = msgspec.msgpack.Decoder(Envelope)
CODEC = sim.Codec(msgspec.msgpack.encode, _decoder.decode)


class Row(msgspec.Struct, frozen=True):
    """A row of a disk: events of a shard, or all of it."""

    shard: int
    events: tuple[Event, ...] = ()
    parts: tuple[Chunk, ...] = ()


_encode = msgspec.msgpack.encode
_decode_row = msgspec.msgpack.Decoder(Row).decode


@attrs.frozen
class World:
    """What the nodes of a run have in common.

    Attributes:
        options: of all replicators.
        is_durable: whether they write to their disks.
        beat_s: so often a node says that it is there.
    """

    options: ReplicatorOptions
    is_durable: bool = False
    beat_s: float = BEAT_S


class CoreNode:
    """One life of a node."""

    def __init__(self, world: World, boot: sim.Boot) -> None:
        self.world = world
        self.boot = boot
        self.origin = Origin(boot.name, boot.boot)
        self.others = [name for name in boot.names if name != boot.name]
        self.heard: dict[Origin, float] = {}
        self.over: dict[str, int] = {}
        self.held: dict[str, Claim] = {}
        self.conflicts: list[str] = []
        self.beat_at_s = 0.0
        self.numbers = 0
        self.core: Core

    @property
    def next_deadline_s(self) -> float:
        return min(self.beat_at_s, self.core.next_deadline_s)

    def start(self, now_s: float) -> Iterable[object]:
        self.beat_at_s = now_s
        self.core = Core(
            self.origin,
            self.world.options,
            draw=self.boot.random,
            new_boot=partial(self.boot.random.getrandbits, 64),
            now_s=now_s,
        )
        if self.world.is_durable:
            self.read_disk()
            self.core.journal = Journal()
        self.core.watch(OwnedMap, NAMES, self.core.shards)
        return []

    def handle(self, event: sim.Event, now_s: float) -> Iterable[object]:
        if isinstance(event, sim.Received):
            envelope: Envelope = event.message
            self.receive(envelope.sender, envelope.message, now_s)
        elif isinstance(event, sim.LinkReset):
            self.over[event.peer] = max(event.boot, self.over.get(event.peer, 0))
            self.down(Origin(event.peer, event.boot), now_s)
        effects: list[object] = []
        if now_s >= self.beat_at_s:
            self.beat_at_s = now_s + self.world.beat_s
            for silent, at_s in list(self.heard.items()):
                if now_s - at_s > DOWN_S:
                    self.down(silent, now_s)
            beat = Envelope(self.origin, Beat())
            effects += [sim.Sent(name, beat) for name in self.others]
        if now_s >= self.core.next_deadline_s:
            self.core.wake(now_s)
        effects += self.act()
        return effects

    def receive(self, sender: Origin, message: Message | Beat, now_s: float) -> None:
        if sender.boot <= self.over.get(sender.name, 0):
            return
        for peer in list(self.heard):
            if peer.name == sender.name and peer.boot < sender.boot:
                self.over[peer.name] = peer.boot
                self.down(peer, now_s)
        if sender not in self.heard:
            self.heard[sender] = now_s
            self.core.peer_up(sender, now_s)
        self.heard[sender] = now_s
        if not isinstance(message, Beat):
            self.core.receive(sender, message, now_s=now_s, now_ms=0)

    def down(self, peer: Origin, now_s: float) -> None:
        if self.heard.pop(peer, None) is not None:
            self.core.peer_down(peer, now_s)

    def act(self) -> list[object]:
        """Return what the core wants done, in the simulator's form."""
        for changed in self.core.take_changes():
            assert changed.name == NAMES
            self.settle(str(changed.key))
        effects: list[object] = []
        for out in self.core.take():
            if isinstance(out, Tell):
                message = Envelope(self.origin, out.message)
                effects.append(sim.Sent(out.to.name, message))
            else:
                effects.append(out)
        self.write_disk()
        return effects

    # --- names ----------------------------------------------------------------------

    def values(self, key: str) -> dict[Origin, object]:
        shard = self.core.shard_of(NAMES, key)
        part = shard.open(OwnedMap, NAMES)
        return {
            node: part.get(key, owner)
            for owner in part.owners(key)
            if (node := self.core.node_of(shard, owner)) is not None
        }

    def whereis(self, key: str) -> Origin | None:
        found = winner(self.values(key))
        return None if found is None else found[0]

    def register(self, key: str, now_s: float) -> bool:
        """Register a new process of this node, if the name is free."""
        if self.whereis(key) is not None:
            return False
        self.numbers += 1
        wall_ms = int(self.boot.wall_s(now_s) * 1000)
        shard = self.core.shard_of(NAMES, key)
        claim = Claim(shard.log.clock.tick(wall_ms), self.numbers, key)
        self.held[key] = claim
        shard.open(OwnedMap, NAMES).put(key, claim.encoded())
        self.core.wrote(shard, now_s)
        return True

    def end(self, key: str, now_s: float) -> None:
        """Let the process that has a name end."""
        if self.held.pop(key, None) is not None:
            self.core.shard_of(NAMES, key).open(OwnedMap, NAMES).remove(key)
            self.core.wrote(self.core.shard_of(NAMES, key), now_s)

    def settle(self, key: str) -> None:
        found = winner(self.values(key))
        if key in self.held and found is not None and found[0] != self.origin:
            del self.held[key]
            self.conflicts.append(key)
            self.core.shard_of(NAMES, key).open(OwnedMap, NAMES).remove(key)

    # --- a map ----------------------------------------------------------------------

    def put(self, key: int, value: int, now_s: float) -> list[object]:
        """Put a key of a divided map."""
        shard = self.core.shard_of("m", key)
        wall_ms = int(self.boot.wall_s(now_s) * 1000)
        shard.open(AWLWWMap, "m").put(key, value, now_ms=wall_ms)
        self.core.wrote(shard, now_s)
        return self.act()

    @property
    def map(self) -> dict[object, object]:
        parts = (shard.open(AWLWWMap, "m") for shard in self.core.shards)
        return {key: value for part in parts for key, value in part.items()}

    # --- the disk -------------------------------------------------------------------

    def write_disk(self) -> None:
        journal, disk = self.core.journal, self.boot.disk
        if not journal:
            return
        events, anew = journal.take()
        for number in sorted(anew):
            parts = self.core.shards[number].log.snapshot()
            disk.append(_encode(Row(number, parts=parts)))
        for number, some in sorted(events.items()):
            disk.append(_encode(Row(number, tuple(some))))
        if self.boot.random.random() < 0.5:
            disk.sync()

    def read_disk(self) -> None:
        rows = [_decode_row(record) for record in self.boot.disk.records]
        for shard in self.core.shards:
            load(shard, stored_of(rows, shard.number))


def stored_of(rows: Iterable[Row], shard: int) -> Stored:
    stored = Stored()
    for row in rows:
        if row.shard != shard:
            continue
        if row.parts:
            stored = Stored(row.parts)
        else:
            stored = Stored(stored.parts, (*stored.batches, row.events))
    return stored


def load(shard: Shard, stored: Stored) -> None:
    if stored.parts:
        shard.log.adopt(Assembly.of_chunks(stored.parts))
    for batch in stored.batches:
        took = shard.log.receive(batch)
        assert (took.held, took.dropped, took.refused) == (0, 0, 0)
    shard.tail.take_news()


def add_nodes(simulation: sim.Simulation, world: World, number: int) -> None:
    for at in range(number):
        simulation.add_node(f"n{at}", lambda boot: CoreNode(world, boot))


def nodes(simulation: sim.Simulation) -> Iterator[CoreNode]:
    for name in simulation.up:
        yield simulation.node(name)


def are_equal(simulation: sim.Simulation) -> bool:
    """Return whether all nodes are up and know the same."""
    known = {
        tuple((s.log.vector, s.log.state_hash) for s in node.core.shards)
        for node in nodes(simulation)
    }
    return len(known) == 1 and len(simulation.up) == len(simulation.names)


def all_meet(simulation: sim.Simulation) -> bool:
    """Return whether each node replicates with the present life of each other one."""
    living = {node.origin for node in nodes(simulation)}
    return all(
        {n.node for n in node.core.neighbours.values() if n.logs} | {node.origin}
        == living
        for node in nodes(simulation)
    )


def refuse_bad_facts(simulation: sim.Simulation) -> None:
    """Fail on whatever only a bug can bring about."""

    def see(name: str, fact: object) -> None:
        assert not isinstance(fact, Reborn | Alarm), (name, fact)

    simulation.observe(see)
