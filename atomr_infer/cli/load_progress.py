"""Progress of models that load: a bar on a terminal, a line per phase elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from types import TracebackType

    from atomr_infer.serving.replica import ReplicaState


class LoadProgress:
    """A context manager; its bars are gone when the block ends."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr)
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
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
        step = replica.progress
        if step is None:
            return
        label = deployment if replica.number == 0 else f"{deployment}/{replica.number}"
        if not self._live:
            self._print_phase(label, step.phase)
            return
        task = self._tasks.get(label)
        if task is None:
            task = self._tasks[label] = self._progress.add_task(label, total=None)
        self._progress.update(
            task,
            description=f"{label}: {step.phase}",
            completed=step.done or 0,
            total=step.total,
        )

    def done(self, deployment: str) -> None:
        """Say that a deployment serves now."""
        self._print_phase(deployment, "ready")

    def _print_phase(self, label: str, phase: str) -> None:
        if self._phases.get(label) != phase:
            self._phases[label] = phase
            self._progress.console.print(f"{label}: {phase}", highlight=False)
