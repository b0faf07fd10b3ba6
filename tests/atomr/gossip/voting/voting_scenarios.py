"""A lease under whatever can go wrong: never two holders, and soon one again."""

from __future__ import annotations

from functools import partial

from atomr.gossip.voting import Leave, Stand, Terms
from atomr.testing.simulation import (
    GOOD,
    Mix,
    Quality,
    Scenario,
    Simulation,
    draw_faults,
)
from tests.atomr.gossip.voting.voting_world import World

NAMES = ("a", "b", "c", "d", "e")
DRIFT = 0.05

LEASES = 8.0
"""Within so many leases there is a holder, once a majority is connected."""

MIX = Mix(
    pause=2.0,
    crash=2.0,
    drift=1.0,
    slow_s=3.0,
    pause_s=5.0,
    down_s=3.0,
    drift_rate=DRIFT,
    max_loss=0.5,
)
"""Loss up to 50 %, duplicates 30 %, delays to 3 s, pauses, crashes, drift to 5 %."""


def _terms(simulation: Simulation, **terms: float) -> Terms:
    draw = simulation.random
    names = NAMES[: draw.choice((1, 2, 3, 3, 3, 4, 5, 5))]
    lease_s = terms.get("lease_s", draw.choice((0.6, 1.5, 3.0)))
    stop_s = terms.get("stop_s", lease_s * draw.choice((0.05, 0.2, 1 / 3)))
    return Terms("billing", names, lease_s=lease_s, stop_s=stop_s)


def _world(simulation: Simulation, terms: Terms, *others: str) -> World:
    draw = simulation.random
    names = (*terms.voters, *others)
    stops_within_s = terms.stop_s * draw.choice((0.1, 0.9, 3.0))
    world = World(simulation, terms, candidates=names, stops_within_s=stops_within_s)
    rates = [draw.choice((1.0 - DRIFT, 1.0, 1.0 + DRIFT)) for _ in names]
    world.add(*names, rates=rates)
    return world


def _comes_and_goes(world: World, within_s: float, number: int) -> None:
    """Let nodes leave and come back, and name heirs, now and then."""
    simulation, draw = world.simulation, world.simulation.random
    names = sorted(world.candidates)
    for _ in range(number):
        name, heir = draw.choice(names), draw.choice(("", *names))
        at_s = draw.uniform(0.0, within_s)
        back_s = at_s + draw.uniform(0.0, within_s / 4)
        simulation.at(at_s, partial(world.do, name, Leave(heir)))
        simulation.at(back_s, partial(world.do, name, Stand()))


def chaos(simulation: Simulation) -> None:
    """Everything at once, then peace."""
    draw = simulation.random
    terms = _terms(simulation)
    others = ("x", "y")[: draw.choice((0, 0, 1, 2))]
    world = _world(simulation, terms, *others)
    within_s = 8.0 * terms.lease_s
    number = draw.randrange(2, 14)
    plan = draw_faults(
        draw, simulation.names, within_s=within_s, number=number, mix=MIX
    )
    simulation.plan(plan)
    _comes_and_goes(world, within_s, draw.randrange(6))
    simulation.start()
    simulation.run(within_s)
    simulation.heal()
    simulation.start()
    for name in simulation.names:
        world.do(name, Stand())
    world.await_holder(LEASES)
    simulation.run(2 * terms.lease_s)


def wandering(simulation: Simulation) -> None:
    """The holder is cut off, paused or ended, again and again; another takes over."""
    draw = simulation.random
    terms = _terms(simulation, lease_s=1.0)
    world = _world(simulation, terms)
    simulation.start()
    for _ in range(6):
        world.await_holder(LEASES)
        simulation.run(draw.uniform(0.0, 1.5 * terms.lease_s))
        holders = world.holders()
        others = [name for name in simulation.names if name not in holders]
        for holder in holders:
            _befall(world, holder, others)
        simulation.run(draw.uniform(0.5, 2.5) * terms.lease_s)
        simulation.heal()
        simulation.start()


def _befall(world: World, holder: str, others: list[str]) -> None:
    simulation, draw = world.simulation, world.simulation.random
    late = Quality(delay_s=draw.uniform(0.0, 1.5) * world.terms.lease_s)
    match draw.randrange(8):
        case 0:
            simulation.cut([holder], others)
        case 1:
            simulation.cut([holder], others, both_ways=False)
        case 2:
            simulation.cut(others, [holder], both_ways=False)
        case 3:
            simulation.pause(holder, draw.uniform(0.0, 3.0) * world.terms.lease_s)
        case 4:
            simulation.restart(holder)
        case 5:
            simulation.set_quality(late, sender=holder)
        case 6:
            simulation.set_quality(late, to=holder)
        case _:
            heir = draw.choice(["", holder, *others])
            world.do(holder, Leave(heir))
            back_s = simulation.now_s + draw.uniform(0.0, 1.0) * world.terms.lease_s
            simulation.at(back_s, partial(world.do, holder, Stand()))


