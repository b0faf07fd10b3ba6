"""What is left of a node after its block, and where it came from.

Processes, names and timers are the node's own.  A task belongs to a node when
it was started inside its block: it inherited the node as a context variable.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import atomr
from atomr.core.child_spec import ChildKind
from atomr.process.context import NODE
from atomr.process.timers import Timer, TimerService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from atomr.process import Node
    from atomr.process.process import Process

_ATOMR: Final = str(Path(atomr.__file__).parent / "_")[:-1]
"""With the separator: a package beside it may have a longer name."""

_TRIO: Final = str(Path(trio.__file__).parent / "_")[:-1]


class LeftoverError(AssertionError):
    """Something of a node outlived its block.

    Attributes:
        leftovers: a line for each.
    """

    def __init__(self, node: str, leftovers: tuple[str, ...]) -> None:
        self.leftovers = leftovers
        lines = "".join(f"\n  {line}" for line in leftovers)
        super().__init__(f"left of node {node!r} after its block:{lines}")


class TracedTimers(TimerService):
    """A node's clock that knows who armed what."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[Timer, str] = {}
        self._fires: str | None = None

    def at(self, time: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, at ``time`` on trio's clock, or now if it is past."""
        origin = _caller() or self._fires or "atomr itself"

        def fire() -> None:
            # What arms itself again comes from where it was armed first.
            self._fires = origin
            try:
                callback()
            finally:
                self._fires = None

        timer = super().at(time, fire)
        # Twice the armed ones at most, so that a long test does not fill memory.
        if len(self.origins) > 64 + 2 * self.size:
            self.origins = {t: o for t, o in self.origins.items() if t.callback}
        self.origins[timer] = origin
        return timer

    def armed(self) -> Iterator[tuple[Timer, str]]:
        """Return what is armed, with the place that did it."""
        return ((t, origin) for t, origin in self.origins.items() if t.callback)


def _caller() -> str | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented
    while frame is not None and frame.f_code.co_filename.startswith(_ATOMR):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(_TRIO):
        return None
    return _place(frame, frame.f_lineno)


def _place(frame: FrameType, line: int) -> str:
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"


def leftovers(node: Node) -> tuple[str, ...]:
    """Return a line for each thing that is left of a node whose block is over."""
    return (
        *(_describe_process(process) for process in node.processes.values()),
        *(f"name {n!r} of {p.pid!r}" for n, p in node.names.items()),
        *_timer_lines(node.timers),
        *(_describe_task(task) for task in _tasks_of(node)),
    )


def _describe_process(process: Process) -> str:
    parent = process.parent.own_pid()
    under = f"under {parent!r}" if parent is not None else "at the top of the node"
    behaviour = process.behaviour
    is_worker = behaviour.child_kind is ChildKind.WORKER
    kind = "process" if is_worker else "supervisor"
    return f"{kind} {process.pid!r}, a {type(behaviour).__name__} {under}"


def _timer_lines(timers: TimerService) -> Iterator[str]:
    now = trio.current_time()
    if isinstance(timers, TracedTimers):
        armed = tuple(timers.armed())
        for timer, origin in armed:
            yield f"timer due in {timer.at - now:.3g} s, armed at {origin}"
        calls = timers.size - len(armed)
    else:
        calls = timers.size
    if calls:
        yield f"{calls} calls or timers that still wait"


def _tasks_of(node: Node) -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        if task.context.get(NODE) is node:
            yield task
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks


def _describe_task(task: trio.lowlevel.Task) -> str:
    places = [
        _place(frame, line)
        for frame, line in task.iter_await_frames()
        if not frame.f_code.co_filename.startswith(_TRIO)
    ]
    at = f", waiting at {places[-1]}" if places else ""
    return f"task {task.name!r}{at}"
