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
    click.echo(_line("scenario", "dialect", "provider", "streamed", "outcome"))
    verdicts = []
    for cell in cells():
        wanted = providers == "all" or cell.is_own
        if wanted and only in cell.name:
            verdict = trio.run(run_cell, cell)
            verdicts.append(verdict)
            _print(verdict)
    failed = sum(bool(verdict.faults) for verdict in verdicts)
    click.echo(f"{len(verdicts) - failed} of {len(verdicts)} cells stand.")
    sys.exit(1 if failed or not verdicts else 0)


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
