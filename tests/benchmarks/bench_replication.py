"""How fast, how often and at what price nodes hear of what others wrote.

    python tests/benchmarks/bench_replication.py [SEEDS]

In the simulator: links of 0.5 to 2 ms, each node with the defaults, bytes as they
are encoded.  So the figures are those of the protocol, the same on each machine;
only what CPU takes is of this one.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from typing import TYPE_CHECKING

from atomr.crdt import AWLWWMap, EventLog, LogTail, Origin
from atomr.gossip.replication import (
    AskSnapshot,
    Digest,
    Effect,
    Event,
    Events,
    PeerUp,
    Push,
    Received,
    Replication,
    Send,
    SnapshotPart,
    Woke,
    Wrote,
)
from tests.atomr.gossip.membership.bars import idle_bytes_per_s
from tests.atomr.gossip.replication_bars import (
    DIFFERING,
    SPLIT_S,
    heal_s,
    idle,
    propagation_s,
    traffic,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SHARDS = 10
SHARD_KEYS = 10_000
ROUNDS = 400

PROPAGATION = (
    (3, 0.0),
    (8, 0.0),
    (16, 0.0),
    (32, 0.0),
    (64, 0.0),
    (8, 0.2),
    (16, 0.2),
    (64, 0.2),
    (16, 0.5),
    (64, 0.5),
)
TRAFFIC = ((5, 200), (5, 2_000), (16, 200), (16, 2_000), (32, 200))


def show_propagation(seeds: int) -> None:
    print("\n| until all have a write, ms | p50 | p95 | worst |")
    print("|---|---|---|---|")
    for number, loss in PROPAGATION:
        runs = seeds if number <= 16 else max(1, seeds // 4)
        took_ms = sorted(
            s * 1e3 for seed in range(runs) for s in propagation_s(number, loss, seed)
        )
        p50, p95 = took_ms[len(took_ms) // 2], took_ms[int(len(took_ms) * 0.95)]
        row = f"{p50:.0f} | {p95:.0f} | {took_ms[-1]:.0f}"
        print(f"| {number} nodes, {loss:.0%} lost | {row} |", flush=True)


def show_traffic(seeds: int) -> None:
    print("\n| writes a second, of all | copies of an event | kB/s and node |")
    print("|---|---|---|")
    for number, per_s in TRAFFIC:
        runs = range(max(1, seeds // 2) if number == 5 else 1)
        found = [traffic(number, per_s, seed) for seed in runs]
        copies = max(each.copies for each in found)
        kilobytes = statistics.mean(each.bytes_per_s for each in found) / 1e3
        print(f"| {number} nodes, {per_s} | {copies:.3f} | {kilobytes:.1f} |")


def show_idle() -> None:
    print("\n| idle: bytes a second and node | replication | membership | a core |")
    print("|---|---|---|---|")
    for number in (5, 16, 64):
        sent, share = idle(number, 1)
        members = idle_bytes_per_s(number, 1, for_s=20.0)
        print(f"| {number} nodes | {sent:.0f} | {members:.0f} | {share:.2%} |")


def show_heal() -> None:
    took_s = heal_s(1)
    print(
        f"\nafter {SPLIT_S / 60:.0f} minutes apart, with {DIFFERING:,} keys that"
        f" differ: five nodes are equal {took_s:.2f} s after the first contact"
    )


# --- single steps -------------------------------------------------------------------


class Timed:
    """Two replicators of one shard, whose steps are timed.

    The logs of every other shard hold so little that its keys go by a snapshot.
    """

    def __init__(self, steps: dict[str, list[float]], shard: int) -> None:
        self.steps = steps
        self.now_s = 0.0
        self.machines: dict[str, Replication] = {}
        for name in ("a", "b"):
            tail = LogTail(max_events=1_000 if shard % 2 else 50_000)
            log = EventLog(Origin(name, shard + 1), tail=tail)
            draw = random.Random(shard)
            self.machines[name] = Replication(log, draw=draw, now_s=0.0)
        keys = self.machines["a"].log.open(AWLWWMap, "m")
        for key in range(SHARD_KEYS):
            keys.put(f"key-{key}", f"value-{key}")

    def do(self, name: str, what: str, act: Callable[[], list[Effect]]) -> None:
        """Time one step, and let follow what follows from it."""
        began = time.thread_time()
        effects = act()
        took_s = time.thread_time() - began
        self.steps.setdefault(what, []).append(took_s)
        sender = self.machines[name].log.origin
        for effect in effects:
            if isinstance(effect, Send):
                received = Received(sender, effect.frame)
                self.step(effect.to.name, _KINDS[type(effect.frame)], received)

    def step(self, name: str, what: str, event: Event) -> None:
        machine = self.machines[name]
        self.do(name, what, lambda: machine.handle(event, self.now_s))

    def meet(self) -> None:
        """Let b begin with nothing, and get all."""
        for name, other in (("a", "b"), ("b", "a")):
            self.step(name, "a peer is up", PeerUp(self.machines[other].log.origin))

    def write(self, draw: random.Random) -> None:
        """Write some keys, and let time pass."""
        name = draw.choice("ab")
        keys = self.machines[name].log.open(AWLWWMap, "m")
        for _ in range(draw.randrange(20)):
            keys.put(f"key-{draw.randrange(SHARD_KEYS)}", draw.random())
        self.step(name, "wrote", Wrote())
        self.now_s += 0.05
        for each in ("a", "b"):
            self.step(each, "woke", Woke())


_KINDS: dict[type, str] = {
    Push: "push",
    Events: "events",
    Digest: "digest",
    AskSnapshot: "a part is asked for",
    SnapshotPart: "a part of a snapshot",
}


def show_steps() -> None:
    """Replicate 100,000 keys in shards, and say how long each step took.

    By the thread's CPU, which is how long its loop stands still when no other
    process takes the core away.
    """
    steps: dict[str, list[float]] = {}
    gc.collect()
    gc.freeze()
    draw = random.Random(1)
    shards = [Timed(steps, shard) for shard in range(SHARDS)]
    for shard in shards:
        shard.meet()
    for _ in range(ROUNDS):
        for shard in shards:
            shard.write(draw)
    for shard in shards:
        logs = [machine.log for machine in shard.machines.values()]
        assert len({log.vector for log in logs}) == 1
    print(
        f"\n| a step, of {SHARDS} shards of {SHARD_KEYS:,} keys, ms | n | p99.9 | max |"
    )
    print("|---|---|---|---|")
    for what, took in steps.items():
        _row(what, took)
    _row("all", [s for took in steps.values() for s in took])


def _row(what: str, took: list[float]) -> None:
    took = sorted(took)
    p999 = took[min(len(took) - 1, int(len(took) * 0.999))]
    print(f"| {what} | {len(took):,} | {p999 * 1e3:.2f} | {took[-1] * 1e3:.2f} |")


def main(seeds: int) -> None:
    """Print all tables."""
    show_steps()
    show_propagation(seeds)
    show_traffic(seeds)
    show_idle()
    show_heal()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
