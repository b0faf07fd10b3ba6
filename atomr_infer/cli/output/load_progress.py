"""Progress of models that load: a bar on a terminal, a line per phase elsewhere."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Self

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

from atomr_infer.cli.output.banner import notice_mark

if TYPE_CHECKING:
    from types import TracebackType

    from atomr_infer.runtimes.contract import Progress as Step
    from atomr_infer.serving.replicas.replica import ReplicaState

# A deployment's name and a replica's number.
_Bar = tuple[str, int]


class LoadProgress:
    """A context manager; its bars are gone when the block ends."""

    def __init__(self) -> None:
        # Not rich's own opinion: FORCE_COLOR would draw bars into a file.
        # None: a parent closed it before it started us.
        self._live = (
            sys.stderr is not None
            and sys.stderr.isatty()
            and os.environ.get("TERM") != "dumb"
            and not notice_mark()  # several at once would draw over each other
        )
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
        self._bars: dict[_Bar, TaskID] = {}
        self._phases: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def show(self, deployment: str, replica: ReplicaState) -> None:
        """Take the newest state of one replica that loads."""
        number = replica.number
        label = deployment if number == 0 else f"{deployment}/{number}"
        if replica.progress is None:
            self._remove((deployment, number))
        elif self._live:
            self._draw((deployment, number), label, replica.progress)
        else:
            self._print_phase(label, replica.progress.phase)

    def done(self, deployment: str) -> None:
        """Say that a deployment serves now."""
        for bar in [bar for bar in self._bars if bar[0] == deployment]:
            self._remove(bar)
        self._print_phase(deployment, "ready")

    def _draw(self, bar: _Bar, label: str, step: Step) -> None:
        task = self._bars.get(bar)
        if task is None:
            task = self._progress.add_task(label, total=None, amount="")
            self._bars[bar] = task
        self._progress.update(
            task,
            description=f"{label}: {step.phase}",
            completed=step.done or 0,
            total=step.total,
            amount=amount(step),
        )

    def _remove(self, bar: _Bar) -> None:
        task = self._bars.pop(bar, None)
        if task is not None:
            self._progress.remove_task(task)
            # At once: the next line that is printed would show it again.
            self._progress.refresh()

    def _print_phase(self, label: str, phase: str) -> None:
        if self._phases.get(label) != phase:
            self._phases[label] = phase
            self._progress.console.print(
                f"{notice_mark()}{label}: {phase}",
                highlight=False,
                markup=False,
                soft_wrap=True,
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
