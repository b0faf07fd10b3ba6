"""Limits under whatever can go wrong: no window ever has too many uses."""

from __future__ import annotations

from functools import partial

import attrs

from atomr.gossip.escrow import Limit, Mode
from atomr.testing.simulation import (
    Crash,
    Mix,
    Planned,
    Quality,
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
    drawn = {
        "voters": NAMES[: draw.choice((2, 3, 5))],
        "floor_fraction": draw.choice((0.0, 0.1, 0.3, 1.0)),
        "lease_s": draw.choice((0.5, 2.0)),
        "mode": Mode.STRICT if draw.random() < 0.2 else Mode.ESCROW,
        "use_log": draw.random() < 0.5,
        "drift": DRIFT,
        "away_s": None,
    }
    drawn["permits"] = draw.choice((7, 25, 60))
    drawn["window_s"] = draw.uniform(2.0, 5.0)
    return Limit(name="rpm", **(drawn | terms))  # type: ignore[arg-type]


def _few(simulation: Simulation) -> tuple[str, ...]:
    """Return two or three voters: each one that only ticks costs as much as others."""
    return NAMES[: simulation.random.choice((2, 3))]


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


def leases(simulation: Simulation) -> None:
    """A lessee is cut off while it uses what it was lent up to the last moment.

    Its clock is slow, that of its home is fast, and what the home says comes late.
    """
    draw = simulation.random
    limit = _limit(
        simulation,
        voters=_few(simulation),
        permits=40,
        lease_s=2.0,
        floor_fraction=0.0,
    )
    world = World(simulation, limit)
    rates = [1.0 + DRIFT if v == limit.home else 1.0 - DRIFT for v in limit.voters]
    world.add(*limit.voters, rates=rates)
    cut_s = draw.uniform(1.0, 2.0)
    lent_again_s = cut_s + limit.lease_s + limit.window_s
    within_s = lent_again_s + 1.1  # as late as an answer may be
    steady(world, within_s, share=0.5)
    lessee = draw.choice([v for v in limit.voters if v != limit.home])
    others = [v for v in limit.voters if v != lessee]
    late = Quality(delay_s=draw.choice((0.0, 0.3, 1.0)))
    simulation.set_quality(late, sender=limit.home, to=lessee)
    simulation.at(cut_s, partial(simulation.cut, [lessee], others))
    for number in range(200):  # whatever comes back is used at once
        at_s = lent_again_s - 1.0 + 0.007 * number
        simulation.at(at_s, partial(world.ask, draw.choice(others)))
    simulation.start()
    simulation.run(within_s)
    world.check()


def hammer(simulation: Simulation) -> None:
    """Whatever is free is used within milliseconds."""
    draw = simulation.random
    limit = _limit(
        simulation,
        voters=_few(simulation),
        permits=60,
        window_s=draw.uniform(1.0, 2.0),
    )
    world = World(simulation, limit)
    world.add(*limit.voters, rates=_rates(simulation, limit))
    within_s = 2.2 * limit.window_s
    hot = draw.choice(limit.voters)
    at_s = 0.0
    while at_s < within_s:
        at_s += draw.expovariate(1.0 / 0.006)
        simulation.at(at_s, partial(world.ask, hot))
    simulation.start()
    simulation.run(within_s)
    world.check()


def restarts(simulation: Simulation) -> None:
    """Nodes crash again and again, and all that they own is in use."""
    draw = simulation.random
    limit = _limit(
        simulation,
        permits=100,
        floor_fraction=1.0,
        use_log=True,
    )
    world = World(simulation, limit)
    rates = _rates(simulation, limit)
    if draw.random() < 0.7:  # then nothing is left over by a clock that is slow
        rates = [1.0 + DRIFT] * len(rates)
    world.add(*limit.voters, rates=rates)
    within_s = 2.8 * limit.window_s
    steady(world, within_s, share=1.0 / len(limit.voters))
    for _ in range(draw.randrange(1, 6)):
        name = draw.choice(limit.voters)
        crash = partial(simulation.restart, name, lose_disk=draw.random() < 0.1)
        # What a log says begins to matter when its first lines are a window old; what
        # there is before that, a log that is young or empty, is seen by one in five.
        first = 0.0 if draw.random() < 0.2 else 0.3
        at_s = draw.uniform(first, 0.95) * within_s
        simulation.at(at_s, crash)
        for number in range(1, 16):  # whatever is free then is used at once
            simulation.at(at_s + 0.01 * number, partial(world.ask, name))
    simulation.start()
    simulation.run(within_s)
    world.check()


def changed(simulation: Simulation) -> None:
    """The limit is raised or lowered, twice, on one node after the other.

    While nodes differ there is as much as under the one or the other.  What there is
    under the last terms holds when all have taken them, and leases of before are over.
    """
    draw = simulation.random
    limit = _limit(simulation, use_log=False)
    terms = dict.fromkeys(limit.voters, limit)
    world = World(simulation, limit, limit_of=lambda name: terms[name])
    world.add(*limit.voters, rates=_rates(simulation, limit))
    window_s, within_s = limit.window_s, 5.5 * limit.window_s
    _load(world, within_s)
    simulation.plan(_faults(simulation, limit, within_s))
    limits = [limit]
    first_s = 1.5 * window_s
    changes_s = first_s, first_s + draw.choice((1.0, 2.5 * window_s))
    for at_s in changes_s:
        limit = attrs.evolve(
            limit,
            permits=draw.choice((5, 20, 25, 60, 90)),
            floor_fraction=draw.choice((0.0, 0.1, 0.3, 1.0)),
        )
        limits.append(limit)
        for name in limit.voters:
            take_s = at_s + draw.uniform(0.0, 1.0)
            simulation.at(take_s, partial(world.change, terms, name, limit))
    simulation.start()
    simulation.run(within_s)
    most = len(limit.voters) * max(each.floor for each in limits)
    world.check_within(0.0, within_s, most + max(each.pool for each in limits))
    for each, to_s in zip(limits, (*changes_s, within_s), strict=True):
        took_s = world.took_s.get(each, 0.0)
        lapsed_s = took_s + limit.lapse_s / (1.0 - DRIFT) if took_s else 0.0
        world.check_within(lapsed_s, to_s, each.permits)


def steady(world: World, within_s: float, *, share: float) -> None:
    """Offer evenly half more than the limit, a share of it to the last voter."""
    draw = world.simulation.random
    *others, last = world.limit.voters
    every_s = world.limit.window_s / world.limit.permits / 1.5
    for number in range(int(within_s / every_s)):
        name = last if draw.random() < share else draw.choice(others)
        world.simulation.at(number * every_s, partial(world.ask, name))


SCENARIOS = (
    Scenario("limits.requests", chaos),
    Scenario("limits.tokens", tokens),
    Scenario("limits.leases", leases),
    Scenario("limits.hammer", hammer),
    Scenario("limits.restarts", restarts),
    Scenario("limits.changed", changed),
)
