"""Limits under whatever can go wrong: no window ever has too many uses."""

from __future__ import annotations

from functools import partial

from atomr.gossip.escrow import Limit, Mode
from atomr.testing.simulation import (
    Crash,
    Mix,
    Planned,
    Restart,
    Scenario,
    Simulation,
    draw_faults,
)
from tests.atomr.gossip.limit_world import Later, World

NAMES = ("a", "b", "c", "d", "e")

DRIFT = 0.05

MIX = Mix(
    crash=2.0,
    lost_disk=1.0,
    drift=1.0,
    slow_s=3.0,
    down_s=3.0,
    drift_rate=DRIFT,
    max_loss=0.5,
)
"""Loss up to 50 %, duplicates 30 %, delays to 3 s, crashes, drift to 5 %."""


def _limit(simulation: Simulation, **terms: object) -> Limit:
    draw = simulation.random
    names = NAMES[: draw.choice((2, 3, 5))]
    drawn = {
        "floor_fraction": draw.choice((0.0, 0.1, 0.3, 1.0)),
        "lease_s": draw.choice((0.5, 2.0)),
        "mode": Mode.STRICT if draw.random() < 0.2 else Mode.ESCROW,
        "use_log": draw.random() < 0.5,
        "drift": DRIFT,
    }
    permits = draw.choice((7, 40, 100))
    window_s = draw.uniform(2.0, 5.0)
    return Limit("rpm", permits, window_s, names, **(drawn | terms))  # type: ignore[arg-type]


def _faults(simulation: Simulation, limit: Limit, within_s: float) -> list[Planned]:
    draw = simulation.random
    number = draw.randrange(2, 12)
    plan = draw_faults(draw, limit.voters, within_s=within_s, number=number, mix=MIX)
    if draw.random() < 0.5:
        at_s = draw.uniform(0.0, within_s)
        again_s = at_s + draw.uniform(0.0, 2.0)
        plan += [
            Planned(at_s, Crash(limit.home)),
            Planned(again_s, Restart(limit.home)),
        ]
    return plan


def _rates(simulation: Simulation, limit: Limit) -> list[float]:
    draw = simulation.random
    return [draw.choice((1.0 - DRIFT, 1.0, 1.0 + DRIFT)) for _ in limit.voters]


def _load(world: World, within_s: float, *, tokens: bool = False) -> None:
    """Offer three times the limit, much of it to one node, in bursts."""
    draw = world.simulation.random
    limit = world.limit
    number = int(3 * limit.permits * within_s / limit.window_s)
    size = max(1, limit.permits // 8) if tokens else 1
    hot = draw.choice(limit.voters)
    at_s = 0.0
    for _ in range(number // ((size + 1) // 2)):
        at_s += draw.expovariate(1.0) * within_s / number * draw.choice((0.1, 1.9))
        at_s = draw.uniform(0.0, within_s) if draw.random() < 0.5 else at_s
        hot = draw.choice(limit.voters) if draw.random() < 0.01 else hot
        name = hot if draw.random() < 0.7 else draw.choice(limit.voters)
        permits = draw.randint(1, size)
        later = (
            Later(draw.randint(0, permits), draw.uniform(0.0, 2.0)) if tokens else None
        )
        world.simulation.at(at_s, partial(world.ask, name, permits, later))


def _run(simulation: Simulation, *, tokens: bool = False) -> None:
    limit = _limit(simulation)
    world = World(simulation, limit)
    world.add(*limit.voters, rates=_rates(simulation, limit))
    within_s = 4.0 * limit.window_s
    _load(world, within_s, tokens=tokens)
    simulation.plan(_faults(simulation, limit, within_s))
    simulation.start()
    simulation.run(within_s)
    world.check()


def chaos(simulation: Simulation) -> None:
    """Requests, one permit each."""
    _run(simulation)


def tokens(simulation: Simulation) -> None:
    """Requests of many permits, of which some are given back."""
    _run(simulation, tokens=True)


SCENARIOS = (
    Scenario("limits.requests", chaos),
    Scenario("limits.tokens", tokens),
)
