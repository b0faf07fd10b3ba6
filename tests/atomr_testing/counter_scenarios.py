"""A counter that nodes tell each other of: small, and right or wrong on purpose.

Each node counts for itself and tells all others its count; a count is the sum of
the largest that was heard of each.  The wrong one adds what it hears.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from atomr.testing.simulation import (
    Boot,
    Codec,
    LinkReset,
    Mix,
    Received,
    Scenario,
    Sent,
    Simulation,
    Woke,
    draw_faults,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.testing.simulation import Event

CODEC = Codec(msgspec.msgpack.encode, msgspec.msgpack.decode)
TELL_S = 0.2
NAMES = ("a", "b", "c")


class Counter:
    """Counts; what it counted is on its disk before it is told."""

    def __init__(self, boot: Boot) -> None:
        self.name = boot.name
        self.others = [name for name in boot.names if name != boot.name]
        self.disk = boot.disk
        self.counts = {boot.name: len(boot.disk.records)}
        self.next_deadline_s: float | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def start(self, now_s: float) -> Iterable[object]:
        self.next_deadline_s = now_s
        return ()

    def handle(self, event: Event, now_s: float) -> Iterable[object]:
        match event:
            case Woke():
                self.next_deadline_s = now_s + TELL_S
                return [Sent(name, self.counts) for name in self.others]
            case Received(_, message):
                assert isinstance(message, dict)
                for name, count in message.items():
                    self.hear(name, count)
            case LinkReset():
                pass
        return ()

    def hear(self, name: str, count: int) -> None:
        self.counts[name] = max(self.counts.get(name, 0), count)

    def count(self, now_s: float) -> Iterable[object]:
        self.disk.append(b"1")
        self.disk.sync()
        self.counts[self.name] += 1
        return [("counted", self.name)]


def chaos(simulation: Simulation) -> None:
    counted: list[str] = []
    simulation.use_codec(CODEC)
    for name in NAMES:
        simulation.add_node(name, Counter)
    simulation.start()
    simulation.observe(lambda name, _: counted.append(name))

    def never_more_than_counted(name: str) -> None:
        assert simulation.node(name).total <= len(counted)

    def all_equal() -> bool:
        totals = [simulation.node(name).total for name in NAMES]
        return totals == [len(counted)] * len(NAMES)

    simulation.always(never_more_than_counted)
    faults = draw_faults(simulation.random, NAMES, within_s=5.0, number=6, mix=Mix())
    simulation.plan(faults)
    for at in range(20):
        name = simulation.random.choice(NAMES)
        simulation.at(at / 4, partial(simulation.do, name, Counter.count))
    simulation.run(10.0)
    simulation.heal()
    simulation.start()
    simulation.run_until(all_equal, within_s=2.0)


SCENARIOS = (Scenario("counter.chaos", chaos),)
