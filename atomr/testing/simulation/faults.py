"""What goes wrong in a run, as values: planned by hand, or drawn from the seed.

A plan is a list of faults, each with its time, so a run that fails can be told
in a few lines, and tried again with fewer of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr.testing.simulation.links import Quality

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from atomr.testing.simulation.simulation import Simulation


@attrs.frozen
class Cut:
    """Nothing passes between two groups of nodes, or in one direction only."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    both_ways: bool = True


@attrs.frozen
class Mend:
    """All cuts end."""


@attrs.frozen
class Degrade:
    """Links treat messages so; None stands for each node."""

    quality: Quality
    sender: str | None = None
    to: str | None = None


@attrs.frozen
class Pause:
    """A node does nothing for a while."""

    name: str
    for_s: float


@attrs.frozen
class Crash:
    """A node ends; ``resets``: its system tells the peers."""

    name: str
    resets: bool = True


@attrs.frozen
class Restart:
    """A node begins a new life, perhaps without what it wrote."""

    name: str
    lose_disk: bool = False


@attrs.frozen
class Drift:
    """A node's clock runs at another rate."""

    name: str
    rate: float


Fault: TypeAlias = Cut | Mend | Degrade | Pause | Crash | Restart | Drift


@attrs.frozen
class Planned:
    """A fault with its time.

    Attributes:
        at_s: true time from when the plan is made part of a run.
        fault: what happens.
    """

    at_s: float
    fault: Fault


@attrs.frozen
class Mix:
    """How often each kind of fault is drawn, beside the others; 0: never.

    Attributes:
        cut: two groups of nodes.
        one_way_cut: in one direction.
        slow_link: one direction that takes up to ``slow_s``.
        bad_network: loss, duplicates and reordering on all links.
        pause: of one node, up to ``pause_s``.
        crash: with a restart after up to ``down_s``.
        lost_disk: such a crash, and the disk is lost too.
        power_loss: a crash that no peer is told of.
        drift: of one clock, up to ``drift_rate``.
        slow_s: in seconds.
        pause_s: in seconds.
        down_s: in seconds.
        drift_rate: share of the rate, as 0.05.
        max_loss: chance at most, in a bad network.
    """

    cut: float = 1.0
    one_way_cut: float = 1.0
    slow_link: float = 2.0
    bad_network: float = 1.0
    pause: float = 1.0
    crash: float = 1.0
    lost_disk: float = 0.0
    power_loss: float = 0.5
    drift: float = 0.0
    slow_s: float = 3.0
    pause_s: float = 3.0
    down_s: float = 5.0
    drift_rate: float = 0.01
    max_loss: float = 0.5


def draw_faults(
    draw: random.Random,
    names: Sequence[str],
    *,
    within_s: float,
    number: int,
    mix: Mix | None = None,
) -> list[Planned]:
    """Draw a plan.

    What begins also ends, within the plan's time or soon after; a scenario heals
    and starts what is down before it looks at the end.

    Args:
        draw: the scenario's generator.
        names: of the nodes.
        within_s: when the last fault begins at the latest.
        number: how many faults begin.
        mix: which; None: some of each that loses nothing for good.
    """
    mix = mix or Mix()
    kinds = [kind for kind in _DRAWN if getattr(mix, kind)]
    weights = [getattr(mix, kind) for kind in kinds]
    plan: list[Planned] = []
    for kind in draw.choices(kinds, weights, k=number) if kinds else ():
        at_s = draw.uniform(0.0, within_s)
        length_s = draw.uniform(0.1, max(0.2, within_s / 2))
        plan += _DRAWN[kind](draw, names, mix, at_s, length_s)
    return sorted(plan, key=_time)


def perform(simulation: Simulation, fault: Fault) -> None:
    """Let a fault happen now."""
    match fault:
        case Cut(left, right, both_ways):
            simulation.cut(left, right, both_ways=both_ways)
        case Mend():
            simulation.mend()
        case Degrade(quality, sender, to):
            simulation.set_quality(quality, sender=sender, to=to)
        case Pause(name, for_s):
            simulation.pause(name, for_s)
        case Crash(name, resets):
            simulation.crash(name, resets=resets)
        case Restart(name, lose_disk):
            simulation.restart(name, lose_disk=lose_disk)
        case Drift(name, rate):
            simulation.drift(name, rate)


def _time(planned: Planned) -> float:
    return planned.at_s


def _cut(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    left, right = _split(draw, names)
    yield Planned(at_s, Cut(left, right))
    yield Planned(at_s + length_s, Mend())


def _one_way_cut(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    left, right = _split(draw, names)
    yield Planned(at_s, Cut(left, right, both_ways=False))
    yield Planned(at_s + length_s, Mend())


def _split(
    draw: random.Random, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if len(names) < 2:
        return (), ()
    left = draw.sample(names, draw.randrange(1, len(names)))
    return tuple(left), tuple(name for name in names if name not in left)


def _slow_link(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    sender, to = draw.choice(names), draw.choice(names)
    delay_s = draw.uniform(0.0, mix.slow_s)
    yield Planned(at_s, Degrade(Quality(delay_s=delay_s), sender, to))
    yield Planned(at_s + length_s, Degrade(Quality(), sender, to))


def _bad_network(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    quality = Quality(
        loss=draw.uniform(0.0, mix.max_loss),
        duplicate=draw.uniform(0.0, 0.3),
        reorder=draw.uniform(0.0, 0.5),
        reorder_s=draw.uniform(0.0, mix.slow_s),
    )
    yield Planned(at_s, Degrade(quality))
    yield Planned(at_s + length_s, Degrade(Quality()))


def _pause(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    yield Planned(at_s, Pause(draw.choice(names), draw.uniform(0.0, mix.pause_s)))


def _crash(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    name = draw.choice(names)
    yield Planned(at_s, Crash(name))
    yield Planned(at_s + draw.uniform(0.0, mix.down_s), Restart(name))


def _lost_disk(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    name = draw.choice(names)
    yield Planned(at_s, Crash(name))
    restart = Restart(name, lose_disk=True)
    yield Planned(at_s + draw.uniform(0.0, mix.down_s), restart)


def _power_loss(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    name = draw.choice(names)
    yield Planned(at_s, Crash(name, resets=False))
    yield Planned(at_s + draw.uniform(0.0, mix.down_s), Restart(name))


def _drift(
    draw: random.Random, names: Sequence[str], mix: Mix, at_s: float, length_s: float
) -> Iterable[Planned]:
    rate = 1.0 + draw.uniform(-mix.drift_rate, mix.drift_rate)
    yield Planned(at_s, Drift(draw.choice(names), rate))


_DRAWN: dict[str, Callable[..., Iterable[Planned]]] = {
    "cut": _cut,
    "one_way_cut": _one_way_cut,
    "slow_link": _slow_link,
    "bad_network": _bad_network,
    "pause": _pause,
    "crash": _crash,
    "lost_disk": _lost_disk,
    "power_loss": _power_loss,
    "drift": _drift,
}
