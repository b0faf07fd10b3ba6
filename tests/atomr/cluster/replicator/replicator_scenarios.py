"""Runs in which replicators are cut off, killed and restarted, and names with them.

python -m atomr.testing.simulation \
    tests/atomr/cluster/replicator/replicator_scenarios.py
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.cluster.replicator import ReplicatorOptions
from atomr.cluster.replicator.facts import Alarm, Reborn
from atomr.cluster.replicator.options import REPLICATION
from atomr.crdt import OwnedMap
from atomr.gossip.replication import ReplicationOptions
from atomr.testing.simulation import Mix, Quality, Scenario, Simulation, draw_faults
from tests.atomr.cluster.replicator.world import (
    CODEC,
    NAMES,
    CoreNode,
    World,
    add_nodes,
    all_meet,
    are_equal,
    nodes,
    refuse_bad_facts,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from atomr.crdt import Origin

CHAOS_S = 4.0
SELDOM_S = 0.5
"""Beats are most of what happens where all is quiet, and DOWN_S is six of these."""
MIX = Mix(slow_s=1.0, pause_s=1.0, down_s=1.0)
KEYS = [f"k{number}" for number in range(6)]


def at_random(draw: random.Random, node: CoreNode, now_s: float) -> Iterable[object]:
    """Let a node register, end a process, or put something."""
    key = draw.choice(KEYS)
    match draw.randrange(4):
        case 0 | 1:
            node.register(key, now_s)
        case 2:
            node.end(key, now_s)
        case 3:
            return node.put(draw.randrange(5), draw.randrange(100), now_s)
    return node.act()


def chaos(simulation: Simulation) -> None:
    """All goes wrong, and in the end all agree on who has which name."""
    draw = simulation.random
    if draw.random() < 0.2:
        simulation.use_codec(CODEC)
    batch = draw.choice([3, 50])
    options = ReplicatorOptions(
        shards=draw.choice([1, 2, 3]),
        retire_restarted_after_s=draw.choice([1.0, 60.0]),
        replication=ReplicationOptions(batch_events=batch),
    )
    world = World(options, is_durable=draw.random() < 0.5)
    add_nodes(simulation, world, draw.choice([2, 3, 5]))
    refuse_bad_facts(simulation)
    simulation.plan(
        draw_faults(draw, simulation.names, within_s=CHAOS_S, number=5, mix=MIX)
    )
    simulation.start()
    for _ in range(60):
        name = draw.choice(simulation.names)
        do = partial(simulation.do, name, partial(at_random, draw))
        simulation.at(simulation.now_s + draw.uniform(0.0, CHAOS_S), do)
    simulation.run(CHAOS_S)
    simulation.heal()
    simulation.run(MIX.slow_s)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=10.0)
    simulation.run_until(lambda: are_equal(simulation), within_s=10.0)
    check_names(simulation)
    if world.is_durable:
        # What was stored of it all is enough to begin with.
        for name in simulation.names:
            simulation.restart(name)
        simulation.run_until(lambda: all_meet(simulation), within_s=10.0)
        simulation.run_until(lambda: are_equal(simulation), within_s=10.0)


def check_names(simulation: Simulation) -> None:
    """Assert that each name is its holder's, on all nodes, and no other is found.

    A hello that was lost is asked for when the next digest comes.
    """
    simulation.run_until(lambda: not wrong_names(simulation), within_s=5.0)


def wrong_names(simulation: Simulation) -> list[str]:
    """Return the names that are not found where they are, on all nodes."""
    holders: dict[str, list[CoreNode]] = {}
    for node in nodes(simulation):
        for key in node.held:
            holders.setdefault(key, []).append(node)
    wrong = []
    for key in KEYS:
        found = {node.whereis(key) for node in nodes(simulation)}
        expected: set[Origin | None] = {h.origin for h in holders.get(key, ())}
        expected = expected or {None}
        if found != expected:
            wrong.append(key)
    return wrong


class Lookout:
    """Looks up names on all nodes, again and again, while nodes restart.

    Attributes:
        lost: who did not find whose names, though both were up for a second.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.lost: list[tuple[str, str]] = []
        self.settled: dict[str, float] = {}
        self.stale: dict[tuple[str, str], float] = {}
        self.seen: dict[str, tuple[object, list[tuple[str, Origin | None]]]] = {}

    def register(self, name: str) -> None:
        """Let a node register ten processes: nothing else may have their names."""
        self.simulation.do(name, partial(self._register, name))
        self.settled[name] = self.simulation.now_s + 1.0

    def _register(self, name: str, node: CoreNode, now_s: float) -> Iterable[object]:
        for at in range(10):
            assert node.register(f"{name}/{at}", now_s)
        return node.act()

    def restart(self, name: str) -> None:
        """Restart a node; it registers a moment later."""
        self.simulation.restart(name)
        self.settled[name] = float("inf")
        self.simulation.run(0.05)
        self.register(name)

    def look(self) -> None:
        """Look up two names of each node on each node."""
        lives = {n: self.simulation.node(n).origin for n in self.simulation.names}
        for node in nodes(self.simulation):
            for name, found in self._found(node):
                self._judge(node.boot.name, name, found, lives[name])

    def _found(self, node: CoreNode) -> list[tuple[str, Origin | None]]:
        """Look up two names of each node, if the answer can be another one now."""
        shards = node.core.shards
        known = [(s.origin, s.log.state_hash, *s.nodes.values()) for s in shards]
        before, found = self.seen.get(node.boot.name, (None, []))
        if known != before:
            found = [
                (name, node.whereis(f"{name}/{at}"))
                for name in self.simulation.names
                for at in (0, 9)
            ]
            self.seen[node.boot.name] = known, found
        return found

    def _judge(
        self, here: str, name: str, found: Origin | None, present: Origin
    ) -> None:
        now_s, both = self.simulation.now_s, (here, name)
        if found in {present, None}:
            self.stale.pop(both, None)
        else:
            since_s = self.stale.setdefault(both, now_s)
            assert now_s - since_s <= 1.0, f"{both}: a name of a dead process"
        if found != present and all(now_s >= self.settled[n] for n in both):
            self.lost.append(both)


