"""The simulator: one integer is one run, and each fault does what it says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from atomr.testing.simulation import (
    Simulation,
    SimulationError,
    check,
    first_failure,
    mutated,
    trace_of,
)
from tests.atomr_testing.counter_scenarios import SCENARIOS, Counter

CHAOS = SCENARIOS[0]
ADDS = "self.counts.get(name, 0) + count"
KEEPS_THE_MOST = "max(self.counts.get(name, 0), count)"


def test_a_seed_gives_the_same_trace_each_time() -> None:
    first = trace_of(CHAOS, 3)

    assert first.content.count(b"\n") > 100
    assert trace_of(CHAOS, 3).content == first.content
    assert trace_of(CHAOS, 4).content != first.content


def test_a_trace_does_not_depend_on_the_process() -> None:
    code = (
        "from tests.atomr_testing.counter_scenarios import SCENARIOS\n"
        "from atomr.testing.simulation import trace_of\n"
        "print(trace_of(SCENARIOS[0], 3).digest)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.strip() == trace_of(CHAOS, 3).digest


def test_a_scenario_holds_for_many_seeds() -> None:
    assert check(CHAOS, range(50)) == 50


def test_a_broken_node_is_found_and_its_seed_is_named() -> None:
    with mutated(Counter.hear, KEEPS_THE_MOST, ADDS):
        seed = first_failure(CHAOS, range(50))
        assert seed is not None
        with pytest.raises(AssertionError) as failed:
            check(CHAOS, [seed])

    assert f"counter.chaos: seed {seed} failed" in failed.value.__notes__
    assert check(CHAOS, [seed]) == 1


@pytest.mark.parametrize("broken", ["nothing of it", "self.counts"])
def test_a_mutant_names_its_place_exactly(broken: str) -> None:
    times = {"nothing of it": 0, "self.counts": 2}[broken]
    with (
        pytest.raises(SimulationError, match=f"is there {times} times, not 1"),
        mutated(Counter.hear, broken, "pass"),
    ):
        pass


def test_a_node_that_changes_its_mind_is_woken_once_for_each_deadline() -> None:
    class Restless:
        """Wants to be woken each second; a nudge makes that earlier, once."""

        next_deadline_s: float | None = None

        def start(self, now_s: float) -> tuple[()]:
            self.next_deadline_s = now_s + 1.0
            return ()

        def handle(self, event: object, now_s: float) -> tuple[()]:
            return self.start(now_s)

        def nudge(self, now_s: float) -> tuple[()]:
            self.next_deadline_s = now_s + 0.25
            return ()

    simulation = Simulation(0)
    simulation.add_node("a", lambda boot: Restless())
    simulation.start()
    for _ in range(100):
        simulation.run(1.0)
        simulation.do("a", Restless.nudge)

    simulation.run(3.5)

    waiting = simulation._engine._heap
    assert len(waiting) == 1
