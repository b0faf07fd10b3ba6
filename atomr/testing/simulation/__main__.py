"""Run scenarios for many seeds; exits with 1 when a run fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from atomr.testing.simulation.running import chunks, module_name, scenarios_of
from atomr.testing.simulation.scenario import Scenario, play
from atomr.testing.simulation.tally import Tally, run_all
from atomr.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen
class _Chosen:
    """A scenario that is to be run, and the module that has it."""

    module: str
    scenario: Scenario


@click.command()
@click.argument("modules", nargs=-1, required=True)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many runs of each.",
)
@click.option("--from", "first", default=0, show_default=True, help="The first seed.")
@click.option("--only", default="", help="Only scenarios whose name holds this.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default=True,
    help="How many processes at once.",
)
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
        sys.exit(max(_replay(one.scenario, seed, trace) for one in chosen))
    tallies = _run_all(chosen, range(first, first + seeds), jobs)
    for tally in tallies:
        tally.report()
    sys.exit(1 if any(tally.failed for tally in tallies) else 0)


def _chosen(modules: Iterable[str], only: str) -> list[_Chosen]:
    found = [
        _Chosen(module, scenario)
        for module in map(module_name, modules)
        for scenario in scenarios_of(module).values()
    ]
    chosen = [one for one in found if only in one.scenario.name]
    if not chosen:
        names = ", ".join(one.scenario.name for one in found) or "none"
        raise click.BadParameter(
            f"no scenario's name holds {only!r}; there are: {names}",
            param_hint="--only",
        )
    return chosen


def _run_all(chosen: list[_Chosen], seeds: range, jobs: int) -> list[Tally]:
    tallies: dict[tuple[str, str], Tally] = {}
    work = []
    for one in chosen:
        name, runs = one.scenario.name, (*one.scenario.found, *seeds)
        again = f"{one.module} --only {name} --seed {{seed}} --trace trace.txt"
        tallies[one.module, name] = Tally(
            name, len(runs), f"python -m atomr.testing.simulation {again}"
        )
        work += chunks(one.module, name, runs, jobs)
    run_all(tallies, work, jobs)
    return list(tallies.values())


def _replay(scenario: Scenario, seed: int, path: Path | None) -> int:
    trace = Trace()
    outcome = play(scenario, seed, trace=trace)
    if path is not None:
        path.write_bytes(trace.content)
    verdict = "FAILED" if outcome.error else "holds"
    size = f"{outcome.events} events in {outcome.virtual_s:.3f} s of virtual time"
    click.echo(f"{scenario.name}: seed {seed} {verdict}; {size}")
    click.echo(f"  trace {trace.digest}{f', in {path}' if path else ''}")
    click.echo(outcome.report, nl=False)
    return 1 if outcome.error else 0


if __name__ == "__main__":
    main()