def rolling(simulation: Simulation, rounds: int = 20, number: int = 5) -> None:
    """Each node is restarted, again and again, while its processes have names.

    Nobody fails to find a name that a node holds which stays up.  A name of a node
    that was killed is found for a second at most.
    """
    draw = simulation.random
    options = ReplicatorOptions(shards=2, retire_restarted_after_s=2.0)
    add_nodes(simulation, World(options, beat_s=SELDOM_S), number)
    refuse_bad_facts(simulation)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    lookout = Lookout(simulation)
    for name in simulation.names:
        lookout.register(name)
    simulation.run(1.0)
    simulation.every(0.05, lookout.look)
    for _ in range(rounds):
        for name in simulation.names:
            lookout.restart(name)
            simulation.run(draw.uniform(0.5, 1.5))
    simulation.run(2.0)
    simulation.run_until(lambda: most_origins(simulation) <= number + 1, within_s=8.0)
    assert lookout.lost == []


def most_origins(simulation: Simulation) -> int:
    """Return how many lives the longest vector has."""
    shards = [shard for node in nodes(simulation) for shard in node.core.shards]
    return max(len(shard.log.vector) for shard in shards)


def rolling_short(simulation: Simulation) -> None:
    """The same, less often."""
    rolling(simulation, 1, simulation.random.choice([2, 3]))


