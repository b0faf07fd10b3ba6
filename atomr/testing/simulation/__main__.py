"""Run scenarios for many seeds; exits with 1 when a run fails."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from atomr.testing.simulation.running import (
    Done,
    chunks,
    module_name,
    run_chunks,
    scenarios_of,
)
from atomr.testing.simulation.scenario import Scenario, play
from atomr.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 10
"""Failing seeds of a scenario that are named; the first comes with its error."""


@attrs.define
class _Tally:
    """What has been counted for one scenario."""

    module: str
    scenario: Scenario
    runs: int = 0
    events: int = 0
    virtual_s: float = 0.0
    failed: list[tuple[int, str]] = attrs.field(factory=list)

    def add(self, done: Done) -> None:
        self.runs += len(done.chunk.seeds)
        self.events += done.events
        self.virtual_s += done.virtual_s
        self.failed += done.failed


@click.command()
@click.argument("modules", nargs=-1, required=True)
@click.option("--seeds", default=100, show_default=True, help="How many runs of each.")
@click.option("--from", "first", default=0, show_default=True, help="The first seed.")
@click.option("--only", default="", help="Only scenarios whose name holds this.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True)
@click.option("--seed", type=int, help="One run, here, with its whole error.")
@click.option("--trace", type=click.Path(path_type=Path), help="With --seed: write it.")
def main(  # noqa: PLR0913 - each is an option
    modules: tuple[str, ...],
    seeds: int,
    first: int,
    only: str,
    jobs: int,
    seed: int | None,
    trace: Path | None,
) -> None:
    """Run the scenarios of MODULES, which are names or files below this folder."""
    if trace is not None and seed is None:
        raise click.UsageError("--trace needs --seed: a trace is of one run")
    chosen = _chosen(modules, only)
    if seed is not None:
        sys.exit(max(_replay(tally, seed, trace) for tally in chosen))
    _run_all(chosen, range(first, first + seeds), jobs)
    for tally in chosen:
        _report(tally)
    sys.exit(1 if any(tally.failed for tally in chosen) else 0)


def _chosen(modules: Iterable[str], only: str) -> list[_Tally]:
    found = [
        _Tally(module, scenario)
        for module in map(module_name, modules)
        for scenario in scenarios_of(module).values()
    ]
    chosen = [tally for tally in found if only in tally.scenario.name]
    if not chosen:
        names = ", ".join(tally.scenario.name for tally in found) or "none"
        raise click.BadParameter(
            f"no scenario's name holds {only!r}; there are: {names}",
            param_hint="--only",
        )
    return chosen


def _run_all(chosen: list[_Tally], seeds: range, jobs: int) -> None:
    tallies = {(t.module, t.scenario.name): t for t in chosen}
    work = [
        chunk
        for tally in chosen
        for chunk in chunks(
            tally.module, tally.scenario.name, (*tally.scenario.found, *seeds), jobs
        )
    ]
    began_s = time.monotonic()
    with _progress() as progress:
        bars = {
            key: progress.add_task(
                t.scenario.name, total=len(seeds) + len(t.scenario.found)
            )
            for key, t in tallies.items()
        }
        for done in run_chunks(work, jobs):
            key = done.chunk.module, done.chunk.name
            tallies[key].add(done)
            progress.advance(bars[key], len(done.chunk.seeds))
    click.echo(f"{time.monotonic() - began_s:.1f} s, {jobs} at once")


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console = Console(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console)


def _report(tally: _Tally) -> None:
    name = tally.scenario.name
    verdict = f"{len(tally.failed)} FAILED" if tally.failed else "all hold"
    size = f"{tally.events} events, {tally.virtual_s:.0f} s of virtual time"
    click.echo(f"{name}: {tally.runs} runs, {verdict}; {size}")
    if not tally.failed:
        return
    seeds = sorted(seed for seed, _ in tally.failed)
    more = ", ..." if len(seeds) > _SHOWN else ""
    click.echo(f"  failing seeds: {', '.join(map(str, seeds[:_SHOWN]))}{more}")
    click.echo(dict(tally.failed)[seeds[0]], nl=False)
    again = f"{tally.module} --only {name} --seed {seeds[0]} --trace trace.txt"
    click.echo(f"  run it again: python -m atomr.testing.simulation {again}")


def _replay(tally: _Tally, seed: int, path: Path | None) -> int:
    trace = Trace()
    outcome = play(tally.scenario, seed, trace=trace)
    if path is not None:
        path.write_bytes(trace.content)
    verdict = "FAILED" if outcome.error else "holds"
    size = f"{outcome.events} events in {outcome.virtual_s:.3f} s of virtual time"
    click.echo(f"{tally.scenario.name}: seed {seed} {verdict}; {size}")
    click.echo(f"  trace {trace.digest}{f', in {path}' if path else ''}")
    click.echo(outcome.report, nl=False)
    return 1 if outcome.error else 0


if __name__ == "__main__":
    main()
