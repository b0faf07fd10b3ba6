"""Homes that move: no window has too many uses, and none stays without a home."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.gossip.escrow import Limit, Mode
from atomr.testing.simulation import (
    Crash,
    Mix,
    Pause,
    Planned,
    Quality,
    Restart,
    Scenario,
    draw_faults,
)
from tests.atomr.gossip.escrow_scenarios import DRIFT, NAMES, _load, _rates
from tests.atomr.gossip.limit_world import World

if TYPE_CHECKING:
    from atomr.testing.simulation import Simulation

MIX = Mix(
    crash=3.0,
    lost_disk=1.0,
    pause=3.0,
    drift=1.0,
    cut=2.0,
    one_way_cut=3.0,
    slow_s=2.0,
    down_s=6.0,
    pause_s=5.0,
    drift_rate=DRIFT,
    max_loss=0.5,
)
"""Crashes and pauses that are longer than a seat is kept, among all the others."""


def _limit(simulation: Simulation, **terms: object) -> Limit:
    draw = simulation.random
    drawn = {
        "voters": NAMES[: draw.choice((3, 3, 5))],
        "permits": draw.choice((20, 40)),
        "window_s": draw.uniform(1.2, 2.5),
        "floor_fraction": draw.choice((0.0, 0.1, 0.3)),
        "lease_s": draw.choice((0.3, 1.0)),
        "away_s": draw.choice((0.4, 0.8)),
        "mode": Mode.STRICT if draw.random() < 0.2 else Mode.ESCROW,
        "drift": DRIFT,
    }
    return Limit(name="rpm", **(drawn | terms))  # type: ignore[arg-type]


def moves_s(limit: Limit) -> float:
    """Return how long it takes at most until all is lent again, if nothing is lost.

    The votes lapse, somebody takes the seat, and waits for what was lent; the clocks
    of all are wrong, and lessees look for the new home a second or so.
    """
    assert limit.away_s is not None
    seat_s = 1.2 * limit.away_s * (1.0 + DRIFT) / (1.0 - DRIFT) + 0.1
    return (seat_s + limit.lapse_s + limit.cooling_s) / (1.0 - DRIFT) + 1.0


def chaos(simulation: Simulation) -> None:
    """The home, and its heirs, crash and stand still, and links do what they may."""
    draw = simulation.random
    limit = _limit(simulation)
    world = World(simulation, limit)
    world.add(*limit.voters, rates=_rates(simulation, limit))
    within_s = 8.0
    _load(world, within_s, tokens=draw.random() < 0.3)
    number = draw.randrange(2, 10)
    plan = draw_faults(draw, limit.voters, within_s=within_s, number=number, mix=MIX)
    for _ in range(draw.randrange(3)):
        at_s = draw.uniform(0.5, within_s)
        if draw.random() < 0.5:
            plan.append(Planned(at_s, Pause(limit.home, draw.uniform(0.5, 5.0))))
        else:
            plan.append(Planned(at_s, Crash(limit.home)))
            back_s = at_s + draw.uniform(0.0, 6.0)
            plan += [Planned(back_s, Restart(limit.home))] * (draw.random() < 0.7)
    simulation.plan(plan)
    simulation.start()
    simulation.run(within_s)
    world.check()


def last_moment(simulation: Simulation) -> None:
    """A home that only one lessee hears goes on lending as long as it may.

    Its clock is slow, and so is that of the lessee, who uses all that it has up to the
    last moment; the clocks of the others are fast, and whoever takes over there is
    asked for all that there is as soon as it may lend.
    """
    draw = simulation.random
    limit = _limit(
        simulation,
        permits=24,
        voters=NAMES,
        window_s=draw.uniform(1.2, 2.0),
        floor_fraction=0.0,
        lease_s=1.0,
        away_s=0.5,
        mode=Mode.ESCROW,
    )
    world = World(simulation, limit)
    lessee = draw.choice([name for name in NAMES if name != limit.home])
    old = [limit.home, lessee]
    new = [name for name in NAMES if name not in old]
    rates = [1.0 - DRIFT if name in old else 1.0 + DRIFT for name in NAMES]
    world.add(*NAMES, rates=rates)
    cut_s = draw.uniform(0.7, 1.5)
    both_ways = draw.random() < 0.7  # or who is cut off hears of the others
    simulation.at(cut_s, partial(simulation.cut, old, new, both_ways=both_ways))
    late = Quality(delay_s=draw.choice((0.0, 0.1, 0.3)))
    simulation.set_quality(late, sender=limit.home, to=lessee)
    every_s = limit.window_s / limit.permits / 1.5
    for number in range(int((cut_s + 3.0) / every_s)):
        simulation.at(every_s * number, partial(world.ask, lessee))
    # Whatever is there is used at once, from a second before the new home may lend.
    from_s = cut_s + limit.window_s + 0.8
    for number in range(140):
        simulation.at(from_s + 0.015 * number, partial(world.ask, draw.choice(new)))
    simulation.start()
    simulation.run(from_s + 2.4)
    world.check()


def paused(simulation: Simulation) -> None:
    """A home stands still while another one takes over, and wakes up with old mail.

    What others have asked it is answered at once then, and it asks itself.
    """
    draw = simulation.random
    limit = _limit(simulation, permits=24, floor_fraction=0.0, away_s=0.4)
    world = World(simulation, limit)
    world.add(*limit.voters, rates=_rates(simulation, limit))
    at_s = draw.uniform(1.0, 2.0)
    for_s = draw.uniform(0.8, 1.6) * moves_s(limit)
    simulation.at(at_s, partial(simulation.pause, limit.home, for_s))
    within_s = at_s + for_s + 2.0 * limit.window_s
    for number in range(int(within_s / 0.04)):
        asked = limit.home if draw.random() < 0.3 else draw.choice(limit.voters)
        simulation.at(0.04 * number, partial(world.ask, asked))
    simulation.start()
    simulation.run(within_s)
    world.check()


def back(simulation: Simulation) -> None:
    """A home that was away has its seat again when its heir goes, in the same life."""
    draw = simulation.random
    limit = _limit(
        simulation,
        permits=24,
        voters=NAMES[:3],
        floor_fraction=0.0,
        lease_s=0.3,
        away_s=0.4,
        mode=Mode.ESCROW,
    )
    world = World(simulation, limit)
    world.add(*limit.voters, rates=_rates(simulation, limit))

    def cut_off() -> None:
        """Cut off whoever lends, as those say who do not."""
        nodes = {name: simulation.node(name).escrow for name in limit.voters}
        homes = [node.home("rpm") for node in nodes.values()]
        home = max(homes, key=homes.count)
        simulation.cut([home], [name for name in limit.voters if name != home])

    first_s = draw.uniform(0.7, 1.5)
    second_s = first_s + moves_s(limit) + draw.uniform(-1.0, 0.5)
    simulation.at(first_s, cut_off)
    simulation.at(first_s + draw.uniform(1.0, 2.0), simulation.mend)
    simulation.at(second_s, cut_off)
    within_s = second_s + limit.window_s + 0.5
    for number in range(int(within_s / 0.03)):
        asked = draw.choice(limit.voters)
        simulation.at(0.03 * number, partial(world.ask, asked))
    simulation.start()
    simulation.run(within_s)
    world.check()


def gone(simulation: Simulation) -> None:
    """A home is gone for good; after a while the others have all that there is.

    So it is when the next one goes, where a majority is left, and when the first one
    is back: it takes nothing away.
    """
    draw = simulation.random
    limit = _limit(simulation, floor_fraction=0.1, mode=Mode.ESCROW)
    world = World(simulation, limit)
    world.add(*limit.voters, rates=_rates(simulation, limit))
    others = [name for name in limit.voters if name != limit.home]
    crash_s, full_s = 2.0, 2.0 + moves_s(limit)
    within_s = full_s + 4.0 * limit.window_s
    simulation.at(crash_s, partial(simulation.crash, limit.home))
    if draw.random() < 0.3:
        simulation.at(full_s + limit.window_s, partial(simulation.start, limit.home))
    every_s = limit.window_s / limit.permits / 3.0
    for number in range(int(within_s / every_s)):
        simulation.at(every_s * number, partial(world.ask, draw.choice(others)))
    simulation.start()
    simulation.run(within_s)
    world.check()
    used = sum(use.permits for use in world.uses if use.at_s >= full_s)
    # Clocks that are slow by the drift, and the drift that is allowed for, cost both;
    # and with few permits the edges of the time that is counted do.
    least = 0.8 * (limit.permits - limit.floor) * 4.0 * (1.0 - 2.0 * DRIFT)
    assert used >= least, f"{used} of {least} permits after the home was gone"


def nobody(simulation: Simulation) -> None:
    """For a while nobody hears anybody, and then somebody lends again.

    Whether the home goes on at once depends on whether anybody has voted for another
    one meanwhile; what holds in each case is that no window has too many uses.
    """
    draw = simulation.random
    limit = _limit(
        simulation, permits=100, window_s=20.0, lease_s=1.0, mode=Mode.ESCROW
    )
    world = World(simulation, limit)
    world.add(*limit.voters, rates=_rates(simulation, limit))
    cut_s = draw.uniform(1.0, 2.0)
    mend_s = cut_s + draw.uniform(1.5, 3.0)
    for name in limit.voters:
        others = [other for other in limit.voters if other != name]
        simulation.at(cut_s, partial(simulation.cut, [name], others))
    simulation.at(mend_s, simulation.mend)
    asked_s = mend_s + 8.0
    for number in range(150):
        at_s = asked_s + 0.02 * number
        simulation.at(at_s, partial(world.ask, draw.choice(limit.voters)))
    simulation.start()
    simulation.run(asked_s + 5.0)
    world.check()


SCENARIOS = (Scenario("limits.home_chaos", chaos),)

LONG = (
    Scenario("limits.home_last_moment", last_moment),
    Scenario("limits.home_back", back),
    Scenario("limits.home_paused", paused),
    Scenario("limits.home_gone", gone),
    Scenario("limits.home_nobody", nobody),
)
"""Of these the tests run fewer seeds: they take as long as all others of limits, and
homes move only where that is asked for."""
