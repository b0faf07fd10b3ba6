"""What each way to keep a limit together admits, in one table.

    python tests/benchmarks/bench_limit_modes.py

Five nodes, 600 permits a minute, 240 s, in the simulator: the same arrivals for
each way.  A cell is ``worst / use``: the most permits that any window of a minute
saw, in percent of the limit, and what was admitted, in percent of what one limiter
that sees all arrivals would have admitted.  The ways are terms of
:class:`atomr.gossip.escrow.Limit`; ``local only`` is a limit for each node, as
gateways have it that count for themselves.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr.crdt import Origin
from atomr.gossip.escrow import FIRST, Escrow, Limit, Mode
from atomr.testing.simulation import Simulation
from tests.atomr.gossip.limit_world import Use, World, worst_window

NAMES = ("a", "b", "c", "d", "e")
PERMITS = 600
WINDOW_S = 60.0
FOR_S = 240.0
LEFT, RIGHT = NAMES[:2], NAMES[2:]

Arrival = tuple[float, str]


@attrs.frozen
class Load:
    """Arrivals, and when the nodes are cut apart, from and until."""

    name: str
    arrivals: Callable[[random.Random], Iterator[Arrival]]
    cut: tuple[float, float] | None = None


def steady(
    draw: random.Random, times: float, weights: list[float]
) -> Iterator[Arrival]:
    """Arrivals at so many times the limit, to the nodes by these weights."""
    at_s = 0.0
    while at_s < FOR_S:
        at_s += draw.expovariate(times * PERMITS / WINDOW_S)
        yield at_s, draw.choices(NAMES, weights)[0]


def even(draw: random.Random) -> Iterator[Arrival]:
    """Three times the limit, the same to all."""
    return steady(draw, 3.0, [1.0] * 5)


def skewed(draw: random.Random) -> Iterator[Arrival]:
    """Nine tenths to one node."""
    return steady(draw, 1.5, [0.9, 0.025, 0.025, 0.025, 0.025])


def moving(draw: random.Random) -> Iterator[Arrival]:
    """Nine tenths to one node, another one every half minute."""
    at_s = 0.0
    while at_s < FOR_S:
        at_s += draw.expovariate(1.5 * PERMITS / WINDOW_S)
        hot = NAMES[int(at_s / 30.0) % 5]
        yield at_s, hot if draw.random() < 0.9 else draw.choice(NAMES)


def burst(draw: random.Random) -> Iterator[Arrival]:
    """Half the limit, and in the middle of the cut fifty times as much for 2 s."""
    yield from steady(draw, 0.5, [1.0] * 5)
    yield from _peak(draw, 120.0)


def idle(draw: random.Random) -> Iterator[Arrival]:
    """Next to nothing for two minutes, then fifty times the limit for 2 s, twice."""
    yield from steady(draw, 0.02, [1.0] * 5)
    yield from _peak(draw, 120.0)
    yield from _peak(draw, 200.0)


def _peak(draw: random.Random, from_s: float) -> Iterator[Arrival]:
    at_s = from_s
    while at_s < from_s + 2.0:
        at_s += draw.expovariate(50.0 * PERMITS / WINDOW_S)
        yield at_s, draw.choice(NAMES)


LOADS = (
    Load("3x load", even),
    Load("skew 90 % on one", skewed),
    Load("moving hot spot", moving),
    Load("cut 2 \\| 3", even, (60.0, 180.0)),
    Load("burst during a cut", burst, (60.0, 180.0)),
    Load("idle, then 50x", idle),
)

WAYS: dict[str, Callable[[str], Limit]] = {
    "escrow": lambda _: _limit(),
    "strict": lambda _: _limit(mode=Mode.STRICT),
    "soft": lambda _: _limit(mode=Mode.SOFT),
    "static split": lambda _: _limit(floor_fraction=1.0),
    "local only": lambda name: Limit("rpm", PERMITS, WINDOW_S, (name,)),
}


def _limit(mode: Mode = Mode.ESCROW, floor_fraction: float = 0.1) -> Limit:
    return Limit(
        "rpm", PERMITS, WINDOW_S, NAMES, mode=mode, floor_fraction=floor_fraction
    )


@attrs.frozen
class Result:
    """Percentages: of the limit, and of what one limiter would admit."""

    worst: float
    use: float
    messages_per_s: float


def measure(load: Load, limit_of: Callable[[str], Limit], seed: int = 1) -> Result:
    """Run one way under one load."""
    arrivals = sorted(load.arrivals(random.Random(seed)))
    simulation = Simulation(seed)
    world = World(simulation, _limit(), limit_of=limit_of)
    world.add(*NAMES)
    for at_s, name in arrivals:
        simulation.at(at_s, partial(world.ask, name))
    if load.cut is not None:
        simulation.at(load.cut[0], partial(simulation.cut, LEFT, RIGHT))
        simulation.at(load.cut[1], simulation.mend)
    simulation.start()
    simulation.run(FOR_S)
    sent = sum(simulation.host(name).sent for name in NAMES)
    worst = world.worst_window(WINDOW_S)
    return Result(
        100.0 * worst / PERMITS,
        100.0 * world.used / one_limiter(arrivals),
        sent / FOR_S / len(NAMES),
    )


def one_limiter(arrivals: list[Arrival]) -> int:
    """Return what one limiter admits that is asked first come, first served."""
    uses: list[float] = []
    for at_s, _ in arrivals:
        if len(uses) < PERMITS or uses[-PERMITS] <= at_s - WINDOW_S:
            uses.append(at_s)
    assert worst_window((Use(at_s, 1) for at_s in uses), WINDOW_S) <= PERMITS
    return len(uses)


def decision_us() -> float:
    """Return what one acquire takes that is granted at once, the best of some."""
    found = []
    for _ in range(5):
        escrow = Escrow(Origin("a", 1))
        limit = Limit("rpm", 10**9, 60.0, ("a", "b"), floor_fraction=1.0)
        escrow.add(limit, 0.0, past=FIRST)
        began = time.perf_counter()
        for number in range(100_000):
            escrow.acquire("rpm", 1, now_s=number * 1e-4)
        found.append((time.perf_counter() - began) * 10.0)
        assert escrow.next_deadline_s is not None
    return min(found)


def main() -> None:
    """Print the table."""
    print("| worst window / use, % | " + " | ".join(load.name for load in LOADS) + " |")
    print("|---|" + "---|" * len(LOADS))
    most = 0.0
    for way, limit_of in WAYS.items():
        results = [measure(load, limit_of) for load in LOADS]
        cells = [f"{result.worst:.1f} / {result.use:.1f}" for result in results]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)
        if way == "escrow":
            most = max(result.messages_per_s for result in results)
    print(f"\nescrow sends {most:.1f} messages a second and node at most")
    print(f"a decision from what is on the node takes {decision_us():.2f} us")


if __name__ == "__main__":
    main()
