"""What a flow does to its events without waiting: map, filter, flat_map, scan.

Adjacent steps become one stage (see ``fused``), which hands a whole batch of events
to one step after the other.  So an event costs a turn of a loop for each step, and
no task switch.

A step that raises has done with the events before: they go on, and the error comes
behind them.  Those after it, of the same batch, are lost with it, unless the step
skips the event.

Pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum

import attrs

from atomr import telemetry
from atomr.core.checks import name_of

_log = logging.getLogger("atomr.flow")


class OnError(Enum):
    """What becomes of a flow when the function of a stage raises."""

    FAIL = "fail"
    """the flow fails with that error, behind the events before it"""
    SKIP = "skip"
    """the event is dropped and logged, and the flow goes on"""


Loop = Callable[[Iterator[object], Callable[[object], None]], None]
"""Takes events, and appends what comes of them; an error leaves the rest there."""


@attrs.frozen(eq=False)
class Step:
    """One step as it is described.

    Attributes:
        name: what notes and log lines call it.
        begin: makes the loop of one run, with its own state.
        on_error: what becomes of an error.
    """

    name: str
    begin: Callable[[], Loop]
    on_error: OnError = OnError.FAIL


@attrs.frozen(eq=False)
class RunningStep:
    """One step in one run."""

    step: Step
    loop: Loop

    def take(self, events: Iterable[object]) -> tuple[list[object], Exception | None]:
        """Return what comes of events, and the error that ends the flow behind it."""
        out: list[object] = []
        rest = iter(events)
        while True:
            try:
                self.loop(rest, out.append)
            except Exception as error:  # noqa: BLE001 - a stage may raise anything
                if self.step.on_error is OnError.FAIL:
                    return out, noted(error, self.step.name)
                log_skipped(error, self.step.name)
            else:
                return out, None


def begin(steps: Iterable[Step]) -> tuple[RunningStep, ...]:
    """Return steps with the state of one run."""
    return tuple(RunningStep(step, step.begin()) for step in steps)


def take(
    steps: tuple[RunningStep, ...], events: Sequence[object]
) -> tuple[Sequence[object], Exception | None]:
    """Return what comes of a batch behind all steps, and the error that ends it.

    Of several errors it is the one of the earliest event: a later step only sees
    what came before the first error.
    """
    failure = None
    for step in steps:
        events, error = step.take(events)
        failure = error or failure
    return events, failure


def noted(error: Exception, name: str) -> Exception:
    """Return an error that says which stage it is of; its type stays what it is."""
    note = f"in the flow's stage {name}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


def log_skipped(error: Exception, name: str) -> None:
    """Say that an event was dropped, and why; not the event, which may be secret."""
    kind = type(error).__name__
    telemetry.emit(("atomr", "flow", "skip"), {}, {"stage": name, "error": error})
    _log.warning("%s skipped an event: %s: %s", name, kind, error)


def log_restarted(error: Exception) -> None:
    """Say that a part of a flow begins anew, and why."""
    telemetry.emit(("atomr", "flow", "restart"), {}, {"error": error})
    notes = ", ".join(getattr(error, "__notes__", ()))
    where = f" ({notes})" if notes else ""
    _log.warning("a flow was restarted: %s: %s%s", type(error).__name__, error, where)


# --- the steps ----------------------------------------------------------------------


def map_step(fn: Callable[[object], object], on_error: OnError) -> Step:
    """Return the step that puts ``fn(event)`` in the place of each event."""

    def loop(events: Iterator[object], append: Callable[[object], None]) -> None:
        for event in events:
            append(fn(event))

    return Step(f"map({name_of(fn)})", lambda: loop, on_error)


def tap_step(fn: Callable[[object], object], on_error: OnError) -> Step:
    """Return the step that shows each event to ``fn``, and passes it on."""

    def loop(events: Iterator[object], append: Callable[[object], None]) -> None:
        for event in events:
            fn(event)
            append(event)

    return Step(f"tap({name_of(fn)})", lambda: loop, on_error)


def filter_step(wanted: Callable[[object], object], on_error: OnError) -> Step:
    """Return the step that passes on the events that are wanted."""

    def loop(events: Iterator[object], append: Callable[[object], None]) -> None:
        for event in events:
            if wanted(event):
                append(event)

    return Step(f"filter({name_of(wanted)})", lambda: loop, on_error)


def flat_map_step(fn: Callable[[object], Iterable[object]], on_error: OnError) -> Step:
    """Return the step that passes on each of the events of ``fn(event)``."""

    def loop(events: Iterator[object], append: Callable[[object], None]) -> None:
        for event in events:
            for inner in fn(event):
                append(inner)

    return Step(f"flat_map({name_of(fn)})", lambda: loop, on_error)


def scan_step(
    initial: object, fn: Callable[[object, object], object], on_error: OnError
) -> Step:
    """Return the step that folds, and passes on the state after each event."""

    def begin_scan() -> Loop:
        state = initial

        def loop(events: Iterator[object], append: Callable[[object], None]) -> None:
            nonlocal state
            for event in events:
                state = fn(state, event)
                append(state)

        return loop

    return Step(f"scan({name_of(fn)})", begin_scan, on_error)
