"""What many runs came to, for people: a bar while they run, then a summary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from atomr.testing.simulation.running import run_chunk, run_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr.testing.simulation.running import Chunk, Done

_SHOWN = 10
"""Failing seeds that are named in a summary; the first comes with its error."""

_TOLD_EACH_S = 30.0
"""So often a line says how far it came where no bar can move, as in a log."""


@attrs.define
class Tally:
    """What has been counted for one kind of run.

    Attributes:
        name: of the kind.
        total: runs that there are to be.
        again: the command that runs one again, with ``{seed}`` in it.
        runs: so many are done.
        events: how many were handled in them.
        virtual_s: how much time passed in them.
        failed: seeds that failed, with their errors.
    """

    name: str
    total: int
    again: str
    runs: int = 0
    events: int = 0
    virtual_s: float = 0.0
    failed: list[tuple[int, str]] = attrs.field(factory=list)

    def add(self, done: Done) -> None:
        """Count a chunk."""
        self.runs += len(done.chunk.seeds)
        self.events += done.events
        self.virtual_s += done.virtual_s
        self.failed += done.failed

    @property
    def verdict(self) -> str:
        """Whether all held."""
        return f"{len(self.failed)} FAILED" if self.failed else "all hold"

    def report(self) -> None:
        """Print what came of it, and how to run the first that failed again."""
        size = f"{self.events} events, {self.virtual_s:.0f} s of virtual time"
        click.echo(f"{self.name}: {self.runs} runs, {self.verdict}; {size}")
        if not self.failed:
            return
        seeds = sorted(seed for seed, _ in self.failed)
        more = ", ..." if len(seeds) > _SHOWN else ""
        click.echo(f"  failing seeds: {', '.join(map(str, seeds[:_SHOWN]))}{more}")
        click.echo(dict(self.failed)[seeds[0]], nl=False)
        click.echo(f"  run it again: {self.again.format(seed=seeds[0])}")


def run_all(
    tallies: Mapping[tuple[str, str], Tally],
    work: Iterable[Chunk],
    jobs: int,
    run: Callable[[Chunk], Done] = run_chunk,
) -> None:
    """Run chunks, show how far it is, and say at once which seed failed.

    Args:
        tallies: what counts, by a chunk's module and name.
        work: what is to be run.
        jobs: in so many processes.
        run: a module's function, which runs one there.
    """
    began_s = told_s = time.monotonic()
    with _progress() as progress:
        console, bars = progress.console, _bars(progress, tallies)
        for done in run_chunks(work, jobs, run):
            key = done.chunk.module, done.chunk.name
            tally = tallies[key]
            tally.add(done)
            progress.advance(bars[key], len(done.chunk.seeds))
            for seed, _ in done.failed:
                console.print(f"{tally.name}: seed {seed} failed")
            now_s = time.monotonic()
            if not console.is_terminal and now_s >= told_s + _TOLD_EACH_S:
                told_s = now_s
                console.print(_how_far(tallies.values(), now_s - began_s))
    click.echo(f"{time.monotonic() - began_s:.1f} s, {jobs} at once")


def _how_far(tallies: Iterable[Tally], took_s: float) -> str:
    begun = (f"{t.name} {t.runs} of {t.total}, {t.verdict}" for t in tallies if t.runs)
    return f"after {took_s:.0f} s: {'; '.join(begun)}"


def _bars(
    progress: Progress, tallies: Mapping[tuple[str, str], Tally]
) -> dict[tuple[str, str], TaskID]:
    return {
        key: progress.add_task(tally.name, total=tally.total)
        for key, tally in tallies.items()
    }


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console = Console(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console)