def restarts(simulation: Simulation) -> None:
    """Voters restart all the time, and a slow holder's clock meets fast voters."""
    draw = simulation.random
    terms = _terms(simulation, lease_s=1.0)
    world = World(simulation, terms)
    rates = [draw.choice((1.0 - DRIFT, 1.0 + DRIFT)) for _ in terms.voters]
    world.add(*terms.voters, rates=rates)
    simulation.start()
    within_s = 10.0 * terms.lease_s
    at_s = 0.0
    while at_s < within_s:
        at_s += draw.expovariate(1.0) * draw.choice((0.5, 1.5)) * terms.lease_s
        simulation.at(at_s, partial(simulation.restart, draw.choice(terms.voters)))
    cuts = draw_faults(
        draw, terms.voters, within_s=within_s, number=3, mix=Mix(crash=0.0)
    )
    simulation.plan(cuts)
    simulation.run(within_s)
    simulation.heal()
    simulation.run(2.0 * terms.lease_s)
    world.await_holder(LEASES)


def last_moment(simulation: Simulation) -> None:
    """A holder that loses the others works up to the last moment of its lease.

    Its clock is slow, those of the others are fast, and answers come late.
    """
    draw = simulation.random
    names = NAMES[: draw.choice((3, 5))]
    terms = Terms("billing", names, lease_s=2.0, stop_s=0.1)
    world = World(simulation, terms, stops_within_s=9.0)
    slow = draw.choice(names)
    rates = [1.0 - DRIFT if name == slow else 1.0 + DRIFT for name in names]
    world.add(*names, rates=rates)
    world.candidates = {slow}
    simulation.start()
    simulation.run(2.0 * terms.lease_s)
    assert world.holders() == [slow]
    others = [name for name in names if name != slow]
    late = Quality(delay_s=draw.choice((0.0, 0.3, 1.0)))
    simulation.set_quality(late, to=slow)
    for name in others:
        world.do(name, Stand())
    simulation.run(draw.uniform(0.0, 2.0 * terms.lease_s))
    simulation.cut([slow], others)
    simulation.run(4.0 * terms.lease_s)
    [holder] = world.holders()
    assert holder != slow


def handover(simulation: Simulation) -> None:
    """In peace a lease goes to its heir within a blink, again and again."""
    draw = simulation.random
    terms = Terms("billing", NAMES[: draw.choice((2, 3, 5))], lease_s=3.0, stop_s=0.5)
    candidates = terms.voters if draw.random() < 0.5 else ("x", "y", "z")
    world = World(simulation, terms, candidates=candidates, stops_within_s=0.0)
    world.add(*dict.fromkeys((*terms.voters, *candidates)))
    simulation.start()
    world.await_holder(4.0)
    for _ in range(5):
        simulation.run(draw.uniform(0.1, terms.lease_s))
        [holder] = world.holders()
        heir = draw.choice([name for name in candidates if name != holder])
        for voter in terms.voters:
            if voter not in (holder, heir) and draw.random() < 0.5:
                late = Quality(delay_s=0.3)  # the heir asks before it has heard
                simulation.set_quality(late, sender=holder, to=voter)
        world.do(holder, Leave(heir))
        simulation.run(0.1)
        assert world.holders() == [heir], (world.holders(), heir)
        world.do(holder, Stand())
        simulation.set_quality(GOOD)
    held = [name for name, _, _ in world.terms_held]
    assert len(held) == 6, held


def late_heir(simulation: Simulation) -> None:
    """An heir that hears of it late is waited for, by who comes new too."""
    draw = simulation.random
    terms = Terms("billing", NAMES[: draw.choice((2, 3, 5))], lease_s=3.0, stop_s=0.5)
    world = World(simulation, terms, candidates=("x",), stops_within_s=0.0)
    world.add(*terms.voters, "x", "y", "z")
    simulation.start()
    world.await_holder(4.0)
    late = Quality(delay_s=draw.uniform(0.5, 1.2))
    simulation.set_quality(late, sender="x", to="y")
    world.do("y", Stand())
    simulation.run(draw.uniform(0.0, 3.0))
    world.do("x", Leave("y"))
    simulation.run(0.05)
    world.do("z", Stand())
    simulation.run(1.5)
    assert world.holders() == ["y"]