def many_keys(
    simulation: Simulation, keys: int = 100, faults: int = 5, batch: int = 80
) -> None:
    """More keys than a message holds, over cuts and restarts, reach both nodes.

    Other libraries send the keys of a full message with a context of all, and what is
    not in it reads as removed (delta_crdt_ex 65).
    """
    draw = simulation.random
    options = ReplicatorOptions(
        shards=1, replication=ReplicationOptions(batch_events=batch)
    )
    add_nodes(simulation, World(options, is_durable=True), 2)
    refuse_bad_facts(simulation)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    one, other = simulation.names

    def put(node: CoreNode, now_s: float) -> Iterable[object]:
        for key in range(keys):
            node.put(key, key, now_s)
        node.boot.disk.sync()
        return node.act()

    simulation.do(one, put)
    expected = {key: key for key in range(keys)}
    for _ in range(faults):
        match draw.randrange(3):
            case 0:
                simulation.cut([one], [other])
                simulation.run(draw.choice([0.1, 1.0, 4.0]))
                simulation.mend()
            case 1:
                simulation.restart(draw.choice([one, other]))
            case 2:
                simulation.restart(other, lose_disk=True)
        simulation.run(draw.choice([0.01, 0.1, 1.0]))
        assert len(simulation.node(one).map) == keys
    simulation.run_until(lambda: are_equal(simulation), within_s=10.0)
    assert simulation.node(one).map == simulation.node(other).map == expected


