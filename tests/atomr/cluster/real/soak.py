"""A cluster of five processes under load, of which one is killed again and again.

    python -m tests.atomr.cluster.real.soak --minutes 60

All nodes write to one replicated map.  The first is never killed: what it takes of
memory must come to an end.  At the end all hold the same, and no node has ever seen
another one that knew as much and held something else.

It prints a line a minute, and exits with 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import trio

from tests.atomr.cluster.real.harness import RealCluster, RealNode, open_real_cluster

NAMES = tuple("abcde")
EQUAL_WITHIN_S = 120.0
FILLED_AFTER_S = 600.0
"""By then all tables and logs are as full as they get."""
MOST_GROWTH = 1.05


@attrs.frozen
class Soak:
    """What is to be done.

    Attributes:
        for_s: how long nodes are killed.
        kills: at least so many, however long a busy machine takes for them.
        each_s: between two kills.
        per_s: writes, of all nodes together.
        keys: that are written to.
    """

    for_s: float
    kills: int = 1
    each_s: float = 30.0
    per_s: float = 500.0
    keys: int = 5_000


@attrs.frozen
class Came:
    """What came of it.

    Attributes:
        kills: how many.
        alarms: of replicators, that only a bug can bring about.
        crashes: of processes of nodes that were not killed.
        equal_after_s: since the last write; None: they never were.
        memory_mib: of the first node: seconds since the start, and what it took.
    """

    kills: int
    alarms: tuple[str, ...]
    crashes: tuple[str, ...]
    equal_after_s: float | None
    memory_mib: tuple[tuple[float, float], ...]

    @property
    def growth(self) -> float | None:
        """How many times as much it took at the end as when all was full."""
        filled = [mib for at_s, mib in self.memory_mib if at_s >= FILLED_AFTER_S]
        return filled[-1] / filled[0] if len(filled) > 1 else None

    def problems(self) -> list[str]:
        """Return what does not hold."""
        found = [*self.alarms, *self.crashes]
        if self.equal_after_s is None:
            found.append(f"they were not equal within {EQUAL_WITHIN_S} s")
        if self.growth is not None and self.growth > MOST_GROWTH:
            found.append(f"memory grew to {self.growth:.3f} of what it was")
        return found


async def soak(folder: Path, wanted: Soak) -> Came:
    """Run it in a folder for certificates, and return what came of it."""
    async with AsyncExitStack() as stack:
        opened = open_real_cluster(folder, NAMES)
        cluster = await stack.enter_async_context(opened)
        await cluster.start()
        began_s = time.monotonic()
        for node in cluster.nodes.values():
            await write(node, wanted)
        kills, memory = 0, []
        for name in itertools.cycle(NAMES[1:]):
            await trio.sleep(wanted.each_s)
            at_s = time.monotonic() - began_s
            memory.append((at_s, resident_mib(cluster[NAMES[0]])))
            tell(cluster, at_s, kills)
            if at_s >= wanted.for_s and kills >= wanted.kills:
                break
            await cluster[name].kill()
            kills += 1
            await cluster[name].start()
            await cluster.meet()
            await write(cluster[name], wanted)
        equal_after_s = await come_to_be_equal(cluster)
        return Came(
            kills,
            tuple(all_told(cluster, "alarm", "problem")),
            tuple(all_told(cluster, "crash", "reason")),
            equal_after_s,
            tuple(memory),
        )


async def write(node: RealNode, wanted: Soak) -> None:
    """Let a node write its share."""
    await node.ask("write", per_s=wanted.per_s / len(NAMES), keys=wanted.keys)


async def come_to_be_equal(cluster: RealCluster) -> float | None:
    """Stop all writes, and return after how long all hold the same."""
    for node in cluster.nodes.values():
        await node.ask("write", per_s=0, keys=0)
    began_s = time.monotonic()
    while time.monotonic() - began_s < EQUAL_WITHIN_S:
        marks = [await node.ask("marks") for node in cluster.nodes.values()]
        if all(each == marks[0] for each in marks):
            return time.monotonic() - began_s
        await trio.sleep(0.05)
    return None


def resident_mib(node: RealNode) -> float:
    """Return how much memory a node's process has now."""
    status = Path(f"/proc/{node.pid}/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def all_told(cluster: RealCluster, event: str, field: str) -> list[str]:
    """Return what all nodes have said of a kind, in all their lives."""
    return [
        f"{node.name}: {said[field]}"
        for node in cluster.nodes.values()
        for said in node.told(event)
    ]


def tell(cluster: RealCluster, at_s: float, kills: int) -> None:
    """Print how all are."""
    memory = " ".join(
        f"{node.name} {resident_mib(node):.1f}" for node in cluster.nodes.values()
    )
    alarms = len(all_told(cluster, "alarm", "problem"))
    print(f"{at_s:7.0f} s  {kills:4} kills  {alarms} alarms  MiB: {memory}", flush=True)


def main() -> int:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--each-s", type=float, default=30.0)
    parser.add_argument("--per-s", type=float, default=500.0)
    given = parser.parse_args()
    wanted = Soak(60.0 * given.minutes, each_s=given.each_s, per_s=given.per_s)
    with tempfile.TemporaryDirectory() as folder:
        came = trio.run(soak, Path(folder), wanted)
    print(f"{came.kills} kills; equal {came.equal_after_s} s after the last write")
    if came.growth is not None:
        print(f"memory: {came.growth:.3f} of what it was after {FILLED_AFTER_S:g} s")
    for problem in came.problems():
        print(problem)
    return 1 if came.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
