"""Scenarios: what is run for a seed, and what a run came to.

A scenario is a function of a :class:`Simulation`: it adds nodes, plans faults,
lets time pass and asserts.  A module offers its scenarios as ``SCENARIOS``; that
is all that the command needs.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from atomr.testing.simulation.simulation import Simulation
from atomr.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen
class Scenario:
    """What is run for each seed.

    Attributes:
        name: for people, and for ``--only``.
        play: adds nodes, plans faults, lets time pass and asserts.
        found: seeds that failed once; :func:`check` runs them each time.
    """

    name: str
    play: Callable[[Simulation], object]
    found: tuple[int, ...] = ()


@attrs.frozen
class Outcome:
    """What a run came to.

    Attributes:
        seed: which run.
        events: how many were handled.
        virtual_s: how much time passed in it.
        error: None: all held.
    """

    seed: int
    events: int
    virtual_s: float
    error: Exception | None = None

    @property
    def report(self) -> str:
        """The error with its traceback and notes; empty without one."""
        return "".join(traceback.format_exception(self.error)) if self.error else ""


def play(scenario: Scenario, seed: int, *, trace: Trace | None = None) -> Outcome:
    """Run a scenario for one seed.

    Args:
        scenario: which.
        seed: which run.
        trace: where to write what happens; None: nowhere, which is faster.
    """
    simulation = Simulation(seed, trace=trace)
    error = None
    try:
        scenario.play(simulation)
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is the outcome
        error = raised
    return Outcome(seed, simulation.events, simulation.now_s, error)


def trace_of(scenario: Scenario, seed: int) -> Trace:
    """Return what happens in the run of a seed, whether it fails or not."""
    trace = Trace()
    play(scenario, seed, trace=trace)
    return trace


def check(scenario: Scenario, seeds: Iterable[int]) -> int:
    """Run a scenario for the seeds that failed once, and for these.

    Returns:
        How many runs there were.

    Raises:
        Exception: what the first failing run raised, with a note that names the
            seed.
        ValueError: there are no seeds, so nothing was run.
    """
    runs = 0
    for seed in (*scenario.found, *seeds):
        outcome = play(scenario, seed)
        if outcome.error is not None:
            outcome.error.add_note(f"{scenario.name}: seed {seed} failed")
            raise outcome.error
        runs += 1
    if not runs:
        raise ValueError(f"check({scenario.name}): there are no seeds")
    return runs
