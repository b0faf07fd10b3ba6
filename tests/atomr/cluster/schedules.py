"""Plays many drawn schedules of the services, each from a seed alone.

    python -m tests.atomr.cluster.schedules permits budgets --seeds 1000 --jobs 2

A seed gives what happens and in which order tasks run, so that a schedule that fails
does so again: ``--seed 7`` plays one, here, with its whole error.  After each one,
nothing is left: no task, no process, no file that is open.  The figures are in
``docs/explanation/limits-and-budgets.md``.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from atomr.testing.schedules import run
from atomr.testing.simulation.running import Chunk, Done, chunks
from atomr.testing.simulation.tally import Tally, run_all
from tests.atomr.cluster.budgets.test_simulated import check as play_budgets
from tests.atomr.cluster.permits.test_simulated import play as play_permits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SERVICES: dict[str, Callable[[int], Awaitable[object]]] = {
    "permits": play_permits,
    "budgets": play_budgets,
}
MODULE = "tests.atomr.cluster.schedules"


class JumpingClock(trio.abc.Clock):
    """Virtual time that jumps as soon as no task can run.

    A MockClock needs a turn of the loop to see it.  This one is for runs without
    sockets and threads, which it would not wait for.

    Attributes:
        jumps: how often it did.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self._now_s = 0.0

    def start_clock(self) -> None:
        """Begin at 0."""

    def current_time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Jump to the next deadline: nothing else is to be done."""
        if math.isinf(deadline):
            return deadline
        if deadline > self._now_s:
            self.jumps += 1
            self._now_s = deadline
        return 0.0


async def _whole(play: Callable[[int], Awaitable[object]], seed: int) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    await play(seed)
    left = trio.lowlevel.current_statistics().tasks_living - tasks
    assert left == 0, f"{left} tasks are left"


def play_one(service: str, seed: int, clock: JumpingClock) -> None:
    """Play a schedule by a clock, which is new.

    Raises:
        AssertionError: something did not hold.
    """
    files = _open_files()
    run(_whole, SERVICES[service], seed, seed=seed, clock=clock)
    # What others have left, a collection may have closed meanwhile.
    assert _open_files() <= files


def _open_files() -> set[tuple[str, str]]:
    folder = Path("/proc/self/fd")
    found = set()
    for number in os.listdir(folder) if folder.exists() else ():
        with suppress(FileNotFoundError):  # that of the folder itself
            found.add((number, os.readlink(folder / number)))
    return found


def play_chunk(chunk: Chunk) -> Done:
    """Play a chunk in this process; it is named for its service."""
    logging.disable(logging.ERROR)  # full disks and lost files are told of
    failed, jumps, virtual_s = [], 0, 0.0
    for seed in chunk.seeds:
        clock = JumpingClock()
        try:
            play_one(chunk.name, seed, clock)
        except (Exception, BaseExceptionGroup):  # noqa: BLE001 - it is what came of it
            failed.append((seed, traceback.format_exc()))
        jumps += clock.jumps
        virtual_s += clock.current_time()
    return Done(chunk, jumps, virtual_s, tuple(failed))


@click.command()
@click.argument(
    "services", nargs=-1, required=True, type=click.Choice(sorted(SERVICES))
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many of each.",
)
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default=True,
    help="How many processes at once.",
)
@click.option("--seed", type=int, help="One of each, here, with its whole error.")
def main(
    services: tuple[str, ...], seeds: int, first: int, jobs: int, seed: int | None
) -> None:
    """Play drawn schedules of SERVICES; exits with 1 when one fails."""
    if seed is not None:
        for service in services:
            play_one(service, seed, JumpingClock())
            click.echo(f"{service}: seed {seed} holds")
        return
    tallies, work = {}, []
    for name in services:
        again = f"python -m {MODULE} {name} --seed {{seed}}"
        tallies[MODULE, name] = Tally(name, seeds, again)
        work += chunks(MODULE, name, range(first, first + seeds), jobs)
    # By turns: what is broken off has played some of each.
    work.sort(key=lambda chunk: chunk.seeds)
    run_all(tallies, work, jobs, play_chunk)
    for tally in tallies.values():
        tally.report()
    sys.exit(1 if any(tally.failed for tally in tallies.values()) else 0)


if __name__ == "__main__":
    main()
