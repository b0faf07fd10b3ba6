"""Run the wall and print it; exits with 1 when a cell does not stand."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import click
import trio

from atomr_infer.testing.wall.running import run_cell
from atomr_infer.testing.wall.scenarios import cells

if TYPE_CHECKING:
    from atomr_infer.testing.wall.judging import Verdict

_COLUMNS = (34, 11, 11, 9)


@click.command()
@click.option("--only", default="", help="Only cells whose name holds this.")
@click.option(
    "--providers",
    type=click.Choice(["own", "all"]),
    default="own",
    show_default=True,
    help="Which dialects a first upstream speaks: the client's, or each.",
)
def main(only: str, providers: str) -> None:
    """Run the fault wall and print it as a table."""
    # What fails here is meant to; the table says what came of it.
    logging.disable(logging.CRITICAL)
    asked = [c for c in cells() if providers == "all" or c.is_own]
    wanted = [cell for cell in asked if only in cell.name]
    if not wanted:
        raise click.BadParameter(
            f"no cell's name holds {only!r}; one is called {asked[0].name!r}",
            param_hint="--only",
        )
    click.echo(_line("scenario", "dialect", "provider", "streamed", "outcome"))
    failed = 0
    for cell in wanted:
        verdict = trio.run(run_cell, cell)
        failed += bool(verdict.faults)
        _print(verdict)
    click.echo(f"{len(wanted) - failed} of {len(wanted)} cells stand.")
    sys.exit(1 if failed else 0)


def _print(verdict: Verdict) -> None:
    cell = verdict.cell
    outcome = f"{'FAILED' if verdict.faults else 'ok'}: {verdict.outcome}"
    streamed = "yes" if cell.stream else "no"
    route = (cell.dialect.value, cell.provider.value)
    click.echo(_line(cell.scenario.name, *route, streamed, outcome))
    for fault in verdict.faults:
        click.echo(f"    {fault}")


def _line(*columns: str) -> str:
    padded = [text.ljust(width) for text, width in zip(columns, _COLUMNS, strict=False)]
    return "".join([*padded, columns[-1]])


if __name__ == "__main__":
    main()
