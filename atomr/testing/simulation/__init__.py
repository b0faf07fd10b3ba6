"""A simulator for state machines without I/O: N nodes, one integer, virtual time.

A node is told what happened and what its clock says, and returns what it wants
done (:class:`Node`).  The simulator is the rest of the world: the network with
its losses, delays, slow directions, duplicates and cuts, and machines that
pause, crash, lose their disks, and whose clocks are wrong.  The seed determines
all of it, so a run that fails can be run again, byte for byte.

::

    def chaos(simulation: Simulation) -> None:
        for name in ("a", "b", "c"):
            simulation.add_node(name, lambda boot: Counter(boot.name, boot.names))
        simulation.always(lambda name: check(simulation.node(name)))
        simulation.plan(
            draw_faults(simulation.random, simulation.names, within_s=20.0, number=8)
        )
        simulation.start()
        simulation.run(20.0)
        simulation.heal()
        simulation.start()  # what is down
        simulation.run_until(lambda: converged(simulation), within_s=5.0)

    SCENARIOS = (Scenario("counter.chaos", chaos),)

To register scenarios, put such a tuple ``SCENARIOS`` into a module; ``make sim``
finds each ``*scenarios.py`` below ``tests/atomr`` that is no test.  By hand::

    python -m atomr.testing.simulation tests/atomr/crdt/scenarios.py --seeds 1000

In a test, ``check(scenario, range(50))``.  A seed that failed goes into the
scenario's ``found``, and is run each time from then on.

``mutated(function, old, new)`` breaks a line of the code for the time of a block,
for tests that ask whether the scenarios notice.
"""

from atomr.testing.simulation.clocks import Clock
from atomr.testing.simulation.disk import Disk
from atomr.testing.simulation.engine import SimulationError
from atomr.testing.simulation.faults import (
    Crash,
    Cut,
    Degrade,
    Drift,
    Fault,
    Mend,
    Mix,
    Pause,
    Planned,
    Restart,
    draw_faults,
)
from atomr.testing.simulation.links import GOOD, Quality
from atomr.testing.simulation.mutants import first_failure, mutated
from atomr.testing.simulation.node import (
    Boot,
    Codec,
    Event,
    Factory,
    LinkReset,
    Node,
    Received,
    Sent,
    Woke,
)
from atomr.testing.simulation.scenario import Outcome, Scenario, check, play, trace_of
from atomr.testing.simulation.simulation import Simulation
from atomr.testing.simulation.trace import Trace

__all__ = [
    "GOOD",
    "Boot",
    "Clock",
    "Codec",
    "Crash",
    "Cut",
    "Degrade",
    "Disk",
    "Drift",
    "Event",
    "Factory",
    "Fault",
    "LinkReset",
    "Mend",
    "Mix",
    "Node",
    "Outcome",
    "Pause",
    "Planned",
    "Quality",
    "Received",
    "Restart",
    "Scenario",
    "Sent",
    "Simulation",
    "SimulationError",
    "Trace",
    "Woke",
    "check",
    "draw_faults",
    "first_failure",
    "mutated",
    "play",
    "trace_of",
]
