"""What replication is held to, measured: how fast, how often, at what price.

In the simulator, over links of 0.5 to 2 ms, with the defaults, and bytes as they are
encoded: figures of the protocol, the same on each machine.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import attrs

from atomr.crdt import AWLWWMap
from atomr.gossip.replication import Applied, PeerDown, PeerUp, Wrote
from atomr.testing.simulation import GOOD, Quality, Simulation
from tests.atomr.gossip.replication_world import (
    CODEC,
    ReplicaNode,
    World,
    add_nodes,
    are_equal,
    nodes,
)

WRITES = 60
DIFFERING = 10_000
SPLIT_S = 600.0


def cluster(number: int, seed: int, *, loss: float = 0.0) -> Simulation:
    """Return nodes that know each other."""
    simulation = Simulation(seed)
    simulation.use_codec(CODEC)
    add_nodes(simulation, World(), number)
    simulation.start()
    simulation.run(2.0)
    simulation.set_quality(Quality(loss=loss))
    return simulation


def _put(key: str | int, node: ReplicaNode, now_s: float) -> list[object]:
    node.log.open(AWLWWMap, "m").put(key, 1)
    return node.act(Wrote(), now_s)


def _sent_bytes(simulation: Simulation) -> int:
    return sum(simulation.host(name).sent_bytes for name in simulation.names)


def propagation_s(number: int, loss: float, seed: int) -> list[float]:
    """Return how long each of some writes took to be everywhere."""
    simulation = cluster(number, seed, loss=loss)
    began: dict[Any, float] = {}
    heard: dict[Any, int] = {}
    took: list[float] = []

    def see(_: str, fact: object) -> None:
        for event in fact.events if isinstance(fact, Applied) else ():
            heard[event.key] = heard.get(event.key, 0) + 1
            if heard[event.key] == number - 1:
                took.append(simulation.now_s - began[event.key])

    def write(key: int) -> None:
        began[key] = simulation.now_s
        simulation.do(simulation.random.choice(simulation.names), partial(_put, key))

    simulation.observe(see)
    for key in range(WRITES):
        at_s = simulation.now_s + key * 0.5 + simulation.random.random()
        simulation.at(at_s, partial(write, key))
    simulation.run(WRITES * 0.5 + 20.0)
    assert len(took) == WRITES, f"{WRITES - len(took)} writes are not everywhere"
    return took


@attrs.frozen
class Traffic:
    """What writes cost.

    Attributes:
        copies: how often an event came to a node, on average.
        bytes_per_s: that a node sent.
    """

    copies: float
    bytes_per_s: float


def traffic(number: int, per_s: int, seed: int, *, loss: float = 0.0) -> Traffic:
    """Let nodes write at a rate, of all together, for some seconds."""
    simulation = cluster(number, seed, loss=loss)
    draw = simulation.random
    for_s = max(1.0, min(10.0, 4_000 / per_s))
    writes = int(per_s * for_s)
    before = _sent_bytes(simulation)
    for at in range(writes):
        name, key = draw.choice(simulation.names), draw.randrange(1_000)
        at_s = simulation.now_s + at / per_s
        simulation.at(at_s, partial(simulation.do, name, partial(_put, key)))
    simulation.run(for_s)
    sent = _sent_bytes(simulation) - before
    simulation.run_until(lambda: are_equal(simulation), within_s=5.0)
    received = [node.machine.received for node in nodes(simulation)]
    applied = sum(counts["applied"] for counts in received)
    assert applied == (number - 1) * writes
    known = sum(counts["known"] for counts in received)
    return Traffic(1 + known / applied, sent / for_s / number)


def idle(number: int, seed: int, *, for_s: float = 20.0) -> tuple[float, float]:
    """Return bytes a second and node when nothing happens, and share of a core."""
    simulation = cluster(number, seed)
    for name in simulation.names:  # so that each is in the vector
        simulation.do(name, partial(_put, name))
    simulation.run(5.0)
    before, began = _sent_bytes(simulation), time.process_time()
    simulation.run(for_s)
    took_s = time.process_time() - began
    sent = _sent_bytes(simulation) - before
    return sent / for_s / number, took_s / for_s / number


def heal_s(seed: int, *, differing: int = DIFFERING, split_s: float = SPLIT_S) -> float:
    """Return how long after a split of two and three nodes all are equal.

    Counted from the first contact, of which links and membership tell both sides.
    """
    simulation = cluster(5, seed)
    left, right = simulation.names[:2], simulation.names[2:]
    simulation.cut(left, right)
    _tell(simulation, left, right, PeerDown)
    each = differing // 2
    for side, names in enumerate((left, right)):
        for key in range(each):
            at_s = simulation.now_s + (key + 1) / each * split_s * 0.99
            write = partial(_put, f"{side}/{key}")
            name = names[key % len(names)]
            simulation.at(at_s, partial(simulation.do, name, write))
    simulation.run(split_s)
    simulation.mend()
    _tell(simulation, left, right, PeerUp)
    took_s = simulation.run_until(
        lambda: are_equal(simulation), within_s=30.0, step_s=0.01
    )
    sizes = {len(node.log.open(AWLWWMap, "m")) for node in nodes(simulation)}
    assert sizes == {differing}
    return took_s


def _tell(
    simulation: Simulation,
    left: tuple[str, ...],
    right: tuple[str, ...],
    kind: type[PeerDown | PeerUp],
) -> None:
    """Tell each side of each node of the other one."""
    for here, there in ((left, right), (right, left)):
        for name in here:
            for other in there:
                event = kind(simulation.node(other).log.origin)
                simulation.do(name, partial(_act, event))


def _act(event: PeerDown | PeerUp, node: ReplicaNode, now_s: float) -> list[object]:
    return node.act(event, now_s)


@attrs.frozen
class Slowed:
    """What came of a node that hears all late.

    Attributes:
        slow: how often an event came to it, on average.
        others: and to another one, at most.
        equal_after_s: how long after the last write all were equal.
        waits_s: how long the others give it.
    """

    slow: float
    others: float
    equal_after_s: float
    waits_s: set[float]


def slowed(
    late_s: float,
    seed: int,
    *,
    lossy: Quality | None = None,
    then_quick_s: float = 0.0,
) -> Slowed:
    """Let all five write, fifty times a second, while one hears all late.

    Args:
        late_s: by how much.
        seed: of the simulation.
        lossy: for the last two seconds its links are so.
        then_quick_s: for so long it hears in time again, while all write.
    """
    simulation = cluster(5, seed)
    slow, *others = simulation.names
    late = Quality(delay_s=late_s, jitter_s=0.0, in_order=True)
    simulation.set_quality(late, to=slow)
    _write_evenly(simulation, 20.0)
    if lossy is not None:
        simulation.set_quality(lossy, to=slow)
        _write_evenly(simulation, 2.0)
        simulation.set_quality(late, to=slow)
    if then_quick_s:
        simulation.set_quality(GOOD, to=slow)
        _write_evenly(simulation, then_quick_s)
    took_s = simulation.run_until(lambda: are_equal(simulation), within_s=30.0)
    # What is under way comes, too.
    simulation.run(2 * late_s)
    copies = {
        name: 1 + received["known"] / received["applied"]
        for name in simulation.names
        for received in [simulation.node(name).machine.received]
    }
    origin = simulation.node(slow).log.origin
    return Slowed(
        copies[slow],
        max(copies[name] for name in others),
        took_s,
        {simulation.node(name).machine.wait_s(origin) for name in others},
    )


def _write_evenly(simulation: Simulation, for_s: float, per_s: int = 50) -> None:
    draw = simulation.random
    for at in range(int(for_s * per_s)):
        name, key = draw.choice(simulation.names), draw.randrange(1_000)
        at_s = simulation.now_s + at / per_s
        simulation.at(at_s, partial(simulation.do, name, partial(_put, key)))
    simulation.run(for_s)