def long_cut(
    simulation: Simulation,
    keys: int = 60,
    cut_s: float = 5.0,
    within_s: float = 5.0,
    shards: int = 2,
) -> None:
    """Two sides write for long without each other, and are equal soon after."""
    options = ReplicatorOptions(
        shards=shards, voters={"n0", "n1", "n2"}, replication=REPLICATION
    )
    add_nodes(simulation, World(options, beat_s=SELDOM_S), 4)
    refuse_bad_facts(simulation)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    left, right = simulation.names[:2], simulation.names[2:]
    simulation.cut(left, right)

    def write(name: str, start: int) -> None:
        def call(node: CoreNode, now_s: float) -> Iterable[object]:
            for key in range(start, start + keys // 10):
                node.put(key % keys, start + (name in right), now_s)
            return node.act()

        simulation.do(name, call)

    for step in range(10):
        write(left[0], step * keys // 10)
        write(right[0], keys - (step + 1) * keys // 10)
        simulation.run(cut_s / 10)
    assert simulation.node(left[0]).map != simulation.node(right[0]).map
    simulation.mend()
    simulation.set_quality(Quality(loss=0.0))
    simulation.run_until(lambda: all_meet(simulation), within_s=2.0)
    simulation.run_until(lambda: are_equal(simulation), within_s=within_s)
    assert (
        len({tuple(sorted(node.map.items(), key=str)) for node in nodes(simulation)})
        == 1
    )


def returning(simulation: Simulation) -> None:
    """A node that was given up comes back: it begins anew, and has its names again."""
    draw = simulation.random
    options = ReplicatorOptions(
        shards=2, voters={"n0", "n1", "n2"}, retire_after_s=10.0, quiet_s=1.0
    )
    add_nodes(simulation, World(options, is_durable=draw.random() < 0.5), 3)
    born: list[str] = []
    simulation.observe(lambda name, fact: note_birth(born, name, fact))
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    away = draw.choice(simulation.names)
    others = [name for name in simulation.names if name != away]
    registers(simulation, away, KEYS[:4])
    registers(simulation, others[0], KEYS[4:])
    simulation.run(1.0)
    simulation.cut([away], others)
    simulation.run(5.0)
    registers(simulation, away, ["late"])
    simulation.run_until(lambda: is_given_up(simulation, away), within_s=60.0)
    assert born == []
    simulation.set_quality(Quality(loss=0.3))
    simulation.mend()
    simulation.run(10.0)
    simulation.heal()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
    assert set(born) == {away}
    assert len(born) <= 2
    check_names(simulation)
    present = simulation.node(away).origin
    assert all(node.whereis("late") == present for node in nodes(simulation))


def buried(simulation: Simulation) -> None:
    """A node comes back that was buried and not retired: it has its names again."""
    draw = simulation.random
    options = ReplicatorOptions(
        shards=2, voters={"n0", "n1", "n2"}, retire_after_s=5.0, quiet_s=1.0
    )
    world = World(options, is_durable=draw.random() < 0.5, beat_s=SELDOM_S)
    add_nodes(simulation, world, 3)
    refuse_bad_facts(simulation)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    away = draw.choice(simulation.names)
    others = [name for name in simulation.names if name != away]
    for key in range(10):
        # What lives of it keeps its logs from being retired.
        simulation.do(away, partial(put, key))
    registers(simulation, away, KEYS)
    simulation.run(1.0)
    simulation.cut([away], others)
    simulation.run_until(lambda: not any_owned(simulation, others), within_s=60.0)
    if draw.random() < 0.5:
        for name in others:
            for shard in simulation.node(name).core.shards:
                shard.log.tail.cut(shard.log.vector)
    simulation.set_quality(Quality(loss=0.3))
    simulation.mend()
    simulation.run(6.0)
    simulation.heal()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
    check_names(simulation)
    assert sorted(simulation.node(away).held) == KEYS


def put(key: int, node: CoreNode, now_s: float) -> Iterable[object]:
    return node.put(key, key, now_s)


def any_owned(simulation: Simulation, names: list[str]) -> bool:
    """Return whether these nodes still have names of a node that is out of sight."""
    return any(
        shard.open(OwnedMap, NAMES).cells()
        for name in names
        for shard in simulation.node(name).core.shards
    )


def note_birth(born: list[str], name: str, fact: object) -> None:
    assert not isinstance(fact, Alarm), (name, fact)
    if isinstance(fact, Reborn):
        born.append(name)


def registers(simulation: Simulation, name: str, keys: list[str]) -> None:
    def call(node: CoreNode, now_s: float) -> Iterable[object]:
        for key in keys:
            assert node.register(key, now_s)
        return node.act()

    simulation.do(name, call)


def is_given_up(simulation: Simulation, away: str) -> bool:
    """Return whether the others have retired a node's logs."""
    shards = [
        shard
        for name in simulation.names
        if name != away
        for shard in simulation.node(name).core.shards
    ]
    known = {origin.name for shard in shards for origin in shard.log.vector}
    retired = {origin.name for shard in shards for origin in shard.log.retired}
    return away in retired - known


STARVED_S = 60.0
SLICE_S = 0.05


def starved(simulation: Simulation, within_s: float) -> None:
    """A node has a twentieth of its time for a minute, and is equal soon after.

    It reads what came meanwhile in one go, and all of its timers are late; half of the
    messages are lost, so that nothing but its rounds brings what it lacks.
    """
    draw = simulation.random
    add_nodes(simulation, World(ReplicatorOptions(shards=2)), 5)
    refuse_bad_facts(simulation)
    simulation.start()
    simulation.run_until(lambda: all_meet(simulation), within_s=5.0)
    began_s, slow = simulation.now_s, draw.choice(simulation.names)
    for _ in range(300):
        name = draw.choice(simulation.names)
        do = partial(simulation.do, name, partial(at_random, draw))
        simulation.at(began_s + draw.uniform(0.0, STARVED_S), do)
    simulation.set_quality(Quality(loss=0.5))
    while simulation.now_s < began_s + STARVED_S:
        simulation.pause(slow, 19 * SLICE_S)
        simulation.run(20 * SLICE_S)
    for name in simulation.names:
        simulation.do(name, partial(at_random, draw))
    simulation.run(SLICE_S)
    simulation.heal()
    simulation.run_until(lambda: all_meet(simulation), within_s=within_s)
    simulation.run_until(lambda: are_equal(simulation), within_s=within_s)
    check_names(simulation)


SCENARIOS = (
    Scenario("replicator.chaos", chaos, found=(378, 427, 707)),
    Scenario("replicator.rolling", rolling_short),
    Scenario("replicator.many_keys", many_keys),
    Scenario("replicator.long_cut", long_cut),
    Scenario("replicator.returning", returning, found=(314,)),
    Scenario("replicator.buried", buried),
)