def deaf(simulation: Simulation) -> None:
    """A candidate that hears nobody keeps no vote from the others."""
    draw = simulation.random
    names = NAMES[: draw.choice((3, 5))]
    terms = Terms("billing", names, lease_s=3.0, stop_s=0.5)
    world = World(simulation, terms, stops_within_s=0.0)
    world.add(*names)
    *others, who = draw.sample(names, len(names))
    simulation.cut(others, [who], both_ways=False)
    simulation.start()
    world.await_holder(3.0)
    for _ in range(6):
        simulation.run(draw.uniform(0.1, terms.lease_s))
        [holder] = world.holders()
        world.do(holder, Leave())
        world.await_holder(0.4)
        world.do(holder, Stand())


def races(simulation: Simulation) -> None:
    """Candidates come and go while what they say is under way."""
    draw = simulation.random
    names = NAMES[: draw.choice((2, 3))]
    terms = Terms("billing", names, lease_s=2.0, stop_s=0.1)
    candidates = names if draw.random() < 0.5 else ("x", "y", "z")
    world = World(simulation, terms, candidates=candidates, stops_within_s=0.0)
    world.add(*dict.fromkeys((*names, *candidates)))
    for sender in simulation.names:
        for to in simulation.names:
            late = Quality(delay_s=draw.choice((0.001, 0.001, 0.2, 0.5)))
            simulation.set_quality(late, sender=sender, to=to)
    simulation.start()
    within_s = 7.0 * terms.lease_s
    for _ in range(20):
        name = draw.choice(candidates)
        at_s = draw.uniform(0.0, within_s)
        simulation.at(at_s, partial(world.do, name, Leave()))
        simulation.at(at_s + draw.uniform(0.0, 1.0), partial(world.do, name, Stand()))
    simulation.run(within_s)
    for name in candidates:
        world.do(name, Stand())
    simulation.heal()
    world.await_holder(LEASES)


def steady(simulation: Simulation) -> None:
    """Where nothing is wrong but a bad network, the holder stays, and never stops."""
    draw = simulation.random
    names = NAMES[: draw.choice((3, 5))]
    terms = Terms("billing", names, lease_s=3.0, stop_s=0.5)
    world = World(simulation, terms)
    world.add(*names)
    bad = Quality(loss=0.1, duplicate=0.2, reorder=0.3, reorder_s=0.2, in_order=False)
    simulation.set_quality(bad)
    simulation.start()
    world.await_holder(4.0)
    simulation.run(6.0 * terms.lease_s)
    assert len(world.terms_held) == 1, world.terms_held


def in_time(simulation: Simulation) -> None:
    """A holder that is cut off stops its work, and need not be cut short."""
    draw = simulation.random
    names = NAMES[: draw.choice((3, 5))]
    terms = Terms("billing", names, lease_s=2.0, stop_s=0.4)
    world = World(simulation, terms, stops_within_s=0.35)
    world.add(*names)
    simulation.start()
    world.await_holder(4.0)
    for _ in range(3):
        [holder] = world.holders()
        cut_off = world.node(holder)
        simulation.run(draw.uniform(0.0, terms.lease_s))
        simulation.cut([holder], [name for name in names if name != holder])
        simulation.run(2.0 * terms.lease_s)
        assert cut_off.works is None
        assert not cut_off.is_cut_off
        simulation.heal()
        world.await_holder(4.0)


def islands(simulation: Simulation) -> None:
    """A side without a majority of the configured voters has no holder."""
    draw = simulation.random
    names = NAMES[: draw.choice((2, 3, 4, 5))]
    terms = Terms("billing", names, lease_s=1.0, stop_s=0.1)
    world = World(simulation, terms)
    world.add(*names)
    fewest = draw.sample(names, len(names) // 2)
    rest = [name for name in names if name not in fewest]
    if draw.random() < 0.5:
        simulation.start()
        simulation.cut(fewest, rest)
        simulation.run(8.0 * terms.lease_s)
        assert not set(world.holders()) & set(fewest)
        assert bool(world.holders()) == (len(rest) >= terms.majority)
    else:
        simulation.start(*fewest)
        simulation.run(8.0 * terms.lease_s)
        assert world.terms_held == []
    simulation.heal()
    simulation.start()
    world.await_holder(6.0)


SCENARIOS = (
    Scenario("voting.chaos", chaos),
    Scenario("voting.wandering", wandering),
    Scenario("voting.restarts", restarts),
    Scenario("voting.last_moment", last_moment),
    Scenario("voting.handover", handover),
    Scenario("voting.late_heir", late_heir),
    Scenario("voting.deaf", deaf, found=(5009, 5049)),
    Scenario("voting.races", races),
    Scenario("voting.steady", steady),
    Scenario("voting.in_time", in_time),
    Scenario("voting.islands", islands),
)
