"""Plays many drawn schedules of the services, each from a seed alone.

    python -m tests.atomr.cluster.schedules permits budgets --first 0 --seeds 1000

A seed gives what happens and in which order tasks run, so that a schedule that fails
does so again.  After each one, nothing is left: no task, no process, no file that is
open.  The figures are in ``docs/explanation/clusters-measured.md``.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from atomr.testing.schedules import run
from tests.atomr.cluster.budgets.test_simulated import check as play_budgets
from tests.atomr.cluster.permits.test_simulated import play as play_permits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

SERVICES: dict[str, Callable[[int], Awaitable[object]]] = {
    "permits": play_permits,
    "budgets": play_budgets,
}
_EVERY = 100


class JumpingClock(trio.abc.Clock):
    """Virtual time that jumps as soon as no task can run.

    A MockClock needs a turn of the loop to see it.  This one is for runs without
    sockets and threads, which it would not wait for.
    """

    def __init__(self) -> None:
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
        self._now_s = max(self._now_s, deadline)
        return 0.0


async def _whole(play: Callable[[int], Awaitable[object]], seed: int) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    await play(seed)
    left = trio.lowlevel.current_statistics().tasks_living - tasks
    assert left == 0, f"{left} tasks are left"


def play_one(service: str, seed: int) -> None:
    """Play a schedule.

    Raises:
        AssertionError: something did not hold.
    """
    files = _open_files()
    run(_whole, SERVICES[service], seed, seed=seed, clock=JumpingClock())
    assert _open_files() == files


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


def _play_all(services: Sequence[str], seeds: range) -> list[tuple[str, int]]:
    """Return what failed."""
    failed = []
    took_s = dict.fromkeys(services, 0.0)
    for number, seed in enumerate(seeds, 1):
        for service in services:
            began_s = time.process_time()
            try:
                play_one(service, seed)
            except (Exception, BaseExceptionGroup):  # noqa: BLE001 - shown, and counted
                failed.append((service, seed))
                print(f"{service}: seed {seed} failed", flush=True)
                traceback.print_exc()
            took_s[service] += time.process_time() - began_s
        if number % _EVERY == 0 or number == len(seeds):
            shown = ", ".join(f"{name} {took_s[name]:.0f} s" for name in services)
            print(f"{number} of each: {shown}; {len(failed)} failed", flush=True)
    return failed


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("services", nargs="+", choices=sorted(SERVICES))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100)
    asked = parser.parse_args()
    logging.disable(logging.ERROR)  # full disks and lost files are told of
    seeds = range(asked.first, asked.first + asked.seeds)
    return 1 if _play_all(asked.services, seeds) else 0


if __name__ == "__main__":
    sys.exit(main())
