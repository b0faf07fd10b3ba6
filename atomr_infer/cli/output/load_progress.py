"""Progress of models that load: a bar on a terminal, a line per phase elsewhere."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Self

import click

from atomr_infer.cli.output.banner import notice_mark

if TYPE_CHECKING:
    from types import TracebackType

    from atomr_infer.cli.output.load_bars import LoadBars
    from atomr_infer.serving.replicas.replica import ReplicaState


class LoadProgress:
    """A context manager; its bars are gone when the block ends."""

    def __init__(self) -> None:
        self._bars = _open_bars()
        self._phases: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, deployment: str, replica: ReplicaState) -> None:
        """Take the newest state of one replica that loads."""
        number = replica.number
        label = deployment if number == 0 else f"{deployment}/{number}"
        if self._bars is None:
            if replica.progress is not None:
                self._print_phase(label, replica.progress.phase)
        elif replica.progress is None:
            self._bars.remove((deployment, number))
        else:
            self._bars.draw((deployment, number), label, replica.progress)

    def done(self, deployment: str) -> None:
        """Say that a deployment serves now."""
        if self._bars is not None:
            self._bars.remove_all(deployment)
        self._print_phase(deployment, "ready")

    def _print_phase(self, label: str, phase: str) -> None:
        if self._phases.get(label) == phase:
            return
        self._phases[label] = phase
        if self._bars is None:
            click.echo(f"{notice_mark()}{label}: {phase}", err=True)
        else:
            self._bars.say(f"{label}: {phase}")


def _open_bars() -> LoadBars | None:
    """Return bars where somebody sees them."""
    # Not rich's own opinion: FORCE_COLOR would draw bars into a file.
    # None: a parent closed it before it started us.
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    # Bars of several processes would draw over each other.
    if os.environ.get("TERM") == "dumb" or notice_mark():
        return None
    # Late: what draws them takes as long as a tenth of a start.
    from atomr_infer.cli.output.load_bars import LoadBars  # noqa: PLC0415

    return LoadBars()
