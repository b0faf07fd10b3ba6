"""Scenarios that fail: one for each odd seed, one at its very start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.testing.simulation import Scenario, Sent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.testing.simulation import Boot, Event, Simulation


class Odd:
    next_deadline_s = None

    def __init__(self, boot: Boot) -> None:
        self.boot = boot

    def start(self, now_s: float) -> Iterable[object]:
        return [Sent("a", "hello")]

    def handle(self, event: Event, now_s: float) -> Iterable[object]:
        return ()


def odd(simulation: Simulation) -> None:
    simulation.add_node("a", Odd)
    simulation.start()
    simulation.run(1.0)
    assert simulation.seed % 2 == 0, f"{simulation.seed} is odd"


def unwired(simulation: Simulation) -> None:
    raise RuntimeError("nothing is plugged in")


SCENARIOS = (Scenario("odd", odd, found=(1000,)), Scenario("unwired", unwired))
