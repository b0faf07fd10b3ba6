"""Many runs at once: in processes, in chunks of seeds.

Workers import the scenarios' modules themselves, so only names and numbers go
between processes, and each has hash seeds of its own: what depends on them
shows as a seed that fails here and not there.
"""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from atomr.testing.simulation.engine import SimulationError
from atomr.testing.simulation.scenario import Scenario, play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_CHUNKS = 50
"""Per job: enough for a bar that moves, few enough to cost nothing."""

_MAX_CHUNK = 100

_COLLECT = 50_000, 20, 100
"""Objects, and then generations, between two collections."""


@attrs.frozen
class Chunk:
    """Seeds of one scenario that one worker runs.

    Attributes:
        module: that has the scenario.
        name: of the scenario.
        seeds: which runs.
    """

    module: str
    name: str
    seeds: tuple[int, ...]


@attrs.frozen
class Done:
    """What became of a chunk.

    Attributes:
        chunk: which.
        events: how many were handled, in all runs together.
        virtual_s: how much time passed in them.
        failed: the seeds that failed, with the reports.
    """

    chunk: Chunk
    events: int
    virtual_s: float
    failed: tuple[tuple[int, str], ...]


def module_name(path_or_module: str) -> str:
    """Return a module's name for the path of its file, from the current folder.

    >>> module_name("tests/atomr/crdt/scenarios.py")
    'tests.atomr.crdt.scenarios'
    >>> module_name("tests.atomr.crdt.scenarios")
    'tests.atomr.crdt.scenarios'
    """
    if not path_or_module.endswith(".py"):
        return path_or_module
    path = Path(path_or_module)
    if path.is_absolute():
        path = path.relative_to(Path.cwd())
    return ".".join(path.with_suffix("").parts)


def scenarios_of(module: str) -> dict[str, Scenario]:
    """Return a module's scenarios by name.

    Raises:
        ImportError: there is no such module.
        SimulationError: it has no ``SCENARIOS``, or two of one name.
    """
    offered = getattr(import_module(module), "SCENARIOS", None)
    if not isinstance(offered, tuple):
        raise SimulationError(f"{module}: expected a tuple SCENARIOS, not {offered!r}")
    named = {scenario.name: scenario for scenario in offered}
    if len(named) != len(offered):
        raise SimulationError(f"{module}: two scenarios have the same name")
    return named


def chunks(module: str, name: str, seeds: Sequence[int], jobs: int) -> list[Chunk]:
    """Divide seeds among workers."""
    size = max(1, min(_MAX_CHUNK, len(seeds) // (jobs * _CHUNKS)))
    starts = range(0, len(seeds), size)
    return [Chunk(module, name, tuple(seeds[at : at + size])) for at in starts]


def run_chunk(chunk: Chunk) -> Done:
    """Run a chunk in this process, which does nothing else.

    The collector leaves what was imported alone, and comes seldom: runs leave
    little to it, and it took a quarter of their time.
    """
    scenario = scenarios_of(chunk.module)[chunk.name]
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    outcomes = [play(scenario, seed) for seed in chunk.seeds]
    return Done(
        chunk,
        sum(outcome.events for outcome in outcomes),
        sum(outcome.virtual_s for outcome in outcomes),
        tuple((o.seed, o.report) for o in outcomes if o.error is not None),
    )


def run_chunks(
    work: Iterable[Chunk], jobs: int, run: Callable[[Chunk], Done] = run_chunk
) -> Iterator[Done]:
    """Run chunks in that many processes; yields each as it is done.

    Args:
        work: the chunks.
        jobs: how many processes.
        run: a module's function, which runs one there.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(run, chunk) for chunk in work]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
