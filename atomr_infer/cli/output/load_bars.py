"""The bars of models that load, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from atomr_infer.runtimes.contract import Progress as Step

# A deployment's name and a replica's number.
_Bar = tuple[str, int]


class LoadBars:
    """Bars on standard error, from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._tasks: dict[_Bar, TaskID] = {}

    def start(self) -> None:
        """Draw from now on."""
        self._progress.start()

    def stop(self) -> None:
        """Take away what is drawn."""
        self._progress.stop()

    def draw(self, bar: _Bar, label: str, step: Step) -> None:
        """Show the newest step of one replica."""
        task = self._tasks.get(bar)
        if task is None:
            task = self._progress.add_task(label, total=None, amount="")
            self._tasks[bar] = task
        self._progress.update(
            task,
            description=f"{label}: {step.phase}",
            completed=step.done or 0,
            total=step.total,
            amount=amount(step),
        )

    def remove(self, bar: _Bar) -> None:
        """Take one bar away, if it is there."""
        task = self._tasks.pop(bar, None)
        if task is not None:
            self._progress.remove_task(task)
            # At once: the next line that is printed would show it again.
            self._progress.refresh()

    def remove_all(self, deployment: str) -> None:
        """Take the bars of all replicas of a deployment away."""
        for bar in [bar for bar in self._tasks if bar[0] == deployment]:
            self.remove(bar)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(
            line, highlight=False, markup=False, soft_wrap=True
        )


def amount(step: Step) -> str:
    """Return how much of a step is done, or "" where it cannot be counted.

    >>> from atomr_infer.runtimes.contract import Progress
    >>> amount(Progress("loading", done=500_000, total=2_000_000))
    '500.0 kB of 2.0 MB'
    >>> amount(Progress("loading", done=3, total=30, unit="tensors"))
    '3 of 30 tensors'
    >>> amount(Progress("warming up"))
    ''
    """
    if step.done is None:
        return ""
    if step.unit == "bytes":
        return " of ".join(decimal(n) for n in (step.done, step.total) if n is not None)
    total = "" if step.total is None else f" of {step.total}"
    return f"{step.done}{total} {step.unit}"
